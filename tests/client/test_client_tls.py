"""Encrypted connections: who is trusted, who is let in, and what is said to others."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from fake_http import running_http
from fake_kserve import FakeServer, box_of, running
from ways import Awaited

from client import Client, Tls, Unreachable, cli

OURS = trustme.CA()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, the client's me.pem and me.key; stranger.pem, an authority that signed nothing here."""
    folder = tmp_path_factory.mktemp("tls")
    OURS.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    me = OURS.issue_cert("me@example.org")
    me.private_key_pem.write_to_path(folder / "me.key")
    for blob in me.cert_chain_pems:
        blob.write_to_path(folder / "me.pem", append=True)
    return folder


@contextmanager
def encrypted(http: bool, mutual: bool = False, name: str = "127.0.0.1") -> Iterator[str]:
    """The address of a server with a certificate of ours for `name`; if `mutual`, it wants to see one too."""
    certificate = OURS.issue_cert(name)
    if http:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        if mutual:
            OURS.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        serving = running_http(FakeServer(), context)
    else:
        pair = (certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        serving = running(FakeServer(), grpc.ssl_server_credentials([pair], OURS.cert_pem.bytes(), mutual))
    with serving as fake:
        yield fake.url


@pytest.mark.parametrize("http", [False, True])
@pytest.mark.parametrize("connect", [Client, Awaited])
def test_trusted_servers_answer(files: Path, http: bool, connect: type[Client]) -> None:
    tls = Tls(files / "ca.pem", files / "me.pem", files / "me.key")
    for mutual, given in [(False, Tls(files / "ca.pem")), (True, tls)]:
        with encrypted(http, mutual) as url, connect(url, tls=given) as client:
            assert client.ready()
            assert client.ground(b"x", "a")[0].box == box_of(0)


def refusal(url: str, tls: Tls | None) -> str:
    """What is said when `url` is asked in vain."""
    with Client(url, 5, tls) as client, pytest.raises(Unreachable) as caught:
        client.ground(b"x", "a")
    return str(caught.value)


@pytest.mark.parametrize("http", [False, True])
def test_others_are_not_trusted(files: Path, http: bool) -> None:
    with encrypted(http) as url:
        assert "issuer certificate" in refusal(url, None)
        assert "issuer certificate" in refusal(url, Tls(files / "stranger.pem"))
        assert refusal(url.replace("grpcs", "grpc").replace("https", "http"), None)
    with encrypted(http, name="gin.example.org") as url:
        assert "has the name in it" in refusal(url, Tls(files / "ca.pem"))


@pytest.mark.parametrize("http", [False, True])
def test_strangers_are_not_let_in(files: Path, http: bool) -> None:
    with encrypted(http, mutual=True) as url:
        assert "client certificate" in refusal(url, Tls(files / "ca.pem"))


def test_a_server_without_tls_may_be_meant(files: Path) -> None:
    """Triton's HTTP port hangs up on who greets it in TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(3):  # tries
                listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        assert "see whether it speaks TLS there" in refusal(url, Tls(files / "ca.pem"))


@pytest.mark.parametrize("http", [False, True])
def test_the_command_says_it_in_one_line(files: Path, http: bool, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "x.jpg").write_bytes(b"x")
    with encrypted(http, mutual=True) as url:
        words = [str(files / "x.jpg"), "a", "--url", url]
        mine = ["--ca", str(files / "ca.pem"), "--certificate", str(files / "me.pem"), "--key", str(files / "me.key")]
        assert cli.main([*words, *mine]) == 0
        capsys.readouterr()
        assert cli.main([*words, "--ca", str(files / "stranger.pem")]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "certificate" in err


def test_certificates_are_not_taken_for_what_they_are_not(files: Path) -> None:
    with pytest.raises(ValueError, match="not encrypted"):
        Client("grpc://localhost:8001", tls=Tls(files / "ca.pem"))
    with pytest.raises(ValueError, match="no such pair"):
        Tls(files / "ca.pem", files / "ca.pem", files / "me.key")
    with pytest.raises(ValueError, match="go together"):
        Tls(certificate=files / "me.pem")
