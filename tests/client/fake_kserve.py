"""A stand-in for Triton that speaks its gRPC protocol and does what a test scripts; it answers known boxes."""

import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

Act = Callable[["FakeServer", grpc.ServicerContext], service_pb2.ModelInferResponse]
CODE = grpc.StatusCode
GRID = (3, 4)  # h, w of the attention maps
_TYPES = {"BOOL": np.bool_, "FP32": np.float32}


@dataclass
class Asked:
    """What one request held."""

    image: bytes
    expressions: list[bytes]
    top: int
    outputs: list[str]
    timeout_us: int
    deadline: float
    model: str


@dataclass
class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """`script` holds what to do for the next requests, one entry each; afterwards all are answered."""

    script: list[Act] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    model: str = "gin"
    model_is_ready: bool = True
    port: int = 0
    scheme: str = ""

    @property
    def url(self) -> str:
        return f"{self.scheme}127.0.0.1:{self.port}"

    def ModelReady(
        self, request: service_pb2.ModelReadyRequest, _context: grpc.ServicerContext
    ) -> service_pb2.ModelReadyResponse:
        return service_pb2.ModelReadyResponse(ready=self.model_is_ready and request.name == self.model)

    def ModelInfer(
        self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        inputs = dict(zip([i.name for i in request.inputs], request.raw_input_contents, strict=True))
        (image,), expressions = strings(inputs["IMAGE"]), strings(inputs["EXPRESSION"])
        shapes = {"IMAGE": [1], "EXPRESSION": [len(expressions)], "TOP_K": [1]}
        assert {i.name: list(i.shape) for i in request.inputs} == {name: shapes[name] for name in inputs}
        top = top_of(inputs.get("TOP_K"))
        outputs = [o.name for o in request.outputs]
        timeout_us = request.parameters["timeout"].int64_param
        self.asked.append(
            Asked(image, expressions, top, outputs, timeout_us, context.time_remaining(), request.model_name)
        )
        act = self.script.pop(0) if self.script else answer
        return act(self, context)


def box_of(n: int) -> tuple[float, float, float, float]:
    """The box that the fake answers to the n-th expression."""
    return (n + 0.5, n + 1.0, n + 20.0, n + 10.25)


def score_of(n: int) -> float:
    """The score that the fake answers to the n-th expression."""
    return 1.0 / (n + 2)


def presence_of(n: int) -> float:
    """The probability that the fake answers to the n-th expression; it finds what has a half or more."""
    return 0.75 / (n + 1)


def unknown_of(expression: bytes) -> bytes:
    """The words of an expression that the fake says are unknown: those with a z."""
    return b" ".join(word for word in expression.split() if b"z" in word)


def top_of(raw: bytes | None) -> int:
    """The number that TOP_K holds, 1 without it."""
    return 1 if raw is None else int(np.frombuffer(raw, np.int32)[0])


def answer(server: FakeServer, _context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
    """Known boxes, scores and probabilities, of the further boxes one, and attention maps filled with the expression's
    number."""
    count, top = len(server.asked[-1].expressions), server.asked[-1].top
    tops = [(box_of(n), box_of(n + 1), *[(0,) * 4] * (top - 2))[:top] for n in range(count)]
    top_scores = [(score_of(n), score_of(n + 1), *[0] * (top - 2))[:top] for n in range(count)]
    arrays = {
        "BOX": np.array([box_of(n) for n in range(count)], np.float32),
        "SCORE": np.array([score_of(n) for n in range(count)], np.float32),
        "PRESENCE": np.array([presence_of(n) for n in range(count)], np.float32),
        "FOUND": np.array([presence_of(n) >= 0.5 for n in range(count)]),
        "UNKNOWN": np.array([unknown_of(expression) for expression in server.asked[-1].expressions], np.object_),
        "TOP_BOX": np.array(tops, np.float32),
        "TOP_SCORE": np.array(top_scores, np.float32),
        "ATTENTION": np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None], (count, *GRID)),
    }
    return respond({name: arrays[name] for name in server.asked[-1].outputs})


def answering(arrays: dict[str, np.ndarray]) -> Act:
    """Answers exactly these arrays, right or wrong; what is missing of the rest is as usual."""

    def act(server: FakeServer, context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
        usual = answer(server, context)
        given = respond(arrays)
        for output, raw in zip(usual.outputs, usual.raw_output_contents, strict=True):
            if output.name in ("PRESENCE", "FOUND", "UNKNOWN") and output.name not in arrays:
                given.outputs.append(output)
                given.raw_output_contents.append(raw)
        return given

    return act


def failing(code: grpc.StatusCode, text: str) -> Act:
    """Ends the call with this status."""
    return lambda _server, context: context.abort(code, text)


def silence(_server: FakeServer, context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
    """Never answers: waits until the caller has given up."""
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(30)
    return service_pb2.ModelInferResponse()


def respond(arrays: dict[str, np.ndarray]) -> service_pb2.ModelInferResponse:
    """`arrays` as outputs, FP32 but for truth values and bytes."""
    response = service_pb2.ModelInferResponse(model_name="gin")
    for name, array in arrays.items():
        kind = {"b": "BOOL", "O": "BYTES"}.get(array.dtype.kind, "FP32")
        response.outputs.add(name=name, datatype=kind, shape=array.shape)
        raw = serialize_byte_tensor(array).item() if kind == "BYTES" else array.astype(_TYPES[kind]).tobytes()
        response.raw_output_contents.append(raw)
    return response


@contextmanager
def running(fake: FakeServer, credentials: grpc.ServerCredentials | None = None) -> Iterator[FakeServer]:
    """Serve `fake` on its port of this machine, or on a free one if it has none yet; encrypted with `credentials`."""
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(4), options=limits)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    address = f"127.0.0.1:{fake.port}"
    if credentials is None:
        fake.port = server.add_insecure_port(address)
    else:
        fake.port, fake.scheme = server.add_secure_port(address, credentials), "grpcs://"
    server.start()
    try:
        yield fake
    finally:
        server.stop(None).wait()


def strings(raw: bytes) -> list[bytes]:
    """Triton's BYTES: each element after its length, 4 bytes little-endian."""
    values, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        values.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return values
