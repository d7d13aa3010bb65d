"""A request to stop (SIGTERM, SIGINT) that all ranks obey after the same step."""

import datetime
import signal
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor


class Stopped(Exception):
    """Training was asked to stop, and has saved. exit_code: 128 and the signal's number, as a shell would say."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; resume=true goes on from here")
        self.exit_code = 128 + number


class StopRequest:
    """Remembers a signal. Ranks tell each other at every step and learn the answer one step later, so that nobody
    waits for it. While it is open a second SIGINT ends the program at once.

    timeout: seconds to wait for another rank, as in the rest of the run.
    """

    def __init__(self, timeout: float) -> None:
        self.number: int | None = None
        self._pending: tuple[dist.Work, Tensor] | None = None
        # apart from the gradients' traffic, and never on a GPU
        self._group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout))
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def agreed(self) -> int | None:
        """To be called once after each step by every rank: the signal's number, on all ranks at the same step."""
        answer = 0
        if self._pending is not None:
            work, told = self._pending
            work.wait()
            answer = int(told)
        told = torch.tensor(self.number or 0)
        work = dist.all_reduce(told, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None  # it is asynchronous
        self._pending = work, told
        return answer or None

    def raise_if_agreed(self) -> None:
        """Raise Stopped on all ranks if one was asked, and not before all have come here; where they may wait for each
        other: before and after an evaluation, and when the first has saved."""
        self.agreed()
        number = self.agreed()
        if number is not None:
            raise Stopped(number)

    def close(self) -> None:
        """Give the signals back."""
        if self._pending is not None:
            self._pending[0].wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
