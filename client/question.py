"""One picture and the expressions about it, in the form the server takes; its arrays, read as answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from client.answers import Answers, Grounding
from client.errors import Refused, ServerFailed
from client.pictures import MAX_BYTES, Array, ImageLike, file_bytes

if TYPE_CHECKING:
    from client.shared import Place

MODEL = "gin"


@dataclass(frozen=True)
class Question:
    """image: as it was given. data: the bytes of an image file. outputs: names of what is asked for.

    place: the shared memory that `data` is in; None if it goes with the message.
    """

    image: ImageLike
    data: bytes
    expressions: tuple[str, ...]
    encoded: tuple[bytes, ...]
    outputs: tuple[str, ...]
    place: "Place | None" = None

    @classmethod
    def ask(cls, image: ImageLike, expressions: str | Iterable[str], attention: bool) -> "Question":
        """Read or encode the picture and encode the expressions. Raises Refused for what cannot be sent."""
        asked = (expressions,) if isinstance(expressions, str) else tuple(expressions)
        encoded = _encoded(asked)
        data = file_bytes(image)
        if len(data) + sum(map(len, encoded)) > MAX_BYTES - 2**16:  # leaves room for what surrounds them in a message
            raise Refused(f"the image is too large to send: {len(data) / 2**20:.1f} MiB of at most {MAX_BYTES >> 20}")
        outputs = ("BOX", "SCORE", "ATTENTION") if attention else ("BOX", "SCORE")
        return cls(image, data, asked, encoded, outputs)

    def at(self, place: "Place") -> "Question":
        """The same with its picture in shared memory."""
        return replace(self, place=place)

    def inputs(self, triton: ModuleType) -> list[Any]:
        """InferInput objects of `triton`: tritonclient.grpc or tritonclient.http."""
        if self.place is None:
            image = _input(triton, "IMAGE", (self.data,))
        else:
            image = triton.InferInput("IMAGE", [1], "BYTES").set_shared_memory(*self.place)
        return [image, _input(triton, "EXPRESSION", self.encoded)]

    def requested(self, triton: ModuleType) -> list[Any]:
        """InferRequestedOutput objects of `triton`."""
        return [triton.InferRequestedOutput(name) for name in self.outputs]

    def arrays(self, result: Any) -> dict[str, Array | None]:
        """The outputs of an InferResult by name. Raises ServerFailed if they cannot be read."""
        try:
            return {name: result.as_numpy(name) for name in self.outputs}
        except ValueError as error:
            raise ServerFailed(f"the server's answer cannot be read: {error}") from None

    def answers(self, arrays: Mapping[str, Array | None], seconds: float) -> Answers:
        """BOX (N, 4), SCORE (N) and, if asked for, ATTENTION (N, h, w); ServerFailed if they are not that."""
        count = len(self.expressions)
        box, score = (_finite(name, arrays[name], (count, *shape)) for name, shape in (("BOX", (4,)), ("SCORE", ())))
        maps = arrays.get("ATTENTION")
        if "ATTENTION" in self.outputs and (maps is None or maps.ndim != 3 or len(maps) != count or not maps.size):
            raise ServerFailed(f"the server's answer is wrong: expected ATTENTION of shape ({count}, h, w)")
        groundings = (
            Grounding(expression, _corners(box[n]), float(score[n]), None if maps is None else maps[n], self.image)
            for n, expression in enumerate(self.expressions)
        )
        return Answers(groundings, seconds)


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


def _finite(name: str, array: Array | None, shape: tuple[int, ...]) -> Array:
    if array is None or array.shape != shape or not np.isfinite(array).all():
        got = "none" if array is None else f"{array.shape}"
        raise ServerFailed(f"the server's answer is wrong: expected finite {name} of shape {shape}, got {got}")
    return array


def _corners(box: Array) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2
