"""Bad requests are refused with their cause, alone, and the server goes on."""

import io
import struct
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image, ImageOps
from tritonclient.utils import InferenceServerException

from client.library import Client
from serve import Server

GOOD = "the red circle"
TIMEOUT = 60  # seconds: never the point of a test here


def bomb() -> bytes:
    """A PNG header that claims 60 000 x 60 000 pixels."""
    data = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data))


def as_file(jpeg: bytes, kind: str) -> bytes:
    """The same picture in another format."""
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(file, kind)
    return file.getvalue()


def strings(name: str, values: Sequence[bytes], shape: Sequence[int] | None = None) -> triton.InferInput:
    """An input of byte strings."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    array = array.reshape(shape if shape is not None else [len(values)])
    return triton.InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array)


def numbers(name: str, dtype: str, array: np.ndarray) -> triton.InferInput:
    """An input of numbers."""
    return triton.InferInput(name, list(array.shape), dtype).set_data_from_numpy(array)


def raw(name: str, count: int, content: bytes) -> triton.InferInput:
    """An input of byte strings whose encoding is the caller's."""
    result = strings(name, [b""] * count)
    result._raw_content = content
    return result


def infer(url: str, inputs: list[triton.InferInput]) -> np.ndarray:
    """Boxes from the bare protocol, without this project's client."""
    with triton.InferenceServerClient(url) as connection:
        return connection.infer("gin", inputs, client_timeout=TIMEOUT).as_numpy("BOX")


def ask(url: str, image: Sequence[bytes], expressions: Sequence[bytes]) -> np.ndarray:
    """The same from values."""
    return infer(url, [strings("IMAGE", image), strings("EXPRESSION", expressions)])


def assert_refused(url: str, inputs: list[triton.InferInput], culprit: str) -> None:
    """INVALID_ARGUMENT in words fit for a stranger."""
    with pytest.raises(InferenceServerException) as caught:
        infer(url, inputs)
    message = caught.value.message()
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", message
    assert culprit in message
    assert len(message.splitlines()) == 1
    for inside in ("/", ".py", "Traceback", "0x7f"):
        assert inside not in message


def test_nobody_works_for_a_caller_that_has_given_up(url: str, jpeg: bytes) -> None:
    """What it says of its patience counts, for over HTTP Triton does not notice that it has left."""
    inputs = [strings("IMAGE", [jpeg]), strings("EXPRESSION", [b"star"])]
    with (
        triton.InferenceServerClient(url) as connection,
        pytest.raises(InferenceServerException, match="CANCELLED.*its time is over"),
    ):
        connection.infer("gin", inputs, timeout=1)  # microseconds


