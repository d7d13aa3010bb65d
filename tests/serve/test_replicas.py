"""Two servers behind the nginx of deploy/nginx.conf: one is killed under load and no client's call fails."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from client.address import Tls
from client.library import Client
from serve import Server
from tests.ports import free_port
from tests.serve.conftest import QUESTION

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
DEPLOY = Path(__file__).parent.parent.parent / "deploy"
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
SAMPLE = 20  # answers before and after the death


@pytest.fixture(scope="module")
def replicas(repository: Path) -> Iterator[list[Server]]:
    """Two servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(Server(repository, "127.0.0.1", 0, 0, 0)) for _ in range(2)]


def changed(path: Path, changes: dict[str, str]) -> str:
    """A committed file with other texts in the place of some."""
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def balancer(replicas: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """nginx with the committed configuration, only with addresses and files of this test: its port and certificate.
    Debian's does not know `resolve`."""
    folder, port = tmp_path_factory.mktemp("balancer"), free_port()
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run(["openssl", *make.split(), *files], check=True, capture_output=True)
    places = {"listen 8443": f"listen 127.0.0.1:{port}", "/etc/gin": str(folder), "/tmp/nginx": f"{folder}/nginx"}
    servers = {f"gin-{n}:8001 resolve": f"127.0.0.1:{replica.grpc_port}" for n, replica in enumerate(replicas)}
    text = changed(DEPLOY / "nginx.conf", places)
    (folder / "nginx.conf").write_text(f"user root;\n{text}" if os.getuid() == 0 else text)
    (folder / "replicas.conf").write_text(changed(DEPLOY / "replicas-compose.conf", servers))
    command = [str(NGINX), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    subprocess.run([*command, "-t"], check=True)
    process = subprocess.Popen([*command, "-g", "daemon off;"])
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port, folder / "tls.crt"
    finally:
        process.terminate()
        process.wait(30)


def connect(port: int, certificate: Path) -> Client:
    """A client of the project behind TLS."""
    return Client(f"grpcs://localhost:{port}", timeout=30, tls=Tls(ca=certificate))


def test_death_of_a_replica_is_not_felt(balancer: tuple[int, Path], replicas: list[Server], jpeg: bytes) -> None:
    """One of two is killed under load: every call is answered, and with the same boxes as before."""
    answers: list[object] = []
    stop = threading.Event()

    def run() -> None:
        client = connect(*balancer)
        while not stop.is_set():
            try:
                answers.append(client.ground(jpeg, QUESTION))
            except Exception as error:
                answers.append(error)

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 60
        while len(answers) < count and time.monotonic() < deadline:
            time.sleep(0.02)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(SAMPLE)
    os.kill(replicas[0].pid, signal.SIGKILL)
    before = len(answers)
    wait_for(before + SAMPLE)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(answers) >= before + SAMPLE
    assert [answer for answer in answers if answer != answers[0]] == []
    assert not isinstance(answers[0], Exception)


def test_what_the_balancer_refuses(balancer: tuple[int, Path]) -> None:
    """A message over the limit never reaches a server, and administration is not published, key or not."""
    port, certificate = balancer
    channel = grpc.secure_channel(
        f"localhost:{port}",
        grpc.ssl_channel_credentials(certificate.read_bytes()),
        options=[("grpc.max_send_message_length", -1)],
    )
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    large = service_pb2.ModelInferRequest(model_name="gin", raw_input_contents=[bytes(35 * 2**20)])
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(large, timeout=60)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, caught.value
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
