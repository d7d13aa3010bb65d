"""What the original authors' settings (a checkpoint's cfgtxt) say of a network beside what its tensors say."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from model.config import ModelConfig
from model.original import Architecture

_ANCHORS = {"ratios": "[1/2, 1, 2]", "scales": "[1, 2**(1/3), 2**(2/3)]", "scale_factor": 4}  # unless they say else
_OPERATIONS: Mapping[type[ast.operator], Callable[[float, float], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


class InvalidSettings(ValueError):
    """Settings of a network that ours cannot be; the message names the key and its value."""


def configure(architecture: Architecture, settings: Mapping[str, Any], image_size: int | None = None) -> ModelConfig:
    """Our configuration of one of the authors' networks with these settings.

    image_size: side of the input in pixels; by default the settings', else the published one. Raises InvalidSettings,
    and ValueError for a size that the network cannot have.
    """
    if settings.get("do_norm"):
        raise InvalidSettings(f"do_norm is {settings['do_norm']!r}; features are not normalised here")
    if image_size is None:
        image_size = _side(settings.get("resize_img", [architecture.config.image_size] * 2))
    ratios, scales, factors = (_numbers(name, settings.get(name, usual)) for name, usual in _ANCHORS.items())
    sides = tuple(factor * scale for factor in factors for scale in scales)
    if len(ratios) * len(sides) != architecture.config.anchors_per_cell:
        given = ", ".join(f"{name} {settings[name]!r}" for name in _ANCHORS if name in settings)
        raise InvalidSettings(f"{given} do not make the {architecture.config.anchors_per_cell} anchors of its tensors")
    return replace(architecture.at_size(image_size), anchor_ratios=ratios, anchor_scales=sides)


def _side(resize_img: Any) -> int:
    match resize_img:
        case [int(width), int(height)] if width == height and not isinstance(width, bool):
            return width
    raise InvalidSettings(f"resize_img is {resize_img!r}; pictures are resized to a square here, of whole pixels")


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    """Positive numbers from one or a list, also as they are written in Python, such as "[1/2, 1, 2]"."""
    try:
        tree = ast.parse(value if isinstance(value, str) else repr(value), mode="eval").body
        numbers = tuple(map(_number, tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]))
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):  # the last two of deep nesting
        numbers = ()
    if not numbers or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise InvalidSettings(f"{name} is {value!r}; it must be made of positive numbers")
    return numbers


def _number(node: ast.expr) -> float:
    """The value of an expression of numbers, which runs nothing. Raises ValueError or ArithmeticError."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.BinOp(left, operation, right) if type(operation) in _OPERATIONS:
            value = _OPERATIONS[type(operation)](_number(left), _number(right))
            if isinstance(value, float):  # and not complex
                return value
    raise ValueError(f"{ast.unparse(node)} is no number")
