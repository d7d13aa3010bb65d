"""int8 by static calibration: convolutions per channel, layers that lose by it left out by measurement."""

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.formats import first_line
from export.graphs import ANSWERS, ASKED, FEATURES, INPUTS
from export.parity import Answers, Comparison, Limits, ParityError, check_report
from export.progress import say
from export.questions import Question, arrays
from export.runtime import open_onnx

MEASURED = 8  # pictures that each layer's loss is measured on
Feeds = Sequence[dict[str, np.ndarray]]  # inputs of a graph by name


class _Reader(CalibrationDataReader):
    """Hands out feeds one after another."""

    def __init__(self, feeds: Feeds) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next, or None."""
        return next(self._left, None)


class Quantizer:
    """One fp32 file and what its convolutions saw."""

    def __init__(self, path: Path, feeds: Feeds, folder: Path) -> None:
        self._path = folder / path.name
        self._ranges = folder / f"{path.name}.ranges"
        self._feeds = feeds
        with _quantizing(path.name):
            quant_pre_process(path, self._path, skip_symbolic_shape=True)
        nodes = [node for node in onnx.load(self._path).graph.node if node.op_type == "Conv"]
        self.layers: dict[str, list[str]] = {}  # by weight, which all graphs name alike and all levels share
        for node in nodes:
            self.layers.setdefault(node.input[1], []).append(node.name)

    def write(self, out: Path, left_out: Collection[str] = (), only: Collection[str] = ()) -> None:
        """Write the file with int8 convolutions, but for those left out, or with `only` those."""
        with _quantizing(self._path.name):
            quantize_static(
                self._path,
                out,
                _Reader(self._feeds),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=True,  # weights of 7 bits, for sums of products of 8 overflow on processors without VNNI
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=[node for name in only for node in self.layers[name]],
                nodes_to_exclude=[node for name in left_out for node in self.layers.get(name, ())],
                calibration_cache_path=self._ranges,
            )


def quantize(folder: Path, questions: Sequence[Question], limits: Limits) -> dict[str, Any]:
    """Quantize a folder's ONNX files in place; `gin` must be one of them.

    Where the answers to all questions then are beyond the limits, the layers are put in order of what each loses alone
    on the first pictures, and the worst are left out, twice as many each time, until they are not. Raises ParityError
    if no selection keeps to the limits, and ValueError or OSError where the quantizer fails, as on a full disk.
    """
    asked = [arrays(question) for question in questions]
    whole = open_onnx(folder / "gin.onnx", INPUTS, ANSWERS)
    expected = [whole(question) for question in asked]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        feeds = {"gin": asked}
        if (folder / "gin_image.onnx").exists():
            image = open_onnx(folder / "gin_image.onnx", ("images",), FEATURES)
            feeds["gin_image"] = [{"images": question["images"]} for question in asked]
            feeds["gin_expression"] = [{name: question[name] for name in ASKED} | image(question) for question in asked]
        quantizers = {name: Quantizer(folder / f"{name}.onnx", feeds[name], work) for name in feeds}
        left_out = _choose_left_out(quantizers["gin"], asked, expected, limits, work / "trial.onnx")
        for name, quantizer in quantizers.items():
            _replace(folder / f"{name}.onnx", quantizer, left_out, work / f"{name}.int8.onnx")
    return {"int8_left_out": left_out, "int8_layers": len(quantizers["gin"].layers) - len(left_out)}


def _choose_left_out(
    quantizer: Quantizer, asked: Feeds, expected: Sequence[Answers], limits: Limits, trial: Path
) -> dict[str, float]:
    """The layers that stay in fp32, worst first, and the largest difference in scores that each makes alone.

    expected: the answers in fp32. trial: a file to try selections in. Raises ParityError if none keeps to the limits.
    """

    def measure(count: int) -> dict[str, float]:
        run = open_onnx(trial, INPUTS, ANSWERS)
        comparison = Comparison()
        for question, answers in zip(asked[:count], expected[:count], strict=True):
            comparison.add(answers, run(question))
        return comparison.report()

    def lost_by(layer: str) -> float:
        quantizer.write(trial, only=[layer])
        return measure(MEASURED)["scores"]

    losses: dict[str, float] = {}
    for count in (0, *(2**power for power in range(len(quantizer.layers).bit_length()))):
        if count == 1:  # not before: it takes as many files as there are layers, and mostly none is left out
            say("quantizing each layer alone")
            losses = {layer: lost_by(layer) for layer in quantizer.layers}
        left_out = sorted(losses, key=lambda layer: -losses[layer])[:count]
        quantizer.write(trial, left_out)
        report = measure(len(asked))
        with contextlib.suppress(ParityError):
            check_report(report, limits)
            return {layer: losses[layer] for layer in left_out}
    raise ParityError(f"no selection of layers keeps to the limits; the last trial: {report}")


def _replace(path: Path, quantizer: Quantizer, left_out: Collection[str], quantized: Path) -> None:
    """Put a quantized file in the place of the one in fp32, whose facts it keeps. quantized: where it is made."""
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    quantizer.write(quantized, left_out)
    model = onnx.load(quantized)
    _drop_unused_imports(model)
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, path)


def _drop_unused_imports(model: onnx.ModelProto) -> None:
    """Leave out the operator sets of which nothing is used: the optimizer of the ONNX Runtime here imports all that it
    knows, and an older one opens no file that imports what it does not know."""
    used = {"", *(node.domain for node in _nodes(model.graph))}
    used |= {node.domain for function in model.functions for node in _nodes(function)}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _nodes(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Of a graph and of those within its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


@contextlib.contextmanager
def _quantizing(name: str) -> Iterator[None]:
    """Keep the quantizer's advice off the screen, and make one line of the errors that a full disk gives it. Raises
    OSError or ValueError that names the file."""
    level = logging.root.level
    logging.root.setLevel(logging.CRITICAL)
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # it reads again what it could only write in part
        place = tempfile.gettempdir()
        raise ValueError(f"{name} cannot be quantized with temporary files in {place}: {first_line(error)}") from error
    finally:
        logging.root.setLevel(level)
