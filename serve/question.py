"""One real question to a running server, over its HTTP port: where in a small picture is a thing?"""

import http.client
import io
import json
import math
import re
import struct
import time
import urllib.error
import urllib.request
from typing import Any

from PIL import Image

from serve.repository import SERVED

SIZE = 32  # pixels, both sides of the picture
WORD = b"thing"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's ports
_OVERLOAD = re.compile(r"maximum queue size|timeout expired", re.IGNORECASE)  # Triton's words for refusals


class NoRightAnswer(Exception):
    """The question was not answered as it should be; the message says how, in one line."""


class Overloaded(NoRightAnswer):
    """The server refused because others ask too much: it works."""


class Unreachable(NoRightAnswer):
    """There is no server, or it died before it had answered."""


class Silent(NoRightAnswer):
    """Nothing came back in time: the server hangs, or is slow under load."""


def ask(url: str, timeout: float) -> float:
    """Ask the server at http://HOST:PORT; returns the seconds that the answer took. Raises NoRightAnswer.

    Right is an answer of one box within the picture and one score from 0 to 1.
    """
    started = time.monotonic()
    body = post(f"{url}/v2/models/{SERVED}/infer", _BODY, timeout, _HEADERS)
    try:
        answer = json.loads(body)
        box, (score,) = (_output(answer, name) for name in ("BOX", "SCORE"))
        good = len(box) == 4 and all(0 <= side <= SIZE for side in box) and 0 <= score <= 1
        if not good or not all(map(math.isfinite, (*box, score))):
            raise NoRightAnswer(f"the answer is wrong: box {box}, score {score}")
    except (KeyError, TypeError, ValueError) as error:
        raise NoRightAnswer(f"the answer cannot be read: {error!r}") from None
    return time.monotonic() - started


def post(url: str, body: bytes | None, timeout: float, headers: dict[str, str]) -> bytes:
    """The body of a successful answer; without a body to send it is a GET. Raises NoRightAnswer with Triton's own
    reason."""
    request = urllib.request.Request(url, body, headers)
    try:
        with DIRECT.open(request, timeout=timeout) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        reason = _reason(error)
        raise (Overloaded if _OVERLOAD.search(reason) else NoRightAnswer)(reason) from None
    except TimeoutError:
        raise Silent(f"no answer within {timeout:g} s") from None
    except OSError as error:
        if isinstance(getattr(error, "reason", None), TimeoutError):
            raise Silent(f"no answer within {timeout:g} s") from None
        raise Unreachable(f"no connection: {getattr(error, 'reason', error)}") from None
    except http.client.HTTPException as error:
        raise Unreachable(f"the answer broke off: {error!r}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        text = str(json.loads(error.read())["error"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return f"HTTP status {error.code}"
    return text.split("\n\nAt:")[0].replace("\n", " ")  # without a traceback


def _output(answer: dict[str, Any], name: str) -> list[float]:
    (data,) = [output["data"] for output in answer["outputs"] if output["name"] == name]
    return list(data)


def _question() -> tuple[bytes, dict[str, str]]:
    """Body and headers of the request: the inputs' description in JSON, then each string behind its length."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((SIZE, SIZE)).convert("RGB").save(file, "PNG")
    data, inputs = b"", []
    for name, value in (("IMAGE", file.getvalue()), ("EXPRESSION", WORD)):
        raw = struct.pack("<I", len(value)) + value
        size = {"binary_data_size": len(raw)}
        inputs.append({"name": name, "shape": [1], "datatype": "BYTES", "parameters": size})
        data += raw
    wanted = [{"name": name} for name in ("BOX", "SCORE")]
    head = json.dumps({"id": "health", "inputs": inputs, "outputs": wanted}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


_BODY, _HEADERS = _question()
