"""What the model counts, beside Triton's own metrics on the same port.

Triton takes `execute` for the whole answer: of `gin` its durations end, and its successes are counted, when a request
was taken in, also where it is then refused.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import triton_python_backend_utils as pb_utils

from serve.answering.answerer import Answerer

OUTCOMES = ("answered", "invalid", "refused", "cancelled", "failed")
REQUESTS = "gin_request_count"
COUNTERS = {
    REQUESTS: "Requests by outcome",
    "gin_request_duration_us": "Time from taking requests in to sending their answers",
    "gin_preparation_duration_us": "Of that, time until they were decoded",
    "gin_waiting_duration_us": "Of that, time that they then waited for their run",
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
    """Brings Triton's metrics up to what was done, every `PERIOD` until `end`. Threads may share it.

    Not at every answer: a millisecond for all of them would be a tenth of a small network's whole answer.
    """

    def __init__(self, answerer: Answerer, waiting: Callable[[], int], labels: dict[str, str]) -> None:
        """waiting: how many requests are not answered yet."""
        self._answerer, self._waiting = answerer, waiting
        self._requests: Counter[str] = Counter()  # by outcome
        self._seconds: defaultdict[str, float] = defaultdict(float)  # of answered ones, by metric
        self._lock = threading.Lock()
        self._families: list[Any] = []  # a metric ends with its family
        self._metrics: dict[str, Any] = {}
        for kind, described in ((pb_utils.MetricFamily.COUNTER, COUNTERS), (pb_utils.MetricFamily.GAUGE, GAUGES)):
            for name, description in described.items():
                family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
                self._families.append(family)
                for outcome in OUTCOMES if name == REQUESTS else ("",):
                    more = {"outcome": outcome} if outcome else {}
                    self._metrics[name + outcome] = family.Metric(labels=labels | more)
        self._told: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, daemon=True)
        self._thread.start()

    def done(self, outcome: str) -> None:
        """A request ended, with one of `OUTCOMES`."""
        with self._lock:
            self._requests[outcome] += 1

    def answered(self, taken: float, prepared: float, begun: float, sent: float) -> None:
        """A request was answered, with these steps at these times in seconds."""
        with self._lock:
            self._requests["answered"] += 1
            self._seconds["gin_request_duration_us"] += sent - taken
            self._seconds["gin_preparation_duration_us"] += prepared - taken
            self._seconds["gin_waiting_duration_us"] += begun - prepared

    def end(self) -> None:
        """Tell the last of it, and that nothing is left: Triton shows what was told without the process too."""
        self._ended.set()
        self._thread.join()
        for name in GAUGES:
            self._metrics[name].set(0)

    def _keep_telling(self) -> None:
        while not self._ended.wait(PERIOD):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        answerer, network, features = self._answerer, self._answerer.network, self._answerer.features
        with self._lock:
            counted = {REQUESTS + outcome: float(count) for outcome, count in self._requests.items()}
            counted |= {name: 1e6 * seconds for name, seconds in self._seconds.items()}
        counted |= {
            "gin_cache_hit_count": answerer.hits,
            "gin_cache_miss_count": answerer.misses,
            "gin_batch_count": network.runs,
            "gin_expression_count": network.expressions,
            "gin_image_duration_us": 1e6 * network.image_seconds,
            "gin_expression_duration_us": 1e6 * network.expression_seconds,
        }
        for name, value in counted.items():
            if value > self._told.get(name, 0.0):
                self._metrics[name].increment(value - self._told.get(name, 0.0))
                self._told[name] = value
        sizes = {
            "gin_cache_bytes": features.nbytes,
            "gin_cache_images": len(features),
            "gin_waiting_requests": self._waiting(),
        }
        for name, size in sizes.items():
            if size != self._told.get(name):
                self._metrics[name].set(size)
                self._told[name] = size
