"""The network's two parts; features pass between them inside the process, and wait on the network's device for further
questions.

On the CPU they are open twice. A run that is alone has all cores; runs that would share them get half of them each, for
two runs on one core each are done a fifth to a half sooner than two that both want both.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import InferenceSession, OrtValue

from serve.sessions import CannotOpen, make_options, open_session

IMAGE, EXPRESSION = "image.onnx", "expression.onnx"
AT_ONCE = 2  # runs that have cores of their own; on a GPU what one does on the host, the other fills
ASKED = ("expression_ids", "lengths", "image_index", "image_sizes")


class Network:
    """Threads may share it. image_seconds, expression_seconds: time in each part so far. runs, expressions: of the
    expression part."""

    def __init__(self, folder: Path, config: dict[str, Any], device: int | None) -> None:
        """folder: holds both files. config: the model's, as Triton gives it. device: a GPU's number, or None.

        Raises CannotOpen.
        """

        def open_both(threads: int | None = None) -> dict[str, InferenceSession]:
            return {name: open_session(folder / name, config, device, threads) for name in (IMAGE, EXPRESSION)}

        self._alone = self._beside = open_both()
        threads = make_options(folder / IMAGE, config).intra_op_num_threads
        if device is None and threads > 1:
            self._beside = open_both(threads // AT_ONCE)
        self._device = device
        self._levels = [tensor.name for tensor in self._alone[IMAGE].get_outputs()]
        expression = self._alone[EXPRESSION]
        if [tensor.name for tensor in expression.get_inputs()] != [*self._levels, *ASKED]:
            raise CannotOpen(f"{folder / EXPRESSION} does not go on from {IMAGE}; export both again")
        self.outputs = [tensor.name for tensor in expression.get_outputs()]
        self._counting = threading.Lock()
        self._turns = 0
        self._forget()

    def _forget(self) -> None:
        self.image_seconds = self.expression_seconds = 0.0
        self.runs = self.expressions = 0

    def warm_up(self, side: int, counts: Sequence[int]) -> None:
        """Run both parts with so many images of side S and expressions, which makes the first questions as fast as
        later ones."""
        with contextlib.ExitStack() as turns:
            for _ in range(1 if self._beside is self._alone else AT_ONCE):  # alone, then beside another
                turns.enter_context(self.turn())
                for count in counts:
                    together = {1, count} if self._device is None else {1}
                    features = self.encode(np.zeros((max(together), side, side, 3), np.uint8))
                    ids, places = np.zeros((count, 4), np.int64), np.arange(count)
                    for B in together:
                        self.ground(features[:B], [(side, side)] * B, ids, np.full(count, 4), places % B)
        self._forget()

    def encode(self, pixels: np.ndarray) -> list[tuple[OrtValue, ...]]:
        """pixels: uint8 (B, S, S, 3). Returns each image's features, float32 (1, ...) per stride, on the device."""
        started = time.perf_counter()
        if self._device is None:
            levels = self._session(IMAGE).run(self._levels, {"images": pixels})
            features = [_kept([level[n : n + 1] for level in levels]) for n in range(len(pixels))]
        else:  # one by one, for ONNX Runtime cannot take a batch apart there
            features = [self._encode_on_gpu(image) for image in pixels[:, None]]
        with self._counting:
            self.image_seconds += time.perf_counter() - started
        return features

    def _encode_on_gpu(self, image: np.ndarray) -> tuple[OrtValue, ...]:
        """image: uint8 (1, S, S, 3)."""
        session = self._session(IMAGE)
        binding = session.io_binding()
        binding.bind_cpu_input("images", image)
        for name in self._levels:
            binding.bind_output(name, "cuda", self._device)
        session.run_with_iobinding(binding)
        binding.clear_binding_inputs()  # or the pixels would stay on the GPU as long as the features, which keep it
        return tuple(binding.get_outputs())

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Whoever answers takes one, for both parts."""
        with self._counting:
            self._turns += 1
        try:
            yield
        finally:
            with self._counting:
                self._turns -= 1

    def _session(self, part: str) -> InferenceSession:
        return (self._beside if self._turns > 1 else self._alone)[part]

    def ground(
        self,
        features: Sequence[tuple[OrtValue, ...]],
        sizes: Sequence[tuple[int, int]],
        ids: np.ndarray,
        lengths: np.ndarray,
        image_index: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """features, sizes: of B images. ids: (N, T). lengths, image_index: (N,). Returns the outputs by name."""
        started = time.perf_counter()
        if self._device is None or len(features) == 1:
            levels = [level[0] if len(level) == 1 else _joined(level) for level in zip(*features, strict=True)]
            outputs = self._run(levels, sizes, ids, lengths, image_index)
        else:  # image by image, for features that are joined go through the host
            outputs = {}
            for n in range(len(features)):
                rows = np.flatnonzero(image_index == n)
                about = self._run(features[n], sizes[n : n + 1], ids[rows], lengths[rows], np.zeros_like(rows))
                for name, array in about.items():
                    outputs.setdefault(name, np.empty((len(ids), *array.shape[1:]), array.dtype))[rows] = array
        with self._counting:
            self.expression_seconds += time.perf_counter() - started
            self.runs += 1
            self.expressions += len(ids)
        return outputs

    def _run(
        self, levels: Sequence[OrtValue], sizes: Sequence[tuple[int, int]], *asked: np.ndarray
    ) -> dict[str, np.ndarray]:
        """One run of the expression part. levels: of all images together. asked: as for `ground`."""
        inputs = dict(zip(self._levels, levels, strict=True))
        arrays = (*asked, np.array(sizes, dtype=np.int64))
        inputs |= {name: OrtValue.ortvalue_from_numpy(array) for name, array in zip(ASKED, arrays, strict=True)}
        values = self._session(EXPRESSION).run_with_ort_values(self.outputs, inputs)
        return {name: value.numpy() for name, value in zip(self.outputs, values, strict=True)}


def _joined(level: Sequence[OrtValue]) -> OrtValue:
    """One stride's features of several images."""
    return OrtValue.ortvalue_from_numpy(np.concatenate([value.numpy() for value in level]))


def _kept(levels: Sequence[np.ndarray]) -> tuple[OrtValue, ...]:
    """A copy of one image's features, for what is kept for long would leave holes in the sessions' arena, and keep its
    whole batch there. All strides in one block, for the smallest alone would leave holes in the heap."""
    block = np.concatenate([level.ravel() for level in levels])
    ends = list(itertools.accumulate(level.size for level in levels))
    return tuple(
        OrtValue.ortvalue_from_numpy(block[end - level.size : end].reshape(level.shape))
        for end, level in zip(ends, levels, strict=True)
    )
