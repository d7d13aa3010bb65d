"""`python -m serve` keeps answering: whatever process of it is killed, the next right answers come by themselves."""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from client.errors import GroundingError
from client.library import Client
from export.manifest import hash_file
from model.checkpoint import Checkpoint
from serve import Server, workplace
from serve.access import Access
from serve.errors import RepositoryError, ServerError
from serve.health import Health
from serve.log import Log
from serve.models import loaded_versions
from serve.probe import main as probe
from serve.processes import command_line, model_processes
from serve.question import Overloaded, Silent, Unreachable
from serve.reload import reload
from serve.supervisor import PATIENCE as PATIENCE_IN_QUESTIONS
from serve.supervisor import Supervisor
from tests.serve.conftest import QUESTION
from tests.serve.test_command import COMMAND, descendants, wait_until_gone
from tests.serve.test_variants import network_inputs

PATIENCE = 60  # seconds until it must answer again


@dataclass(frozen=True)
class Running:
    """The command, the ports that it printed by name, and the files where it says what it does and leaves things."""

    process: subprocess.Popen
    ports: dict[str, int]
    log: Path
    temporary: Path

    def processes(self, what: str) -> list[int]:
        """Its processes with this in their command line."""
        found = []
        for pid in descendants(self.process.pid):
            if what in " ".join(command_line(pid)):
                found.append(pid)
        return found


