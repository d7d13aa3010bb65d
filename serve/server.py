"""A Triton server as a child process: started, waited for, stopped, and nothing of it left behind."""

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from pathlib import Path
from types import TracebackType

from serve import triton
from serve.repository import DEFAULT, select_models

START_TIMEOUT = 120.0  # seconds until every model is loaded
EXIT_TIMEOUT = 10  # seconds that the server gives requests in flight
RESTRICTED = "model-repository,shared-memory,logging,trace"  # what only an administrator may do
NO_GPU = ("CudaDriverHelper", "unable to create stream", "pinned system memory")  # logged wherever there is none
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec another thread may hold the loader's lock
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's ports


class ServerError(RuntimeError):
    """The server did not start or has died; the message names the cause."""


class PortInUse(ServerError):
    """A port is taken, or the host is not an address of this machine."""


class Server:
    """A running server; use it as a context manager.

    host: IPv4 address or name that gRPC, HTTP and metrics listen on. A port of 0 picks a free one; `grpc_port`,
    `http_port` and `metrics_port` then say which. verbose: show the server's log, not only what goes wrong once it is
    ready. Linux ends the server with the thread that started it.
    Raises RepositoryError, TritonMissing, PortInUse or ServerError.
    """

    def __init__(
        self,
        repository: str | Path = DEFAULT,
        host: str = "127.0.0.1",
        grpc_port: int = 8001,
        http_port: int = 8000,
        metrics_port: int = 8002,
        verbose: bool = False,
    ) -> None:
        self.repository = Path(repository).resolve()
        self.host = _numeric(host)
        self.verbose = verbose
        self.selection = select_models(self.repository)
        self.program = triton.program()
        self.grpc_port, self.http_port, self.metrics_port = _claim_ports(self.host, grpc_port, http_port, metrics_port)
        self._shared_memory = f"gin_{os.getpid()}_{secrets.token_hex(4)}_"
        self._log: deque[str] = deque(maxlen=2_000)
        self._show_log = False
        self._folder: Path | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Server":
        try:
            self._start()
            self._wait_until_ready()
            self._show_log = True
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Host that a client on this machine connects to."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host

    @property
    def pid(self) -> int:
        """Process of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def _models(self) -> Path:
        """The repository as Triton is told: it puts paths into a shell command, where a space or ; would do harm."""
        assert self._folder is not None
        return self._folder / "models"

    def wait(self) -> None:
        """Return never, but raise ServerError when the server dies."""
        assert self._process is not None
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise ServerError(f"the server died: {how}")  # its errors were shown when they came

    def stop(self) -> None:
        """End the server and everything that it started; remove what it left."""
        self._show_log = False
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_TIMEOUT + 5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # stubs that outlived it
            self._process.wait()
            self._process = None
        for region in Path("/dev/shm").glob(f"{self._shared_memory}*"):
            region.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gin-serve-")).resolve()
        if not re.fullmatch(r"[\w/.+-]+", str(self._folder)):
            raise ServerError(
                f"Triton cannot work in {self._folder.parent}, whose path a shell would not take as one word; "
                "set TMPDIR to another folder"
            )
        triton.build_backends(self._folder)
        self._models.symlink_to(self.repository)
        self._process = subprocess.Popen(
            [str(self.program), *self._arguments(self._folder)],
            env=triton.environment() | {"TMPDIR": str(self._folder)},
            cwd=self._folder,  # Triton's interpreter imports from here first: no package may hide a backend's module
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
            preexec_fn=_die_with_parent,
        )
        threading.Thread(target=self._read_log, daemon=True).start()

    def _arguments(self, backends: Path) -> list[str]:
        secret = secrets.token_hex(16)
        return [
            f"--model-repository={self._models}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in self.selection.load),
            "--disable-auto-complete-config",
            "--strict-readiness=true",
            f"--exit-timeout-secs={EXIT_TIMEOUT}",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.grpc_port}",
            f"--http-address={self.host}",
            f"--http-port={self.http_port}",
            f"--metrics-address={self.host}",
            f"--metrics-port={self.metrics_port}",
            f"--grpc-restricted-protocol={RESTRICTED}:admin={secret}",
            f"--http-restricted-api={RESTRICTED}:admin={secret}",
            f"--log-info={str(self.verbose).lower()}",
        ]

    def _read_log(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        for line in process.stdout:
            expected = any(complaint in line for complaint in NO_GPU)
            if not expected:
                self._log.append(line.rstrip())
            if self.verbose or (self._show_log and not expected):
                sys.stderr.write(line)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        urls = [f"http://{self.address}:{self.http_port}/v2/health/ready"]
        urls.append(f"http://{self.address}:{self.metrics_port}/metrics")  # Triton opens this port last
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerError(f"the server did not start: {self._cause()}")
            if all(map(_answers, urls)):
                return
            time.sleep(0.1)
        raise ServerError(f"the server was not ready after {START_TIMEOUT:.0f} seconds: {self._cause()}")

    def _cause(self) -> str:
        """The first error of the server's log, in one line."""
        time.sleep(0.2)  # let the log's last lines arrive
        errors = [line for line in self._log if re.match(r"E\d{4} ", line)]
        failed = [line for line in errors if "failed to load" in line] or errors
        failed += [line for line in self._log if line.startswith(("Bad option", "unknown"))]
        if failed:
            cause = re.sub(r"^E\d{4} \S+ \d+ \S+\] ", "", failed[0]).strip('" ')
            return cause.split("\\n\\nAt:")[0].replace(str(self._models), str(self.repository))  # without the traceback
        code = self._process.poll() if self._process is not None else None
        return f"exit code {code}; `--verbose` shows its log"


def _numeric(host: str) -> str:
    """IPv4 address of a host: Triton's HTTP takes no names, and would listen somewhere else."""
    try:
        if not host:
            raise OSError(0, "no address given")  # the resolver would take it for every address
        return socket.gethostbyname(host)
    except OSError as error:
        raise PortInUse(f"cannot listen on {host!r}: {error.strerror}") from None


def _claim_ports(host: str, *ports: int) -> tuple[int, ...]:
    """Check that ports are free, and find free ones for those that are 0."""
    claimed = []
    with contextlib.ExitStack() as held:
        for port in ports:
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
                listener.listen()  # or the same port could be claimed twice
            except OSError as error:
                raise PortInUse(f"cannot listen on {host}:{port}: {error.strerror}") from None
            claimed.append(listener.getsockname()[1])
    return tuple(claimed)


def _answers(url: str) -> bool:
    """Whether a request is answered with success."""
    try:
        with _DIRECT.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _die_with_parent() -> None:
    """Have Linux end the server if this process is killed without a chance to do it itself."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
