"""Bad requests are refused with their cause, alone, and the server goes on."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from client.library import Client

GOOD = "the red circle"


def bomb() -> bytes:
    """A PNG header that claims 60 000 x 60 000 pixels."""
    data = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data))


def ask(url: str, image: list[bytes], expressions: list[bytes]) -> np.ndarray:
    """Boxes from the bare protocol, without this project's client."""
    inputs = []
    for name, values in (("IMAGE", image), ("EXPRESSION", expressions)):
        array = np.empty(len(values), dtype=np.object_)
        array[:] = values
        inputs.append(triton.InferInput(name, [len(values)], "BYTES").set_data_from_numpy(array))
    with triton.InferenceServerClient(url) as connection:
        return connection.infer("gin", inputs, client_timeout=30).as_numpy("BOX")


BAD = {
    "text": ("IMAGE", lambda jpeg: [b"hello"], [b"star"]),
    "nothing": ("IMAGE", lambda jpeg: [b""], [b"star"]),
    "truncated": ("IMAGE", lambda jpeg: [jpeg[: len(jpeg) // 2]], [b"star"]),
    "bomb": ("IMAGE", lambda jpeg: [bomb()], [b"star"]),
    "two images": ("IMAGE", lambda jpeg: [jpeg, jpeg], [b"star"]),
    "empty expression": ("EXPRESSION", lambda jpeg: [jpeg], [b""]),
    "spaces": ("EXPRESSION", lambda jpeg: [jpeg], [b"star", b"   "]),
    "not UTF-8": ("EXPRESSION", lambda jpeg: [jpeg], [b"\xff\xfe\xfa"]),
    "51 words": ("EXPRESSION", lambda jpeg: [jpeg], [b"star " * 51]),
    "65 expressions": ("EXPRESSION", lambda jpeg: [jpeg], [b"star"] * 65),
    "no expressions": ("EXPRESSION", lambda jpeg: [jpeg], []),
}


@pytest.mark.parametrize("name", BAD)
def test_refusal_names_the_input(url: str, client: Client, jpeg: bytes, name: str) -> None:
    """INVALID_ARGUMENT, the input's name, no path and no traceback; the next request is answered."""
    culprit, image, expressions = BAD[name]
    with pytest.raises(InferenceServerException) as caught:
        ask(url, image(jpeg), expressions)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    message = caught.value.message()
    assert culprit in message
    assert "/" not in message.replace("'", "")
    assert "Traceback" not in message
    assert len(client.ground(jpeg, GOOD)) == 1


def test_neighbours_of_bad_requests(url: str, client: Client, jpeg: bytes) -> None:
    """Of many requests at once, each good one gets its own answer and each bad one its own refusal."""
    questions = [[b"star"], [b"red circle"], [b"the blue square above", b"left"], [b""], [b"\xff"]]
    expected = [ask(url, [jpeg], question) for question in questions[:3]]

    def run(n: int) -> np.ndarray | str:
        try:
            return ask(url, [jpeg], questions[n % 5])
        except InferenceServerException as error:
            return error.status()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(40)))
    for n, result in enumerate(results):
        if n % 5 < 3:
            np.testing.assert_allclose(result, expected[n % 5], atol=1e-3)
        else:
            assert result == "StatusCode.INVALID_ARGUMENT"


def test_administration_is_closed(url: str) -> None:
    """Without the secret nobody loads models, registers shared memory or changes settings."""
    with triton.InferenceServerClient(url) as connection:
        for call in (
            lambda: connection.unload_model("gin"),
            lambda: connection.load_model("gin"),
            lambda: connection.register_system_shared_memory("x", "/x", 8),
            lambda: connection.update_log_settings({"log_verbose_level": 1}),
            lambda: connection.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        ):
            with pytest.raises(InferenceServerException, match="restricted"):
                call()