BAD: dict[str, tuple[str, Callable[[bytes], Sequence[bytes]], Sequence[bytes]]] = {
    "text": ("IMAGE", lambda jpeg: [b"hello"], [b"star"]),
    "nothing": ("IMAGE", lambda jpeg: [b""], [b"star"]),
    "truncated": ("IMAGE", lambda jpeg: [jpeg[: len(jpeg) // 2]], [b"star"]),
    "header only": ("IMAGE", lambda jpeg: [jpeg[:4]], [b"star"]),
    "truncated PNG": ("IMAGE", lambda jpeg: [as_file(jpeg, "PNG")[:4_000]], [b"star"]),
    "truncated WebP": ("IMAGE", lambda jpeg: [as_file(jpeg, "WEBP")[:500]], [b"star"]),
    "BMP": ("IMAGE", lambda jpeg: [as_file(jpeg, "BMP")], [b"star"]),
    "TIFF": ("IMAGE", lambda jpeg: [as_file(jpeg, "TIFF")], [b"star"]),
    "bomb": ("IMAGE", lambda jpeg: [bomb()], [b"star"]),
    "33 MiB": ("IMAGE", lambda jpeg: [jpeg + bytes(33 * 2**20)], [b"star"]),
    "no images": ("IMAGE", lambda jpeg: [], [b"star"]),
    "two images": ("IMAGE", lambda jpeg: [jpeg, jpeg], [b"star"]),
    "both bad": ("IMAGE", lambda jpeg: [b"hello"], [b""]),
    "empty expression": ("EXPRESSION", lambda jpeg: [jpeg], [b""]),
    "spaces": ("EXPRESSION", lambda jpeg: [jpeg], [b"star", b"   "]),
    "marks": ("EXPRESSION", lambda jpeg: [jpeg], [b"?!."]),
    "zero byte": ("EXPRESSION", lambda jpeg: [jpeg], [b"\0"]),
    "not UTF-8": ("EXPRESSION", lambda jpeg: [jpeg], [b"\xff\xfe\xfa"]),
    "51 words": ("EXPRESSION", lambda jpeg: [jpeg], [b"star " * 51]),
    "1001 letters": ("EXPRESSION", lambda jpeg: [jpeg], [b"a" * 1_001]),
    "65 expressions": ("EXPRESSION", lambda jpeg: [jpeg], [b"star"] * 65),
    "no expressions": ("EXPRESSION", lambda jpeg: [jpeg], []),
}


@pytest.mark.parametrize("name", BAD)
def test_refusal_names_the_input(url: str, client: Client, jpeg: bytes, name: str) -> None:
    """INVALID_ARGUMENT, the input's name, no path and no traceback; the next request is answered."""
    culprit, image, expressions = BAD[name]
    assert_refused(url, [strings("IMAGE", image(jpeg)), strings("EXPRESSION", expressions)], culprit)
    assert len(client.ground(jpeg, GOOD)) == 1


def test_refusal_counts_from_one(url: str, jpeg: bytes) -> None:
    """Of several expressions the bad one is named by its place."""
    with pytest.raises(InferenceServerException, match="expression 3 of 4"):
        ask(url, [jpeg], [b"star", b"circle", b" ", b"square"])


STAR = strings("EXPRESSION", [b"star"])
MALFORMED: dict[str, tuple[str, Callable[[bytes], list[triton.InferInput]]]] = {
    "no EXPRESSION": ("EXPRESSION", lambda jpeg: [strings("IMAGE", [jpeg])]),
    "no IMAGE": ("IMAGE", lambda jpeg: [STAR]),
    "nothing": ("IMAGE", lambda jpeg: []),
    "pixels": ("IMAGE", lambda jpeg: [numbers("IMAGE", "UINT8", np.zeros((4, 4, 3), np.uint8)), STAR]),
    "one number": ("IMAGE", lambda jpeg: [numbers("IMAGE", "UINT8", np.zeros(1, np.uint8)), STAR]),
    "word numbers": (
        "EXPRESSION",
        lambda jpeg: [strings("IMAGE", [jpeg]), numbers("EXPRESSION", "INT64", np.ones(1, np.int64))],
    ),
    "image in a batch": ("IMAGE", lambda jpeg: [strings("IMAGE", [jpeg], [1, 1]), STAR]),
    "expression in a batch": (
        "EXPRESSION",
        lambda jpeg: [strings("IMAGE", [jpeg]), strings("EXPRESSION", [b"star"], [1, 1])],
    ),
    "another input": ("OTHER", lambda jpeg: [strings("IMAGE", [jpeg]), STAR, strings("OTHER", [b"x"])]),
    "length too large": (
        "EXPRESSION",
        lambda jpeg: [strings("IMAGE", [jpeg]), raw("EXPRESSION", 1, struct.pack("<I", 100) + b"star")],
    ),
    "fewer than said": (
        "EXPRESSION",
        lambda jpeg: [strings("IMAGE", [jpeg]), raw("EXPRESSION", 2, struct.pack("<I", 4) + b"star")],
    ),
    "no content": ("EXPRESSION", lambda jpeg: [strings("IMAGE", [jpeg]), raw("EXPRESSION", 1, b"")]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request(url: str, client: Client, jpeg: bytes, name: str) -> None:
    """Missing inputs, wrong types and shapes, broken encodings: refused the same way; the next one is answered."""
    culprit, inputs = MALFORMED[name]
    assert_refused(url, inputs(jpeg), culprit)
    assert len(client.ground(jpeg, GOOD)) == 1


def test_neighbours_of_bad_requests(url: str, jpeg: bytes, picture: Image.Image) -> None:
    """Of many requests at once, each good one gets the answer it gets alone and each bad one its own refusal."""
    other = io.BytesIO()
    ImageOps.mirror(picture).resize((300, 40)).save(other, "PNG")
    good = [
        (jpeg, [b"star"]),
        (other.getvalue(), [b"star"]),
        (jpeg, [b"red circle"]),
        (other.getvalue(), [b"the blue square above", b"left"]),
    ]
    bad = [
        ("EXPRESSION", jpeg, [b""]),
        ("EXPRESSION", jpeg, [b"star", b"\xff"]),
        ("IMAGE", b"hello", [b"star"]),
        ("IMAGE", jpeg[:900], [b"star"]),
    ]
    alone = [ask(url, [image], question) for image, question in good]

    def run(n: int) -> np.ndarray | InferenceServerException:
        image, question = good[n // 2 % 4] if n % 2 == 0 else bad[n // 2 % 4][1:]
        try:
            return ask(url, [image], question)
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(40)))
    for n, result in enumerate(results):
        if n % 2 == 0:
            assert isinstance(result, np.ndarray), result
            np.testing.assert_allclose(result, alone[n // 2 % 4], atol=1e-3)
        else:
            assert isinstance(result, InferenceServerException)
            assert result.status() == "StatusCode.INVALID_ARGUMENT"
            assert bad[n // 2 % 4][0] in result.message()


def test_administration_is_closed(url: str) -> None:
    """Without the secret nobody loads models, registers shared memory or changes settings."""
    with triton.InferenceServerClient(url) as connection:
        for call in (
            lambda: connection.unload_model("gin"),
            lambda: connection.load_model("gin"),
            lambda: connection.get_model_repository_index(),
            lambda: connection.register_system_shared_memory("x", "/x", 8),
            lambda: connection.register_cuda_shared_memory("x", b"", 0, 8),
            lambda: connection.update_log_settings({"log_verbose_level": 1}),
            lambda: connection.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        ):
            with pytest.raises(InferenceServerException, match="restricted"):
                call()
        assert connection.is_model_ready("gin")


@pytest.mark.parametrize(
    "path",
    [
        "repository/index",
        "repository/models/gin/load",
        "repository/models/gin/unload",
        "systemsharedmemory/region/x/register",
        "cudasharedmemory/region/x/register",
        "logging",
        "trace/setting",
        "models/gin/trace/setting",
    ],
)
def test_administration_is_closed_over_http(server: Server, path: str) -> None:
    """The same over HTTP: forbidden, whatever secret is guessed."""
    for headers in ({}, {"admin": ""}, {"admin": "admin"}):
        request = urllib.request.Request(
            f"http://{server.address}:{server.http_port}/v2/{path}", data=b"{}", headers=headers
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=TIMEOUT)
        with caught.value as response:
            assert response.code == 403
