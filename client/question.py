"""One picture and the expressions about it, in the form the server takes; its arrays, read as answers."""

import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from client.answers import Answers, Box, Candidate, Grounding
from client.errors import Refused, ServerFailed
from client.pictures import MAX_BYTES, Array, ImageLike, file_bytes

if TYPE_CHECKING:
    from client.shared import Place

ANY = -1  # a size that the server chooses
_TYPES = {"FOUND": np.bool_, "UNKNOWN": np.object_}  # of outputs that are not float32


@dataclass(frozen=True)
class Question:
    """image: as it was given; of a pipe, which can be read only once, `data`. data: the bytes of an image file. top:
    boxes for each expression. outputs: names of what is asked for. place: the shared memory that `data` is in; None if
    it goes with the message."""

    image: ImageLike
    data: bytes
    expressions: tuple[str, ...]
    encoded: tuple[bytes, ...]
    top: int
    outputs: tuple[str, ...]
    place: "Place | None" = None

    @classmethod
    def ask(cls, image: ImageLike, expressions: str | Iterable[str], attention: bool, top: int) -> "Question":
        """Read or encode the picture and encode the expressions. Raises Refused for what cannot be sent."""
        asked = _listed(expressions)
        encoded = _encoded(asked)
        data = file_bytes(image)
        if len(data) + sum(map(len, encoded)) > MAX_BYTES - 2**16:  # leaves room for what surrounds them in a message
            raise Refused(f"the image is too large to send: {len(data) / 2**20:.1f} MiB of at most {MAX_BYTES >> 20}")
        if not isinstance(top, int | np.integer) or not 1 <= top < 2**31:
            raise Refused(f"expected a number of boxes from 1 to what the server allows, got {top!r}")
        if isinstance(image, str | os.PathLike) and not os.path.isfile(image):
            image = data
        outputs = ["BOX", "SCORE", "PRESENCE", "FOUND", "UNKNOWN"]
        if top > 1:
            outputs += ["TOP_BOX", "TOP_SCORE"]
        if attention:
            outputs += ["ATTENTION"]
        return cls(image, data, asked, encoded, top, tuple(outputs))

    def at(self, place: "Place") -> "Question":
        """The same with its picture in shared memory."""
        return replace(self, place=place)

    def inputs(self, triton: ModuleType) -> list[Any]:
        """InferInput objects of `triton`: tritonclient.grpc or tritonclient.http."""
        if self.place is None:
            image = _input(triton, "IMAGE", (self.data,))
        else:
            image = triton.InferInput("IMAGE", [1], "BYTES").set_shared_memory(*self.place)
        inputs = [image, _input(triton, "EXPRESSION", self.encoded)]
        if self.top > 1:
            top = triton.InferInput("TOP_K", [1], "INT32")
            inputs.append(top.set_data_from_numpy(np.array([self.top], dtype=np.int32)))
        return inputs

    def requested(self, triton: ModuleType) -> list[Any]:
        """InferRequestedOutput objects of `triton`."""
        return [triton.InferRequestedOutput(name) for name in self.outputs]

    def arrays(self, result: Any) -> dict[str, Array | None]:
        """The outputs of an InferResult by name. Raises ServerFailed if they cannot be read."""
        try:
            return {name: result.as_numpy(name) for name in self.outputs}
        except (ValueError, struct.error) as error:  # the latter of strings that are cut off
            raise ServerFailed(f"the server's answer cannot be read: {error}") from None

    def answers(self, arrays: Mapping[str, Array | None], seconds: float) -> Answers:
        """From the arrays by name. Raises ServerFailed if they are not what was asked for."""
        boxes, scores = self._checked(arrays, "BOX", 4), self._checked(arrays, "SCORE")
        presences, found = self._checked(arrays, "PRESENCE"), self._checked(arrays, "FOUND")
        unknown = self._checked(arrays, "UNKNOWN")
        maps: list[Array | None] = [None] * len(self.expressions)
        if "ATTENTION" in self.outputs:
            maps = list(self._checked(arrays, "ATTENTION", ANY, ANY))
        others: list[tuple[Candidate, ...]] = [()] * len(self.expressions)
        if self.top > 1:
            tops = self._checked(arrays, "TOP_BOX", self.top, 4), self._checked(arrays, "TOP_SCORE", self.top)
            others = [_candidates(*of_one) for of_one in zip(*tops, strict=True)]
        groundings = [
            Grounding(
                expression,
                _corners(boxes[n]),
                float(scores[n]),
                None if np.isnan(presences[n]) else float(presences[n]),
                bool(found[n]),
                tuple(unknown[n].decode(errors="replace").split()),
                others[n],
                maps[n],
                self.image,
            )
            for n, expression in enumerate(self.expressions)
        ]
        return Answers(groundings, seconds)

    def _checked(self, arrays: Mapping[str, Array | None], name: str, *sizes: int) -> Array:
        """An output of its type with a row of these sizes for each expression; numbers but for PRESENCE are finite."""
        array, shape, kind = arrays[name], (len(self.expressions), *sizes), np.dtype(_TYPES.get(name, np.float32))
        if (
            array is None
            or array.dtype != kind
            or array.size == 0
            or array.ndim != len(shape)
            or any(size not in (ANY, real) for size, real in zip(shape, array.shape, strict=True))
        ):
            got = "none" if array is None else f"{array.dtype} {array.shape}"
            wanted = str(shape).replace(str(ANY), "any")
            raise ServerFailed(f"the server's answer is wrong: expected {name} as {kind} {wanted}, got {got}")
        if kind == np.float32 and name != "PRESENCE" and not np.isfinite(array).all():
            raise ServerFailed(f"the server's answer is wrong: {name} is not finite")
        return array


def _listed(expressions: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(expressions, str):
        return (expressions,)
    if isinstance(expressions, bytes) or not isinstance(expressions, Iterable):
        raise Refused(f"expected an expression, or several, as strings, got {type(expressions).__name__}")
    return tuple(expressions)


def _encoded(expressions: tuple[str, ...]) -> tuple[bytes, ...]:
    """Expressions as UTF-8. Bytes that a terminal passed on undecoded stay as they were, for the server to judge."""
    if not expressions:
        raise Refused("no expression given: say what to look for")
    try:
        return tuple(expression.encode("utf-8", "surrogateescape") for expression in expressions)
    except AttributeError:
        raise Refused(f"expected expressions as strings, got {[type(e).__name__ for e in expressions]}") from None
    except UnicodeEncodeError:
        raise Refused("an expression holds half a character (a lone surrogate) and cannot be sent") from None


def _input(triton: ModuleType, name: str, values: tuple[bytes, ...]) -> Any:
    # NumPy's own bytes type would cut zeros off the end of a file; objects are kept whole.
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return triton.InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array)


def _candidates(boxes: Array, scores: Array) -> tuple[Candidate, ...]:
    """All but the first, which is the answer itself; a score of 0 says that there are no more."""
    return tuple(
        Candidate(_corners(box), float(score)) for box, score in zip(boxes[1:], scores[1:], strict=True) if score
    )


def _corners(box: Array) -> Box:
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2
