"""What the model counts, beside Triton's own metrics on the same port."""

import threading
from collections.abc import Callable
from typing import Any

import triton_python_backend_utils as pb_utils

from serve.answering.answerer import Answerer

COUNTERS = {
    "gin_cache_hit_count": "Questions whose image's features were there already",
    "gin_cache_miss_count": "Questions for which the image part ran",
    "gin_batch_count": "Runs of the expression part",
    "gin_expression_count": "Expressions answered",
    "gin_image_duration_us": "Time in the image part",
    "gin_expression_duration_us": "Time in the expression part",
}
PERIOD = 0.5  # seconds
GAUGES = {
    "gin_cache_bytes": "Memory that kept features take",
    "gin_cache_images": "Images whose features are kept",
    "gin_waiting_requests": "Requests taken in and not answered yet",
}


class Counts:
    """Brings Triton's metrics up to what an answerer has done, every `PERIOD` until `end`.

    Not at every answer: a millisecond for all of them would be a tenth of a small network's whole answer.
    """

    def __init__(self, answerer: Answerer, waiting: Callable[[], int], labels: dict[str, str]) -> None:
        """waiting: how many requests are not answered yet."""
        self._answerer, self._waiting = answerer, waiting
        self._metrics: dict[str, Any] = {}
        for kind, families in ((pb_utils.MetricFamily.COUNTER, COUNTERS), (pb_utils.MetricFamily.GAUGE, GAUGES)):
            for name, description in families.items():
                family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
                self._metrics[name] = family, family.Metric(labels=labels)  # a metric ends with its family
        self._told = dict.fromkeys(COUNTERS, 0.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Tell the last of it."""
        self._ended.set()
        self._thread.join()

    def _keep_telling(self) -> None:
        while not self._ended.wait(PERIOD):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        answerer, network, features = self._answerer, self._answerer.network, self._answerer.features
        counted = {
            "gin_cache_hit_count": answerer.hits,
            "gin_cache_miss_count": answerer.misses,
            "gin_batch_count": network.runs,
            "gin_expression_count": network.expressions,
            "gin_image_duration_us": 1e6 * network.image_seconds,
            "gin_expression_duration_us": 1e6 * network.expression_seconds,
        }
        for name, value in counted.items():
            if value > self._told[name]:
                self._metrics[name][1].increment(value - self._told[name])
                self._told[name] = value
        sizes = {
            "gin_cache_bytes": features.nbytes,
            "gin_cache_images": len(features),
            "gin_waiting_requests": self._waiting(),
        }
        for name, size in sizes.items():
            if size != self._told.get(name):
                self._metrics[name][1].set(size)
                self._told[name] = size
