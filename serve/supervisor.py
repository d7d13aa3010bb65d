"""Keeps a server answering: asks it a real question again and again, and brings a model or the server back."""

import contextlib
import os
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

from serve.errors import RepositoryError, ServerError
from serve.health import Health
from serve.models import answered_requests, instances, loaded_versions, unload
from serve.processes import command_line, living_children, model_processes
from serve.question import NoRightAnswer, Overloaded, Silent, ask
from serve.repository import SERVED
from serve.server import Server
from serve.triton import TritonMissing

INTERVAL = 5.0  # seconds between questions; the death of a process is seen at once
QUESTION_TIMEOUT = 10.0  # seconds
PATIENCE = 3  # questions in a row, while nobody was answered, before the server counts as hanging
PAUSES = (0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # seconds before attempts to bring it back; then the last


class Supervisor:
    """Watches a started server. Its thread must be the one that started the server."""

    def __init__(self, server: Server, health: Health) -> None:
        self.server, self.health = server, health
        self._silent = 0  # questions in a row without any answer, to this or to anybody's
        self._attempts = 0  # at bringing it back, since the last right answer
        self._processes: dict[int, str] = {}  # seen alive, with the model that each runs
        self._versions: dict[str, str] = {}  # of each model, as the log says

    def run(self) -> None:
        """Watch for ever."""
        while True:
            try:
                self.step()
                if not self._attempts:
                    self._pause(INTERVAL)
            except OSError as error:  # of this process, as where a limit is reached: the server may answer on
                self.server.log.event("error", f"cannot watch the server: {error}")
                time.sleep(INTERVAL)

    def step(self) -> None:
        """Ask once, and do what the answer calls for; bring back models that are not asked but whose process died."""
        dead = self._dead_models()
        error = NoRightAnswer(f"the process of {SERVED} has died") if SERVED in dead else self._ask()
        if error:
            self._failed(error)
            return
        if self._attempts:
            self.server.log.event("info", "ready: the question is answered again")
        self._silent = self._attempts = 0
        for model in dead:
            with self._asking_on():
                self._reload(model)
        self._processes |= model_processes(self.server.pid)
        self._tell_of_reloading()

    def _ask(self) -> NoRightAnswer | None:
        """Ask once and let the health say that it went well; returns what is wrong with the server, if something is."""
        before = answered_requests(self.server.metrics_url)
        try:
            self.health.answered(ask(self.server.url, QUESTION_TIMEOUT))
        except Overloaded:
            self.health.overloaded()
        except NoRightAnswer as error:
            if not (isinstance(error, Silent) and answered_requests(self.server.metrics_url) > before):
                return error
            self.health.overloaded()  # others were answered: the question waits behind theirs
        return None

    @contextlib.contextmanager
    def _asking_on(self) -> Iterator[None]:
        """Ask on beside a model's loading, which may take minutes; what fails meanwhile is brought back afterwards."""
        done = threading.Event()

        def ask_on() -> None:
            while not done.wait(INTERVAL):
                if error := self._ask():
                    self.health.failed(str(error))

        thread = threading.Thread(target=ask_on)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _tell_of_reloading(self) -> None:
        """Log what `--reload`, which another process runs, was refused, and the versions that the server now serves."""
        for note in self.server.notes():
            self.server.log.event("error", note)
        with contextlib.suppress(NoRightAnswer):
            versions = loaded_versions(self.server.url, self.server.access.headers)
            for model, version in sorted(versions.items() - self._versions.items()):
                self.server.log.event("info", f"serving {model} version {version}", model=model)
            self._versions = versions

    def _failed(self, error: NoRightAnswer) -> None:
        self._silent = self._silent + 1 if isinstance(error, Silent) else 0
        self.health.failed(str(error))
        self.server.log.event("error", f"not ready: {error}")
        if self._silent in (0, PATIENCE):
            self._recover()

    def _recover(self) -> None:
        """Start the server again, also where only the process of `gin` has died: Triton answers nothing that this one
        was asked, so who waits for it would wait until his time is over, but of the server's end he hears at once.
        """
        time.sleep(PAUSES[min(self._attempts, len(PAUSES) - 1)])
        self._attempts += 1
        self._silent = 0
        self.server.log.event("warning", "starting the server again")
        self.server.kill()
        self._processes.clear()
        try:
            self.server.start()
            self.health.recovered("server")
            self.server.tell_what_is_missing()
        except (ServerError, RepositoryError, TritonMissing, OSError) as error:
            self.health.failed(str(error))
            self.server.log.event("error", str(error))

    def _dead_models(self) -> list[str]:
        """Models that Triton believes to serve though a process of theirs has died: it refuses every question then."""
        gone = [pid for pid in self._processes if not command_line(pid)]
        if not gone:
            return []
        living = Counter(model_processes(self.server.pid).values())
        try:
            believed = set(loaded_versions(self.server.url, self.server.access.headers))
            # A version that another has replaced took its processes with it.
            suspected = sorted({self._processes[pid] for pid in gone} & believed)
            dead = [model for model in suspected if living[model] < instances(self.server.url, model)]
        except NoRightAnswer:
            return []
        for pid in gone:
            del self._processes[pid]
        return dead

    def _reload(self, model: str) -> None:
        former = {pid for pid, name in model_processes(self.server.pid).items() if name == model}
        self.server.log.event("warning", f"loading {model} again, whose process has died", model=model)
        try:
            unload(self.server.url, model, self.server.access.headers)  # or Triton sees nothing that changed
            self.server.load(model)
        except (NoRightAnswer, RepositoryError, OSError) as error:
            self.server.log.event("error", f"loading {model} failed: {error}", model=model)
            return
        for pid in former & set(model_processes(self.server.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # Triton leaves some of the dead one's siblings behind
        self.health.recovered("model")

    def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until the server or one of the processes that it started dies."""
        watched = select.poll()
        with contextlib.ExitStack() as opened:
            for pid in (self.server.pid, *living_children(self.server.pid)):
                with contextlib.suppress(ProcessLookupError):
                    descriptor = os.pidfd_open(pid)
                    opened.callback(os.close, descriptor)
                    watched.register(descriptor, select.POLLIN)
            watched.poll(1000 * seconds)