@pytest.fixture(scope="module")
def command(full_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running command."""
    folder = tmp_path_factory.mktemp("recovery")
    (folder / "temporary").mkdir()
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [*COMMAND, "--repository", full_repository],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"TMPDIR": str(folder / "temporary")},
        )
    assert process.stdout is not None
    ports = dict(re.findall(r"(grpc|health)(?:://| http://)127\.0\.0\.1:(\d+)", process.stdout.readline()))
    yield Running(process, {name: int(port) for name, port in ports.items()}, folder / "log", folder / "temporary")
    process.terminate()
    process.wait(60)


def answers_again(client: Client, jpeg: bytes, expected: list) -> bool:
    """Whether the same answer comes, soon."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            return client.ground(jpeg, QUESTION) == expected
        except GroundingError:
            time.sleep(0.1)
    return False


@pytest.mark.parametrize("victim", ["models/gin/", "bin/tritonserver"])
def test_killed_process_comes_back(command: Running, jpeg: bytes, victim: str) -> None:
    """After SIGKILL of either process the same answer comes again; health endpoint and log say what happened."""
    ready = f"http://127.0.0.1:{command.ports['health']}/ready"
    with Client(f"127.0.0.1:{command.ports['grpc']}", timeout=5) as client:
        expected = client.ground(jpeg, QUESTION)
        (pid,) = command.processes(victim)
        said = len(command.log.read_text())
        os.kill(pid, signal.SIGKILL)
        assert answers_again(client, jpeg, expected)
    assert pid not in command.processes(victim)
    deadline = time.monotonic() + PATIENCE
    while "answered again" not in command.log.read_text()[said:] and time.monotonic() < deadline:
        time.sleep(0.1)
    log = command.log.read_text()[said:]
    assert "not ready: " in log
    assert "starting the server again" in log
    with urllib.request.urlopen(ready, timeout=10) as response:
        assert response.status == 200


def test_who_waits_is_told_of_a_death(repository: Path, jpeg: bytes) -> None:
    """Triton answers nothing that a process had when it died: whose question that was hears it from the server's end,
    long before his time is over."""
    with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as server:
        supervisor = Supervisor(server, Health())
        supervisor.step()
        (pid,) = [pid for pid, model in model_processes(server.pid).items() if model == "gin"]
        with Client(f"{server.address}:{server.grpc_port}", timeout=600) as client, ThreadPoolExecutor() as pool:
            expected = client.ground(jpeg, QUESTION)
            os.kill(pid, signal.SIGSTOP)
            asked = pool.submit(client.ground, jpeg, QUESTION)
            time.sleep(2)  # until the process has it
            assert not asked.done()
            os.kill(pid, signal.SIGKILL)
            wait_until_gone({pid})
            supervisor.step()
            assert isinstance(asked.exception(PATIENCE), GroundingError)
            assert answers_again(client, jpeg, expected)


def network_answers(connection: triton.InferenceServerClient, model: str, inputs: list) -> dict[str, list]:
    """Every output of a network by its name."""
    result = connection.infer(model, inputs, client_timeout=5)
    return {output.name: result.as_numpy(output.name).tolist() for output in result.get_response().outputs}


@pytest.mark.parametrize("model", ["gin_onnx", "gin_torchscript"])
def test_killed_side_model_comes_back(command: Running, checkpoint: Checkpoint, jpeg: bytes, model: str) -> None:
    """A network that the health question does not ask is brought back too, while `gin` answers on."""
    inputs = network_inputs(checkpoint, jpeg, QUESTION)
    url = f"127.0.0.1:{command.ports['grpc']}"
    with triton.InferenceServerClient(url) as connection, Client(url, timeout=5) as client:
        expected = network_answers(connection, model, inputs)
        answer = client.ground(jpeg, QUESTION)
        former = set(command.processes(f"models/{model}/"))
        said = len(command.log.read_text())
        os.kill(min(former), signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        again = None
        while (again != expected or former & set(command.processes(f"models/{model}/"))) and (
            time.monotonic() < deadline
        ):
            assert client.ground(jpeg, QUESTION) == answer
            with contextlib.suppress(InferenceServerException):
                again = network_answers(connection, model, inputs)
        assert again == expected
        assert not former & set(command.processes(f"models/{model}/"))
    log = command.log.read_text()[said:]
    assert f"loading {model} again" in log
    assert "not ready" not in log


@pytest.mark.parametrize("victim", ["models/gin/", "bin/tritonserver"])
def test_hanging_process_is_replaced(
    repository: Path, jpeg: bytes, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is stopped answers nothing: after some questions the server is started again."""
    monkeypatch.setattr("serve.supervisor.QUESTION_TIMEOUT", 2.0)
    monkeypatch.setattr("serve.server.EXIT_TIMEOUT", 0)
    health = Health()
    with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as server:
        supervisor = Supervisor(server, health)
        supervisor.step()
        assert not health.ready()
        with Client(f"{server.address}:{server.grpc_port}") as client:
            expected = client.ground(jpeg, QUESTION)
        lines = {pid: " ".join(command_line(pid)) for pid in (server.pid, *descendants(server.pid))}
        (pid,) = [pid for pid, line in lines.items() if victim in line]
        os.kill(pid, signal.SIGSTOP)
        supervisor.step()
        assert health.ready()
        for _ in range(PATIENCE_IN_QUESTIONS):  # at most: Triton itself tells of a model's process after a while
            if health.ready():
                supervisor.step()
        assert not health.ready()
        assert pid not in descendants(os.getpid())
        with Client(f"{server.address}:{server.grpc_port}") as client:
            assert client.ground(jpeg, QUESTION) == expected


def test_what_no_longer_verifies_is_not_brought_back(
    repository: Path, jpeg: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A side model that was tampered with stays away, when its process or the whole server has died; `gin` goes on."""
    shutil.copytree(repository, tmp_path / "triton_repo")
    health = Health()
    with Server(tmp_path / "triton_repo", grpc_port=0, http_port=0, metrics_port=0) as server:
        supervisor = Supervisor(server, health)
        supervisor.step()
        with open(tmp_path / "triton_repo" / "gin_onnx" / "1" / "model.onnx", "ab") as file:
            file.write(b"more")
        pids = [pid for pid in descendants(server.pid) if "models/gin_onnx/" in " ".join(command_line(pid))]
        for victim in (min(pids), server.pid):
            os.kill(victim, signal.SIGKILL)
            wait_until_gone({victim})
            supervisor.step()
            supervisor.step()
            assert not health.ready()
            assert loaded_versions(server.url, server.access.headers).keys() == {"gin"}
            log = capsys.readouterr().err
            assert re.search(r"(loading gin_onnx failed|not loaded: gin_onnx): .*its SHA-256 differs", log), log
        with Client(f"{server.address}:{server.grpc_port}") as client:
            assert client.ground(jpeg, QUESTION)


def test_starting_again_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server cannot be started, whatever the reason, the supervisor lives on and tries again."""

    class Broken:
        """As much of a server as is asked of one that does not run."""

        def __init__(self) -> None:
            self.url, self.access, self.log, self.ran = "http://127.0.0.1:1", Access(), Log(), True
            self.metrics_url = f"{self.url}/metrics"
            self.failures = deque([ServerError("port taken"), RepositoryError("tampered with"), OSError("disk full")])

        @property
        def pid(self) -> int:
            assert self.ran
            return 0

        def kill(self) -> None:
            self.ran = False

        def tell_what_is_missing(self) -> None:
            pass

        def start(self) -> None:
            if self.failures:
                raise self.failures.popleft()

    monkeypatch.setattr("serve.supervisor.PAUSES", (0.0,))
    monkeypatch.setattr("serve.supervisor.model_processes", lambda _: {})
    server, health = Broken(), Health()
    supervisor = Supervisor(server, health)  # type: ignore[arg-type]
    reasons = []
    for _ in range(4):
        supervisor.step()
        reasons.append(health.ready())
        supervisor._attempts += 1_000  # as after a day of them
    assert reasons[:3] == ["port taken", "tampered with", "disk full"]
    assert 'gin_recoveries_total{what="server"} 1' in health.metrics()


def test_supervisor_outlives_its_limits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it cannot look at the server's processes, the server goes on, and it tries again."""
    supervisor = Supervisor(Mock(log=Log()), Health())
    failures = [OSError(errno.EMFILE, "Too many open files"), KeyboardInterrupt()]
    monkeypatch.setattr(supervisor, "step", Mock(side_effect=failures))
    monkeypatch.setattr("serve.supervisor.INTERVAL", 0.0)
    with pytest.raises(KeyboardInterrupt):
        supervisor.run()
    assert "cannot watch the server: [Errno 24] Too many open files" in capsys.readouterr().err


def test_questions_go_on_while_a_side_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes."""
    questions: list[str] = []
    asked = threading.Event()

    def ask(url: str, timeout: float) -> float:
        questions.append(url)
        if len(questions) > 1:  # the first is the one that every step begins with
            asked.set()
        return 0.01

    monkeypatch.setattr("serve.supervisor.ask", ask)
    monkeypatch.setattr("serve.supervisor.INTERVAL", 0.0)
    monkeypatch.setattr("serve.supervisor.model_processes", lambda _: {})
    server = Mock(url="http://127.0.0.1:1", metrics_url="http://127.0.0.1:1/metrics", access=Access(), notes=list)
    supervisor = Supervisor(server, Health())
    monkeypatch.setattr(supervisor, "_dead_models", lambda: ["gin_onnx"])
    monkeypatch.setattr(supervisor, "_reload", lambda _: asked.wait(PATIENCE))
    supervisor.step()
    assert asked.is_set()


def test_leftovers_that_another_server_removes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two servers may start at once."""
    monkeypatch.setattr("serve.workplace._folders", lambda: [tmp_path / "gone"])
    workplace.remove_leftovers()


def test_server_that_was_never_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was made while it started goes with it; what was there before stays."""
    monkeypatch.setattr("serve.workplace._ENVIRONMENTS", tmp_path)
    (tmp_path / "python_env_before").mkdir()
    place = workplace.Workplace()
    (tmp_path / "python_env_during").mkdir()
    place.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["python_env_before"]


def test_probe(command: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """The probe's exit code is the endpoint's word, and counters tell what was brought back."""
    port = str(command.ports["health"])
    assert probe(["--health-port", port]) == probe(["--health-port", port, "--live"]) == 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        metrics = response.read().decode()
    assert "gin_ready 1" in metrics
    assert re.search(r'gin_recoveries_total\{what="model"\} [1-9]', metrics)
    assert re.search(r'gin_recoveries_total\{what="server"\} [1-9]', metrics)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health", timeout=10)
    os.kill(command.process.pid, signal.SIGSTOP)
    try:
        capsys.readouterr()
        assert probe(["--health-port", port]) == 1
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert "timed out" in error
    finally:
        os.kill(command.process.pid, signal.SIGCONT)


def test_leftovers_go_at_the_next_start(command: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed together with its server, it leaves a folder, which the next one removes; those of the living stay."""
    monkeypatch.setattr("tempfile.tempdir", str(command.temporary))
    ((folder, facts),) = workplace.running()
    assert facts["grpc_port"] == command.ports["grpc"]
    workplace.remove_leftovers()
    assert folder.is_dir()
    started = descendants(command.process.pid)
    for pid in (command.process.pid, *started):
        os.kill(pid, signal.SIGKILL)
    command.process.wait()
    assert not wait_until_gone(started)
    regions = list(Path("/dev/shm").glob(f"{facts['shared_memory']}*"))
    environments = [Path(name) for name in facts["environments"]]  # the end of another server may have taken it
    assert regions
    (folder.parent / f"{workplace.PREFIX}not_ours").symlink_to(Path.home())
    deadline = time.monotonic() + 10  # a process with many threads counts as gone before the last of them is
    while list(workplace.running()) and time.monotonic() < deadline:
        time.sleep(0.1)
    following = workplace.Workplace()
    assert not folder.exists()
    assert not any(path.exists() for path in (*regions, *environments))
    assert Path.home().is_dir()
    following.remove()
    assert not [path for path in folder.parent.iterdir() if not path.is_symlink()]


def test_load_is_not_a_hang(repository: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the health question waits too long behind others, which are answered, the server stays and is ready."""
    health = Health()
    with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as server:
        supervisor, former = Supervisor(server, health), server.pid
        with Client(f"{server.address}:{server.grpc_port}") as client:

            def others_are_answered(url: str, timeout: float) -> float:
                client.ground(jpeg, QUESTION)
                time.sleep(1)  # the server tells of it twice a second
                raise Silent("no answer in time")

            monkeypatch.setattr("serve.supervisor.ask", others_are_answered)
            for _ in range(PATIENCE_IN_QUESTIONS + 1):
                supervisor.step()
                assert not health.ready()
        assert server.pid == former
        metrics = health.metrics()
    assert re.search(rf'outcome="overloaded"\}} {PATIENCE_IN_QUESTIONS + 1}\b', metrics)
    assert 'gin_recoveries_total{what="server"} 0' in metrics


def test_overload_is_no_failure(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others fill the queue before the first question comes, the server has started, and has loaded anew."""
    for module in ("server", "reload"):
        monkeypatch.setattr(f"serve.{module}.ask", Mock(side_effect=Overloaded("maximum queue size reached")))
    with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as server:
        assert reload(server.grpc_port).versions["gin"] == "1"


def test_fewer_processes_after_reloading(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that was loaded again with fewer processes is not taken for one whose process has died; the log tells of
    the new version of another, and of the one that was refused."""
    path = shutil.copytree(repository, tmp_path / "triton_repo") / "gin_onnx" / "config.pbtxt"
    health = Health()
    with Server(tmp_path / "triton_repo", grpc_port=0, http_port=0, metrics_port=0) as server:
        supervisor = Supervisor(server, health)
        supervisor.step()
        former = {pid for pid, model in model_processes(server.pid).items() if model == "gin_onnx"}
        path.write_text(path.read_text().replace("instance_group [ { count: 2 } ]", "instance_group [ { count: 1 } ]"))
        shutil.copytree(tmp_path / "triton_repo" / "gin" / "1", tmp_path / "triton_repo" / "gin" / "2")
        (tmp_path / "triton_repo" / "gin" / "3").mkdir()
        assert "python -m serve: serving gin version 1\n" in capsys.readouterr().err
        reload(server.grpc_port)
        deadline = time.monotonic() + PATIENCE
        while former & set(model_processes(server.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = {pid for pid, model in model_processes(server.pid).items() if model == "gin_onnx"}
        assert (len(former), len(left)) == (2, 1)
        supervisor.step()
        assert {pid for pid, model in model_processes(server.pid).items() if model == "gin_onnx"} == left
        refused = f"not served: {tmp_path}/triton_repo/gin/3 has no manifest.json; export the network again"
        said = f"python -m serve: {refused}\npython -m serve: serving gin version 2\n"
        assert capsys.readouterr().err == said
        supervisor.step()
        assert not capsys.readouterr().err
    assert 'gin_recoveries_total{what="model"} 0' in health.metrics()


def test_version_that_cannot_be_loaded(
    repository: Path, jpeg: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It verifies, as one exported for a newer runtime does, but the one before is served: after reloading, after the
    death of a model's process and after the server's."""
    shutil.copytree(repository, tmp_path / "triton_repo")
    model, side = tmp_path / "triton_repo" / "gin", tmp_path / "triton_repo" / "gin_onnx"
    health = Health()
    with Server(model.parent, grpc_port=0, http_port=0, metrics_port=0) as server:
        supervisor = Supervisor(server, health)
        supervisor.step()
        with Client(f"{server.address}:{server.grpc_port}") as client:
            expected = client.ground(jpeg, QUESTION)
        shutil.copytree(model / "1", model / "2")
        make_unloadable(model / "2" / "expression.onnx")
        shutil.copytree(side / "1", side / "2")
        make_unloadable(side / "2" / "model.onnx")
        with pytest.raises(ServerError, match="could not load"):
            reload(server.grpc_port)
        capsys.readouterr()
        supervisor.step()
        said = capsys.readouterr().err
        assert re.search(rf"serve: not reloaded: the server could not load .*{model}/2/expression.onnx cannot", said)
        for victim, unloadable in (
            ("models/gin_onnx/", side / "2/model.onnx"),
            ("models/gin/", model / "2/expression.onnx"),
            ("bin/tritonserver", model / "2/expression.onnx"),
        ):
            lines = {pid: " ".join(command_line(pid)) for pid in (server.pid, *descendants(server.pid))}
            pid = min(pid for pid, line in lines.items() if victim in line)
            os.kill(pid, signal.SIGKILL)
            wait_until_gone({pid})
            capsys.readouterr()
            supervisor.step()
            supervisor.step()
            assert not health.ready()
            assert loaded_versions(server.url, server.access.headers) == {"gin": "1", "gin_onnx": "1"}
            with Client(f"{server.address}:{server.grpc_port}") as client:
                assert client.ground(jpeg, QUESTION) == expected
            assert f"{unloadable} cannot be opened" in capsys.readouterr().err


def test_death_while_loading(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the server dies, no version is at fault: none gives way to the one before."""
    model = shutil.copytree(repository, tmp_path / "triton_repo") / "gin"
    shutil.copytree(model / "1", model / "2")
    server = Server(model.parent, grpc_port=0, http_port=0, metrics_port=0)
    server._workplace = workplace.Workplace()
    with pytest.raises(Unreachable):
        server.load("gin")
    server.stop()
    assert not capsys.readouterr().err


def test_stopping_after_a_death(repository: Path) -> None:
    """For a model whose process had died, and which was loaded again, nobody waits at the end."""
    health = Health()
    with Server(repository, grpc_port=0, http_port=0, metrics_port=0) as server:
        supervisor = Supervisor(server, health)
        supervisor.step()
        victim = min(pid for pid, model in model_processes(server.pid).items() if model == "gin_onnx")
        os.kill(victim, signal.SIGKILL)
        wait_until_gone({victim})
        supervisor.step()
        assert not health.ready()
        assert 'gin_recoveries_total{what="model"} 1' in health.metrics()
    assert not [line for line in server._said.lines if "Exit timeout expired" in line]


def make_unloadable(path: Path) -> None:
    """Cut a file off, and have the manifest beside it say that it was exported like that."""
    whole = hash_file(path)
    path.write_bytes(path.read_bytes()[:1000])
    manifest = path.parent / "manifest.json"
    manifest.write_text(manifest.read_text().replace(whole, hash_file(path)))
