"""Who may ask what: encryption, the administrator's key, and what is refused because it would expose the server."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from serve import Server
from serve.access import PROTOCOLS, Access
from serve.errors import Refused, ServerError
from serve.question import ask
from serve.selfcheck import describe
from serve.triton import package as triton_package
from tests.serve.test_command import refused

KEY = "0123456789abcdef"


@dataclass(frozen=True)
class Papers:
    """PEM files: an authority, the server's and a client's certificate signed by it, and a stranger's, by nobody."""

    folder: Path

    def file(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Freshly made with OpenSSL."""
    folder = tmp_path_factory.mktemp("papers")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl(*new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=stranger", "-keyout", "stranger.key", "-out", "stranger.pem")
    for name in ("localhost", "client"):
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName=DNS:{name}"]
        openssl(*new, "-subj", f"/CN={name}", *signed, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl("pkey", "-in", "localhost.key", "-aes256", "-passout", "pass:secret", "-out", "secret.key")
    return Papers(folder)


@pytest.fixture(scope="module")
def mutual(repository: Path, papers: Papers) -> Access:
    """TLS on both sides, and a key that is known."""
    files = [papers.file(name) for name in ("localhost.pem", "localhost.key", "ca.pem")]
    return Access(*files, admin_key=KEY, unrestricted=("statistics",))


def live(port: int, **options: object) -> bool:
    """Whether a client with these papers is answered."""
    with triton.InferenceServerClient(f"localhost:{port}", **options) as connection:
        return connection.is_server_live(client_timeout=10)


def test_mutual_tls(repository: Path, papers: Papers, mutual: Access) -> None:
    """Only a client with a certificate of the authority is answered; beyond this machine there is no HTTP; the
    question of the health probe goes through all the same, and so does an administrator with the key."""
    with Server(repository, "0.0.0.0", 0, 0, 0, access=mutual) as server:
        port = server.grpc_port
        ours = {"root_certificates": str(papers.file("ca.pem")), "ssl": True}
        ours |= {"private_key": str(papers.file("client.key")), "certificate_chain": str(papers.file("client.pem"))}
        assert live(port, **ours)
        stranger = {"private_key": "stranger.key", "certificate_chain": "stranger.pem"}
        for change in (
            {name: str(papers.file(file)) for name, file in stranger.items()},
            {"private_key": None, "certificate_chain": None},
            {"root_certificates": str(papers.file("stranger.pem"))},
            {"ssl": False},
        ):
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                live(port, **(ours | change))
        ask(server.url, 10)
        assert server.http_host == "127.0.0.1"
        with triton.InferenceServerClient(f"localhost:{port}", **ours) as connection:
            connection.get_inference_statistics()  # opened
            with pytest.raises(InferenceServerException, match="restricted"):
                connection.get_model_repository_index()
            connection.get_model_repository_index(headers={"triton-grpc-protocol-admin": KEY})
        said = "\n".join(describe(server))
        assert "OTHER MACHINES TOO, TLS; clients need a certificate signed by" in said
        assert "OPEN TO EVERYBODY: statistics" in said
        assert KEY not in said


def test_self_check(server: Server) -> None:
    """A server on a laptop: one short line for each setting that safety depends on."""
    said = list(describe(server))
    assert all(len(line) < 200 for line in said)
    for word in (
        "gRPC: 127.0.0.1",
        "this machine only",
        *PROTOCOLS,
        "queues: gin 64 requests;",
        "user: ",
        str(server.repository),
    ):
        assert any(word in line for line in said), word
    assert "OTHER MACHINES" not in "\n".join(said)


def test_exposed_server_does_not_start(repository: Path) -> None:
    """Beyond this machine without encryption: one line that says what to give; exit code 2."""
    done = refused("--repository", repository, "--host", "0.0.0.0")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "0.0.0.0 is reachable from other machines" in done.stderr
    assert "--insecure" in done.stderr


WRONG = {
    "no key": ({"certificate": "localhost.pem"}, "both a certificate and its private key"),
    "other key": ({"certificate": "localhost.pem", "private_key": "client.key"}, "KEY_VALUES_MISMATCH"),
    "encrypted key": (
        {"certificate": "localhost.pem", "private_key": "secret.key"},
        "secret.key is encrypted",
    ),
    "no file": ({"certificate": "nowhere.pem", "private_key": "client.key"}, "there is no file .*nowhere.pem"),
    "no certificate": ({"certificate": "ca.key", "private_key": "ca.key"}, "no certificate"),
    "no authority": (
        {"certificate": "localhost.pem", "private_key": "localhost.key", "client_authority": "ca.key"},
        "^this file is no authority's certificate: [^,]*ca.key ",
    ),
    "authority alone": ({"client_authority": "ca.pem"}, "only with TLS"),
}


@pytest.mark.parametrize("name", WRONG)
def test_papers_that_cannot_work(papers: Papers, name: str) -> None:
    """Files that are missing, of another kind or do not belong together are named."""
    files, message = WRONG[name]
    access = Access(**{kind: papers.file(file) for kind, file in files.items()})  # type: ignore[arg-type]
    with pytest.raises(Refused, match=message):
        access.check("127.0.0.1")


@pytest.mark.parametrize(
    "key", ["", "short", "0123456789abcde", "with spaces in it all", "0123456789,abcdef=1", "ключ" * 4]
)
def test_keys_that_cannot_be_used(key: str) -> None:
    """A key that could be guessed, or that Triton would cut, is refused without being repeated."""
    with pytest.raises(Refused, match="16 or more") as caught:
        Access(admin_key=key).check("127.0.0.1")
    assert not key or key not in str(caught.value)
    assert key not in repr(Access(admin_key=key)) or not key


def test_key_from_a_file_or_the_environment(repository: Path, tmp_path: Path) -> None:
    """A bad key is refused wherever it comes from; a file that cannot be read is named; no protocol is made up."""
    done = refused("--repository", repository, GIN_ADMIN_KEY="short")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    (tmp_path / "key").write_text("short\n")
    done = refused("--repository", repository, "--admin-key-file", tmp_path / "key", GIN_ADMIN_KEY=KEY)
    assert (done.returncode, "16 or more" in done.stderr) == (2, True)
    done = refused("--repository", repository, "--admin-key-file", tmp_path / "nowhere")
    assert (done.returncode, "nowhere" in done.stderr) == (2, True)
    done = refused("--repository", repository, "--unrestricted", "everything")
    assert (done.returncode, "everything" in done.stderr) == (2, True)


def test_shared_memory_in_the_image(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's newer servers must be told to take it, by a flag that the wheel's does not know; only if it is open."""
    monkeypatch.setattr("serve.triton.IMAGE", triton_package())
    with pytest.raises(ServerError, match="allow-client-shm"):
        Server(
            repository, grpc_port=0, http_port=0, metrics_port=0, access=Access(unrestricted=("shared-memory",))
        ).start()
