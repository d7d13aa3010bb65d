"""A Triton server as a child process: started, waited for, stopped, and nothing of it left behind."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from http.client import HTTPException
from pathlib import Path
from types import TracebackType

from serve import models, triton
from serve.access import Access
from serve.errors import CannotLoad, Crashed, PortInUse, ServerError
from serve.log import Log
from serve.ports import claim, is_loopback, numeric, reachable
from serve.processes import model_processes
from serve.question import DIRECT, NoRightAnswer, Overloaded, Unreachable, ask
from serve.repository import DEFAULT, SERVED, Selection, select_models
from serve.triton_log import TritonLog
from serve.versions import NONE, Refusals, link_models, split_versions
from serve.workplace import Workplace

__all__ = ["PortInUse", "Server", "ServerError"]

EXIT_TIMEOUT = 10  # seconds that the server gives requests in flight
CRASHES = [-signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGSEGV]  # as exit codes
EMPTY_TIMEOUT = 1.0  # seconds that it has to end once no model's process is left
# Has Linux end the server if this process is killed without a chance to do it itself; of util-linux. Done here, between
# fork and exec, it would have gRPC, which a caller may use, run its fork handlers, and one child in a hundred abort.
END_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM")


class Server:
    """A running server; use it as a context manager, or `start` and `stop` it.

    host: IPv4 address or name that gRPC and HTTP listen on. metrics_host: the same for metrics. With TLS, which Triton
    has for gRPC only, HTTP stays on this machine. A port of 0 picks a free one; `grpc_port`, `http_port` and
    `metrics_port` then say which. verbose: show the server's log, not only what goes wrong once it is ready.
    trace_url: where to send OpenTelemetry traces, such as http://127.0.0.1:4318/v1/traces. log: where messages go.
    Linux ends the server with the thread that started it.
    Raises RepositoryError, TritonMissing, PortInUse, Refused or ServerError.
    """

    def __init__(
        self,
        repository: str | Path = DEFAULT,
        host: str = "127.0.0.1",
        grpc_port: int = 8001,
        http_port: int = 8000,
        metrics_port: int = 8002,
        verbose: bool = False,
        *,
        metrics_host: str = "127.0.0.1",
        access: Access | None = None,
        trace_url: str = "",
        log: Log | None = None,
    ) -> None:
        self.repository = Path(repository).resolve()
        self.host, self.metrics_host = numeric(host), numeric(metrics_host)
        self.access = access or Access()
        self.access.check(self.host)
        self.http_host = "127.0.0.1" if self.access.certificate and not is_loopback(self.host) else self.host
        self.verbose, self.trace_url, self.log = verbose, trace_url, log or Log()
        self.selection = self._select()
        self.refused: dict[str, str] = {}  # versions that did not verify, with the reason
        self.program = triton.program()
        self.grpc_port, self.http_port, self.metrics_port = claim(
            (self.host, grpc_port, "--grpc-port"),
            (self.http_host, http_port, "--http-port"),
            (self.metrics_host, metrics_port, "--metrics-port"),
        )
        self._said = TritonLog(self.log, verbose)
        self._was_ready = False
        self._workplace: Workplace | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Host that a client on this machine connects to."""
        return reachable(self.host)

    @property
    def url(self) -> str:
        """Where it is asked over HTTP from this machine."""
        return f"http://{reachable(self.http_host)}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """Its metrics, as this machine reads them."""
        return f"http://{reachable(self.metrics_host)}:{self.metrics_port}/metrics"

    @property
    def pid(self) -> int:
        """Process of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def _models(self) -> Path:
        """The repository as Triton is told: it puts paths into a shell command, where a space or ; would do harm."""
        assert self._workplace is not None
        return self._workplace.path / "models"

    def start(self) -> None:
        """Start the server, again if it was stopped, and return when it has answered a question.

        A version that verifies but cannot be loaded gives way to the one before. At the first start, when somebody is
        there to see it, all models must load; later ones go on without a model that `gin` does not need. A Triton that
        crashes is started once more: it does so once in hundreds of starts.
        """
        unloadable: dict[str, str] = {}
        crashed = False
        while True:
            try:
                self._launch(unloadable)
                self._wait_until_ready()
            except CannotLoad as error:
                self.stop()
                model = error.folder.parent
                good, _ = split_versions(model, unloadable)
                if len(good) < 2 and (model.name == SERVED or not self._was_ready):
                    raise
                unloadable[str(error.folder)] = str(error)
                self.log.event("error", str(error))
            except Crashed as error:
                self.stop()
                if crashed:
                    raise
                crashed = True
                self.log.event("error", f"{error}; starting it again")
            except BaseException:
                self.stop()
                raise
            else:
                self._said.shown = self._was_ready = True
                return

    def wait(self, timeout: float | None = None) -> None:
        """Return after `timeout` seconds, or never, but raise ServerError when the server dies."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return
        raise ServerError(f"the server died: {_ending(code)}")  # its errors were shown when they came

    def load(self, model: str) -> None:
        """Have the running server load the newest version of a model that verifies now and can be loaded.

        Raises NoRightAnswer, RepositoryError or OSError.
        """
        unloadable: dict[str, str] = {}
        while True:
            self.refused |= link_models(self.repository, [model], self._models, unloadable)
            try:
                models.load(self.url, model, self.access.headers)
                return
            except Unreachable:  # which is not the version's fault
                raise
            except NoRightAnswer as error:
                reason = str(error).replace(str(self._models), str(self.repository))
                good, _ = split_versions(self.repository / model, unloadable)
                if len(good) < 2:
                    raise NoRightAnswer(reason) from None
                unloadable[str(good[-1])] = f"{good[-1]} cannot be loaded: {reason}"
                self.log.event("error", unloadable[str(good[-1])], model=model)

    def tell_what_is_missing(self) -> None:
        """Log the models that are not loaded and the versions that are not served, with the reasons."""
        for name, reason in self.selection.skipped.items():
            self.log.event("warning", f"not loaded: {name}: {reason}")
        for reason in self.refused.values():
            self.log.event("warning", f"not served: {reason}")

    def notes(self) -> list[str]:
        """What `--reload`, which another process runs, left for the log since the last call."""
        return self._workplace.take_notes() if self._workplace else []

    def stop(self) -> None:
        """End the server when it has answered what it was asked, and all that it started; remove what it left."""
        if self._process is not None:
            self._said.shown = False
            self._process.terminate()
            self._wait_for_end(self._process)
        self.kill()

    def kill(self) -> None:
        """End the server at once, and all that it started; remove what it left."""
        self._said.shown = False
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            with contextlib.suppress(ChildProcessError):  # until none is left of those that became this one's children,
                while os.waitpid(-self._process.pid, 0):  # as all orphans of a container do
                    pass
            self._process = None
        if self._workplace is not None:
            self._workplace.remove()
            self._workplace = None

    def _wait_for_end(self, process: subprocess.Popen[str]) -> None:
        """Wait until the server has ended, or all that it has to do is done: for a model whose process had died it
        would wait in vain. It ends the models' processes when the last request is answered."""
        deadline = time.monotonic() + EXIT_TIMEOUT + 5
        left = EMPTY_TIMEOUT
        try:
            while process.poll() is None and model_processes(process.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
        except OSError:  # no file descriptor is free to look at them
            left = deadline - time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(left)

    def _launch(self, unloadable: Refusals) -> None:
        try:
            self._workplace = workplace = Workplace()
            backends = triton.build_backends(workplace.path)
        except OSError as error:
            why = error.args[0][0][-1] if isinstance(error, shutil.Error) else error  # of many files, the first
            raise ServerError(f"Triton has no folder to work in: {why}; set TMPDIR to another folder") from None
        if shutil.which(END_WITH_PARENT[0]) is None:
            raise ServerError(f"{END_WITH_PARENT[0]} is not installed; it is part of util-linux")
        if not re.fullmatch(r"[\w/.+-]+", str(workplace.path)):
            raise ServerError(
                f"Triton cannot work in {workplace.path.parent}, whose path a shell would not take as one word; "
                "set TMPDIR to another folder"
            )
        self.selection = self._select(unloadable)
        self.refused = link_models(self.repository, self.selection.load, self._models, unloadable)
        self._said = TritonLog(self.log, self.verbose)
        self._process = subprocess.Popen(
            [*END_WITH_PARENT, str(self.program), *self._arguments(backends)],
            env=triton.environment() | {"TMPDIR": str(workplace.path)},
            cwd=workplace.path,  # Triton's interpreter imports from here first: no package may hide a backend's module
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
            pass_fds=[workplace.lock],
        )
        assert self._process.stdout is not None
        self._said.follow(self._process.stdout)

    def _select(self, unloadable: Refusals = NONE) -> Selection:
        """The models to load."""
        return select_models(self.repository, unloadable)

    def _arguments(self, backends: Path) -> list[str]:
        assert self._workplace is not None
        tracing = ["mode=opentelemetry", f"opentelemetry,url={self.trace_url}", "level=TIMESTAMPS", "rate=1"]
        return [
            f"--model-repository={self._models}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self._workplace.shared_memory}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in self.selection.load),
            "--disable-auto-complete-config",
            "--strict-readiness=true",
            f"--exit-timeout-secs={EXIT_TIMEOUT}",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.grpc_port}",
            f"--http-address={self.http_host}",
            f"--http-port={self.http_port}",
            f"--metrics-address={self.metrics_host}",
            f"--metrics-port={self.metrics_port}",
            *self.access.grpc_flags(),
            *self.access.key_flags(),
            *self._sharing_flags(),
            *(f"--trace-config={setting}" for setting in tracing if self.trace_url),
            f"--log-info={str(self.verbose).lower()}",
        ]

    def _sharing_flags(self) -> list[str]:
        """Releases from 26.04 on register no client's shared memory unless told to; the wheel's knows no such flag."""
        asked = "shared-memory" in self.access.unrestricted and triton.package() == triton.IMAGE
        return ["--allow-client-shm=true"] if asked else []

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        assert self._workplace is not None
        urls = [f"{self.url}/v2/health/ready", self.metrics_url]  # Triton opens the metrics' port last
        deadline = time.monotonic() + models.LOADING
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._no_start()
            if all(map(_answers, urls)):
                break
            time.sleep(0.1)
        else:
            raise ServerError(f"the server was not ready after {models.LOADING:.0f} seconds: {self._cause()}")
        facts = {"pid": self.pid, "url": self.url, "grpc_port": self.grpc_port, "admin_key": self.access.admin_key}
        self._workplace.record(repository=str(self.repository), **facts)
        try:
            ask(self.url, max(deadline - time.monotonic(), 1))
        except Overloaded:  # by others, who ask as soon as the ports are open
            pass
        except NoRightAnswer as error:
            raise ServerError(f"the server started but cannot answer: {error}") from None

    def _no_start(self) -> ServerError:
        """Why it ended before it was ready."""
        reason = f"the server did not start: {self._cause()}"
        found = re.search(r"failed to load '([^']+)' version (\d+)", reason)
        if found:
            return CannotLoad(self.repository / found[1] / found[2], reason)
        assert self._process is not None
        silent = self._said.first_error() is None
        return Crashed(reason) if silent and self._process.poll() in CRASHES else ServerError(reason)

    def _cause(self) -> str:
        """The first error of the server's log, or how it ended, in one line."""
        error = self._said.first_error()
        if error is not None:
            return error.replace(str(self._models), str(self.repository))
        assert self._process is not None
        code = self._process.poll()
        how = [_ending(code), self._said.last_words()] if code is not None else []
        return "; ".join(filter(None, [*how, "`--verbose` shows its log"]))


def _ending(code: int) -> str:
    """How a process ended."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _answers(url: str) -> bool:
    """Whether a request is answered with success."""
    try:
        with DIRECT.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False
