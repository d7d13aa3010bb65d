"""`python -m client.web`: a page where a person drops a picture, types expressions and sees the boxes.

Everything on the page comes from this machine; nothing is sent anywhere but to the server that is asked.
"""

import argparse
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from client import arguments, draw
from client.answers import Answers
from client.cli import there, unknown
from client.errors import GroundingError, Refused
from client.library import Client
from client.pictures import MAX_BYTES

# Read when Gradio is imported, which asks its own page at the start: a proxy in the environment does not lead there.
os.environ["GRADIO_ANALYTICS_ENABLED"], os.environ["no_proxy"] = "False", "*"
try:
    import gradio
except ModuleNotFoundError:
    sys.exit("python -m client.web: Gradio is not installed: run `pip install '.[client,web]'`")

EXAMPLES = Path(__file__).parent / "examples"
QUESTIONS = {
    "triangles.jpg": "the blue heart\nthe bottom right blue cross\nlarge triangle",
    "hearts.jpg": "the large purple heart\nsmall purple cross\nthe blue cross",
    "crosses.jpg": "the large blue heart\nthe small cross on the far left",
}
HEAD = ["expression", "score", "there", "x1", "y1", "x2", "y2"]
# Numbers up to 99999.9 stay whole, expressions are wrapped; on a telephone the table is scrolled.
WIDTHS: list[str | int] = ["150px", *["66px"] * 2, *["78px"] * 4]
KEPT = 3600, 86400  # seconds between two looks at what was uploaded, and how long it is kept, if the page does not end
CSS = "footer {display: none !important} .message {min-height: 1.6em}"

Shown = tuple[Image.Image | None, list[list[str | float]], str]


def build_parser() -> arguments.Parser:
    """All arguments of the command."""
    parser = arguments.Parser(
        prog="python -m client.web",
        description="A page to ask a running server from: http://127.0.0.1:7860 unless told otherwise.",
        epilog="Ctrl-C ends it. Whoever reaches the page can ask the server.",
    )
    where = "IPv4 address or name where the page is served (default: %(default)s)"
    parser.add_argument("--host", type=_host, default="127.0.0.1", metavar="H", help=where)
    parser.add_argument(
        "--port", type=_port, default=7860, metavar="P", help="port where the page is served (default: %(default)s)"
    )
    arguments.add_server(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    return arguments.run(build_parser(), _serve, argv)


def _serve(args: argparse.Namespace) -> int:
    with arguments.connect(args) as client:
        blocks = page(client)
        try:
            blocks.launch(
                server_name=args.host,
                server_port=args.port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                show_error=True,
                max_file_size=MAX_BYTES,
                ssr_mode=False,
                theme=gradio.themes.Default(font="system-ui", font_mono="monospace"),
                css=CSS,
            )
        except OSError:
            raise Refused(f"cannot serve the page at {args.host}:{args.port}: give another --port or --host") from None
        print(f"ready: http://{args.host}:{args.port}, asking {client.url} (Ctrl-C stops)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        blocks.close(verbose=False)
    return arguments.OK


def page(client: Client) -> gradio.Blocks:
    """The page that asks with `client`."""

    def ask(chosen: dict[str, Any] | None, text: str, attention: bool) -> Shown:
        expressions = [line.strip() for line in text.splitlines() if line.strip()]
        if chosen is None or chosen["path"] is None:
            return None, [], "Choose a picture."
        if not expressions:
            return None, [], "Type what to find, one expression on each line."
        try:
            path = _uploaded(chosen["path"], picture.GRADIO_CACHE)
            answers = client.ground(path, expressions, attention)
            said = [f"Answered in {answers.seconds * 1e3:.0f} ms."]
            if words := unknown(answers):
                said.append(_warning(words))
            return draw.draw(path, answers), _rows(answers), " ".join(said)
        except GroundingError as error:
            return None, [], _warning(str(error))

    title = "GIN: point at the thing a sentence names"
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=KEPT) as blocks:
        gradio.Markdown("# Point at the thing a sentence names")
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(type="filepath", sources=["upload", "clipboard"], label="Picture", height=420)
                text = gradio.Textbox(
                    label="What to find, one expression on each line", lines=3, placeholder="the red car"
                )
                attention = gradio.Checkbox(label="Show where the network looked")
                button = gradio.Button("Ask", variant="primary")
            with gradio.Column():
                drawn = gradio.Image(label="Answer", format="png", interactive=False, height=420)
                message = gradio.Markdown(elem_classes="message")
                table = gradio.Dataframe(
                    headers=HEAD, label="Boxes", interactive=False, column_widths=WIDTHS, wrap=True
                )
        inputs, outputs = [picture, text, attention], [drawn, table, message]
        gradio.Examples([[str(EXAMPLES / name), words] for name, words in QUESTIONS.items()], [picture, text])
        # Gradio would open and convert the file, and fail with a traceback if it is no picture: the server says that
        # better.
        events = [button.click, text.submit, attention.input]
        gradio.on(events, ask, inputs, outputs, api_name="ask", preprocess=False)
    return blocks


def _uploaded(path: str, cache: str) -> str:
    """`path` itself if it leads into Gradio's `cache`, where uploads and examples are. Raises Refused if not.

    Gradio checks that only where the request says that the path is a file, and anybody can send requests.
    """
    try:
        if Path(path).resolve().is_relative_to(Path(cache).resolve()):
            return path
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a zero in it
        pass
    raise Refused("this picture was not uploaded here: choose it anew")


def _warning(text: str) -> str:
    return f"⚠️ {text[:1].upper()}{text[1:]}."


def _rows(answers: Answers) -> list[list[str | float]]:
    return [[g.expression, round(g.score, 3), there(g), *(round(side, 1) for side in g.box)] for g in answers]


def _host(text: str) -> str:
    try:
        if text:  # the resolver would take none for every address
            socket.gethostbyname(text)
            return text
    except (OSError, UnicodeError):
        pass
    raise argparse.ArgumentTypeError(f"expected an IPv4 address or a name that has one, got {text!r}")


def _port(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
