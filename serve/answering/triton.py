"""The answering as a model of Triton's Python backend.

Triton's own batcher joins requests only where each input has a leading batch axis, which one image and N expressions do
not have in common. So `execute` takes requests in and returns at once; answers are sent when the batch that a request
came into is done. What comes while `waiting_requests` are unanswered is refused: a caller can ask elsewhere or later,
and who was taken in is answered soon. To wait here would keep Triton from sending the answers that are ready.
"""

import json
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import triton_python_backend_utils as pb_utils

from model.preparation import InvalidInput, Preparation
from serve.answering.answerer import Answer, Answerer, Question
from serve.answering.batches import Batches
from serve.answering.counts import Counts
from serve.answering.features import Features
from serve.answering.network import AT_ONCE, Network
from serve.answering.outputs import PRESENCE, Outputs, check_top
from serve.answering.room import Room
from serve.answering.strings import read_strings
from serve.answering.threads import Threads
from serve.cores import cores
from serve.sessions import CannotOpen, parameter

VOCABULARY = "vocabulary.json"
Number = TypeVar("Number", int, float)
HANGS = 30.0  # seconds without an answer while all places are taken
pb_utils.deserialize_bytes_tensor = read_strings  # the stub takes it from there


@dataclass(frozen=True)
class Asked:
    """A request that was taken in. wanted: outputs to send. top: boxes for each expression. taken, prepared: when.
    until: when its caller gives up."""

    sender: Any
    wanted: list[str]
    top: int
    question: Question
    taken: float
    prepared: float
    until: float


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open what the export wrote, and run every size of batch once before anybody asks."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        threshold = _number(folder, config, "presence_threshold", float, 0)
        most = _number(folder, config, "batch_expressions", int, 1)
        try:
            preparation = Preparation.load(folder / VOCABULARY)
            self.outputs = Outputs(folder, threshold)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise pb_utils.TritonModelException(
                f"{VOCABULARY} or {PRESENCE} in {folder} cannot be read ({reason}); export the network again"
            ) from None
        try:
            network = Network(folder, config, device)
        except CannotOpen as error:
            raise pb_utils.TritonModelException(str(error)) from None
        # A GPU chooses its way for every new shape when it first comes.
        network.warm_up(preparation.image_size, (1, most) if device is None else range(1, most + 1))
        features = Features(_number(folder, config, "feature_cache_bytes", int, 0))
        self.answerer = Answerer(preparation, network, features)
        self.room = Room(_number(folder, config, "waiting_requests", int, 1))
        # Triton has a process for each GPU, and all call their instance the same.
        process = " ".join(args[f"model_instance_{what}"] for what in ("name", "kind", "device_id"))
        labels = {"model": args["model_name"], "version": args["model_version"], "process": process}
        self.counts = Counts(self.answerer, lambda: self.room.taken, labels)
        # Who has prepared a question answers it; on every core one more can be prepared meanwhile.
        self.threads = Threads(cores() + AT_ONCE)
        self.batches = Batches(self._answer, lambda asked: len(asked.question.lengths), most, AT_ONCE)

    def execute(self, requests: list) -> None:
        """Take requests in, or refuse them."""
        for request in requests:
            sender = request.get_response_sender()
            if not self.room.take():
                # The words tell whoever watches the server whether it is overloaded or hangs.
                hangs = self.room.stuck() > HANGS
                reason = f"nothing was answered for {HANGS:.0f} s" if hangs else "maximum queue size reached"
                error = _error(f"{reason}; ask again later", pb_utils.TritonError.UNAVAILABLE)
                sender.send(error, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                self.counts.done("refused")
                continue
            taken = time.perf_counter()
            image = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
            expressions = pb_utils.get_input_tensor_by_name(request, "EXPRESSION").as_numpy()
            top = pb_utils.get_input_tensor_by_name(request, "TOP_K")
            top = top and top.as_numpy()
            wanted = list(request.requested_output_names())
            until = taken + (request.timeout() / 1e6 or math.inf)
            self.threads.submit(self._prepare, sender, wanted, image[0], expressions, top, taken, until)

    def finalize(self) -> None:
        """Triton calls this when all requests have been answered."""
        self.threads.shutdown()
        self.counts.end()

    def _prepare(
        self,
        sender: Any,
        wanted: list[str],
        image: bytes,
        expressions: Sequence[bytes],
        top: np.ndarray | None,
        taken: float,
        until: float,
    ) -> None:
        try:
            count = check_top(top)
            question = self.answerer.prepare(image, expressions)
        except InvalidInput as error:
            self._refuse(sender, "invalid", str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            pb_utils.Logger.log_error(traceback.format_exc())
            message = f"preparing the inputs failed: {type(error).__name__}"
            self._refuse(sender, "failed", message, pb_utils.TritonError.INTERNAL)
        else:
            self.batches.put(Asked(sender, wanted, count, question, taken, time.perf_counter(), until))

    def _answer(self, batch: list[Asked]) -> None:
        begun = time.perf_counter()
        # Over HTTP Triton does not notice that a caller has left, so what it says of its patience counts.
        for asked in [asked for asked in batch if asked.until < begun or asked.sender.is_cancelled()]:
            batch.remove(asked)
            message = "the request was cancelled, or its time is over"
            self._refuse(asked.sender, "cancelled", message, pb_utils.TritonError.CANCELLED)
        if not batch:
            return
        try:
            answers = self.answerer.answer([asked.question for asked in batch])
            responses = [self._response(asked, answer) for asked, answer in zip(batch, answers, strict=True)]
        except Exception as error:
            if len(batch) > 1:  # only the one that causes it is to fail
                for asked in batch:
                    self._answer([asked])
                return
            pb_utils.Logger.log_error(traceback.format_exc())
            message = f"the network failed: {type(error).__name__}"
            self._refuse(batch[0].sender, "failed", message, pb_utils.TritonError.INTERNAL)
            return
        for asked, response in zip(batch, responses, strict=True):
            self._send(asked.sender, response)
            self.counts.answered(asked.taken, asked.prepared, begun, time.perf_counter())

    def _response(self, asked: Asked, answer: Answer) -> Any:
        outputs = self.outputs.answer(answer, asked.wanted, asked.top)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])

    def _refuse(self, sender: Any, outcome: str, message: str, code: int) -> None:
        self._send(sender, _error(message, code))
        self.counts.done(outcome)

    def _send(self, sender: Any, response: Any) -> None:
        try:
            sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:
            pb_utils.Logger.log_error(traceback.format_exc())
        finally:
            self.room.give_back()


def _number(folder: Path, config: dict[str, Any], name: str, kind: Callable[[str], Number], least: int) -> Number:
    """A parameter of the configuration, refused if it is no such number or below `least`."""
    text = parameter(config, name)
    try:
        value = kind(text)
        if not value >= least:
            raise ValueError
    except ValueError:
        named = "a whole number" if kind is int else "a number"
        raise pb_utils.TritonModelException(
            f"the configuration of {folder} has {name} {text!r}; it must be {named} of {least} or more"
        ) from None
    return value


def _error(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
