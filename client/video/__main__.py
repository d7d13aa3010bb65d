"""`python -m client.video`: see client.video.command."""

import sys

from client import arguments

try:
    from client.video.command import main
except ModuleNotFoundError as error:
    if error.name != "av":
        raise
    message = "PyAV is not installed: run `pip install '.[client,video]'`"
    sys.exit(arguments.say("python -m client.video", message, arguments.BAD_INPUT))

if __name__ == "__main__":
    sys.exit(main())
