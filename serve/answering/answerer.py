"""From questions to answers: several questions are joined, run through the network once and taken apart again."""

import hashlib
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from model.preparation import InvalidInput, Preparation
from serve.answering.features import Features, Seen
from serve.answering.network import Network

Answer = dict[str, np.ndarray]  # the network's outputs by name and the unknown words, N rows each


@dataclass(frozen=True)
class Question:
    """One image and N expressions. key: of the file's content. seen: kept features, or None, and then there are pixels
    uint8 (S, S, 3). ids: int64 (N, T). lengths: int64 (N,). unknown: words that the network lacks, bytes (N,)."""

    key: bytes
    seen: Seen | None
    pixels: np.ndarray | None
    size: tuple[int, int]
    ids: np.ndarray
    lengths: np.ndarray
    unknown: np.ndarray


class Answerer:
    """Threads may share it. hits, misses: questions that found their image's features, or did not, so far."""

    def __init__(self, preparation: Preparation, network: Network, features: Features) -> None:
        self.preparation = preparation
        self.network = network
        self.features = features
        self.hits = self.misses = 0
        self._lock = threading.Lock()
        self._looked_at: dict[bytes, Future[Seen]] = {}  # by threads that are at it

    def prepare(self, image: bytes, expressions: Sequence[bytes]) -> Question:
        """Read one request; threads may do so at once. Raises InvalidInput naming the input."""
        key = hashlib.sha256(image).digest()
        seen, pixels = self.features.get(key), None
        if seen is not None:
            size = seen.size
        else:
            try:
                pixels, size = self.preparation.image(image)
            except InvalidInput as error:
                raise InvalidInput(f"IMAGE: {error}") from None
        try:
            ids, lengths = self.preparation.expressions(expressions)
        except InvalidInput as error:
            raise InvalidInput(f"EXPRESSION: {error}") from None
        unknown = [" ".join(self.preparation.unknown_words(text.decode())).encode() for text in expressions]
        return Question(key, seen, pixels, size, ids, lengths, np.array(unknown, dtype=object))

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer questions together, each as it would be alone."""
        with self.network.turn():
            return self._answer(questions)

    def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        images = self._look(questions)
        order = {key: place for place, key in enumerate(images)}
        counts = [len(question.lengths) for question in questions]
        ends = list(itertools.accumulate(counts))
        rows = [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]
        ids = np.zeros((ends[-1], max(question.ids.shape[1] for question in questions)), dtype=np.int64)
        for row, question in zip(rows, questions, strict=True):
            ids[row, : question.ids.shape[1]] = question.ids
        outputs = self.network.ground(
            [seen.levels for seen in images.values()],
            [seen.size for seen in images.values()],
            ids,
            np.concatenate([question.lengths for question in questions]),
            np.repeat([order[question.key] for question in questions], counts),
        )
        return [
            {name: array[row] for name, array in outputs.items()} | {"unknown": question.unknown}
            for row, question in zip(rows, questions, strict=True)
        ]

    def _look(self, questions: Sequence[Question]) -> dict[bytes, Seen]:
        """The features of all images asked about, each once; what is not kept yet goes through the network. Who asks
        about an image that another thread is looking at waits for its features."""
        images: dict[bytes, Seen] = {}
        new: dict[bytes, Question] = {}
        others: dict[bytes, Future[Seen]] = {}
        with self._lock:
            for question in questions:
                key = question.key
                seen = question.seen or images.get(key) or self.features.get(key)
                if seen is not None:
                    images[key] = seen
                elif key in self._looked_at:
                    if key not in new:
                        others[key] = self._looked_at[key]
                else:
                    new[key], self._looked_at[key] = question, Future()
            self.misses += len(new)
            self.hits += len(questions) - len(new)
        if new:
            images |= self._look_at(new)
        return images | {key: future.result() for key, future in others.items()}

    def _look_at(self, new: dict[bytes, Question]) -> dict[bytes, Seen]:
        """Features that the network makes of new images, which it keeps."""
        futures = {key: self._looked_at[key] for key in new}
        images: dict[bytes, Seen] = {}
        try:
            pixels = [question.pixels for question in new.values() if question.pixels is not None]
            levels = self.network.encode(np.stack(pixels))
            for (key, question), one in zip(new.items(), levels, strict=True):
                images[key] = Seen(one, question.size)
                self.features.put(key, images[key])
        except BaseException as error:
            for future in futures.values():
                future.set_exception(error)
            raise
        else:
            for key, future in futures.items():
                future.set_result(images[key])
        finally:
            with self._lock:
                for key in new:
                    del self._looked_at[key]
        return images
