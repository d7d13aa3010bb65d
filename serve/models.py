"""Loading and unloading models of a running server, which needs the administrator's key."""

import json
import math
import re
from collections.abc import Mapping

from serve.question import NoRightAnswer, post

LOADING = 300.0  # seconds that a server or a model has to load; building an engine for a GPU takes its time
UNLOADING = 30.0  # seconds; Triton waits for a load that is under way, also for one that hangs
QUICK = 5.0  # seconds, for what needs no computation


def load(url: str, model: str, headers: Mapping[str, str]) -> None:
    """Load the newest version of a model that the server is shown; the former one answers until then.

    Raises NoRightAnswer with Triton's reason.
    """
    post(f"{url}/v2/repository/models/{model}/load", b"{}", LOADING, dict(headers))


def unload(url: str, model: str, headers: Mapping[str, str]) -> None:
    """Unload a model. Raises NoRightAnswer with Triton's reason."""
    post(f"{url}/v2/repository/models/{model}/unload", b"{}", UNLOADING, dict(headers))


def instances(url: str, model: str) -> int:
    """How many processes a loaded model of the Python backend should have. Raises NoRightAnswer."""
    config = post(f"{url}/v2/models/{model}/config", None, QUICK, {})
    try:
        groups = json.loads(config)["instance_group"]
        return sum(group["count"] * max(1, len(group.get("gpus", ()))) for group in groups)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoRightAnswer(f"the answer cannot be read: {error!r}") from None


def answered_requests(metrics_url: str) -> float:
    """Questions that `gin` has answered since the server started; NaN if that cannot be read."""
    try:
        metrics = post(metrics_url, None, QUICK, {}).decode()
    except (NoRightAnswer, ValueError):
        return math.nan
    counts = re.findall(r'^gin_request_count\{.*outcome="answered".*\} (\S+)$', metrics, re.MULTILINE)
    return sum(map(float, counts)) if counts else math.nan


def loaded_versions(url: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The versions of each model that are ready, such as {"gin": "1"}. Raises NoRightAnswer."""
    index = post(f"{url}/v2/repository/index", b'{"ready": true}', QUICK, dict(headers))
    try:
        return {model["name"]: str(model.get("version", "")) for model in json.loads(index)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoRightAnswer(f"the answer cannot be read: {error!r}") from None
