"""Who may ask a server what: encryption, the administrator's key, and what is refused because it would expose it."""

import contextlib
import secrets
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from serve.errors import Refused
from serve.ports import is_loopback

PROTOCOLS = (
    "model-repository",
    "shared-memory",
    "logging",
    "trace",
    "statistics",
)  # what only an administrator may use
HEADER = "admin"  # over HTTP; over gRPC Triton puts `triton-grpc-protocol-` before it
KEY_LENGTH = 16  # characters, at least


@dataclass(frozen=True)
class Access:
    """Plain settings; `check` judges them.

    certificate, private_key: PEM files for TLS over gRPC. client_authority: PEM file with the authorities that must
    have signed a client's certificate. admin_key: opens `PROTOCOLS` to those who send it, made up if none is given.
    unrestricted: those of `PROTOCOLS` that need no key. insecure: listen beyond this machine without encryption.
    """

    certificate: Path | None = None
    private_key: Path | None = None
    client_authority: Path | None = None
    admin_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    unrestricted: tuple[str, ...] = ()
    insecure: bool = False

    @property
    def restricted(self) -> tuple[str, ...]:
        """The protocols that need the key."""
        return tuple(name for name in PROTOCOLS if name not in self.unrestricted)

    @property
    def headers(self) -> dict[str, str]:
        """What an administrator sends over HTTP."""
        return {HEADER: self.admin_key}

    def check(self, host: str) -> None:
        """Raise Refused for settings that cannot work, or that would expose a server that listens on `host`."""
        if unknown := set(self.unrestricted) - set(PROTOCOLS):
            raise Refused(f"there is no protocol {min(unknown)!r} to open; there are {', '.join(PROTOCOLS)}")
        plain = self.admin_key.isascii() and self.admin_key.isprintable()
        if len(self.admin_key) < KEY_LENGTH or not plain or set(self.admin_key) & set(" :;,="):
            raise Refused(f"the administrator's key must have {KEY_LENGTH} or more letters and digits")
        if (self.certificate is None) != (self.private_key is None):
            raise Refused("TLS needs both a certificate and its private key")
        if self.client_authority and not self.certificate:
            raise Refused("clients can be asked for certificates only with TLS: give a certificate and its key too")
        self._check_files()
        if not is_loopback(host) and not self.certificate and not self.insecure:
            raise Refused(
                f"{host} is reachable from other machines and nothing would be encrypted: give a certificate and its "
                "key, or say --insecure where a proxy in front encrypts or the network is trusted"
            )

    def _check_files(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.certificate and self.private_key:
            with _refusing("these files are no certificate with its key", self.certificate, self.private_key):
                context.load_cert_chain(self.certificate, self.private_key, password=self._refuse_passphrase)
        if self.client_authority:
            with _refusing("this file is no authority's certificate", self.client_authority):
                context.load_verify_locations(self.client_authority)

    def _refuse_passphrase(self) -> NoReturn:
        raise Refused(
            f"{self.private_key} is encrypted, and nobody is there to be asked for a passphrase whenever the server "
            "starts: give it decrypted, as `openssl pkey -in KEY -out FILE` writes it"
        )

    def grpc_flags(self) -> list[str]:
        """Triton's flags for encryption."""
        if not (self.certificate and self.private_key):  # `check` has refused one without the other
            return []
        flags = [f"--grpc-server-cert={self.certificate.resolve()}", f"--grpc-server-key={self.private_key.resolve()}"]
        if self.client_authority:
            return ["--grpc-use-ssl-mutual=true", *flags, f"--grpc-root-cert={self.client_authority.resolve()}"]
        return ["--grpc-use-ssl=true", *flags]

    def key_flags(self) -> list[str]:
        """Triton's flags for what needs the key."""
        names = ",".join(self.restricted)
        if not names:
            return []
        rule = f"{names}:{HEADER}={self.admin_key}"
        return [f"--grpc-restricted-protocol={rule}", f"--http-restricted-api={rule}"]


@contextlib.contextmanager
def _refusing(what: str, *files: Path) -> Iterator[None]:
    """Raises Refused for files that cannot be loaded inside, in the words of `what`."""
    try:
        yield
    except OSError as error:  # ssl.SSLError is one, and names no file
        for path in files:
            if not path.is_file():
                raise Refused(f"there is no file {path}, which TLS was to use") from None
        why = getattr(error, "reason", None) or error.strerror or error
        raise Refused(f"{what}: {', '.join(map(str, files))} ({why})") from None
