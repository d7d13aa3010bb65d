"""Where the server is and how to speak to it: HOST:PORT, grpc://, grpcs://, http:// or https://."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

DEFAULT_URL = "127.0.0.1:8001"

_ADDRESS = re.compile(r"(?:(grpcs?|https?)://)?(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(\d{1,5})/?")
_GRPC_TARGETS = ("dns:", "ipv4:", "ipv6:", "unix:")


@dataclass(frozen=True)
class Tls:
    """Files in PEM form for an encrypted connection; raises ValueError for those that cannot be used.

    ca: the authorities to trust, instead of the well-known ones. certificate and key: who the client is, for servers
    that want to know (mutual TLS).
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate and its key go together: give both or neither")
        self.context()

    def context(self) -> ssl.SSLContext:
        """What Python's own TLS needs."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise ValueError(
                f"cannot use {str(self.ca)!r} as authority: {_reason(error, 'no certificates in PEM form')}"
            ) from None
        if self.certificate is not None and self.key is not None:
            try:
                # A key under a passphrase would be asked for on the terminal.
                context.load_cert_chain(self.certificate, self.key, password="")
            except OSError as error:
                files = f"{str(self.certificate)!r} and {str(self.key)!r}"
                raise ValueError(
                    f"cannot use {files} as certificate and key: {_reason(error, 'no such pair in PEM form')}"
                ) from None
        return context


@dataclass(frozen=True)
class Address:
    """text: as it was given. target: HOST:PORT or what gRPC itself resolves. tls: None if nothing is encrypted."""

    text: str
    target: str
    http: bool
    tls: Tls | None

    @classmethod
    def parse(cls, text: str, tls: Tls | None = None) -> "Address":
        """Read an address; raises ValueError if it is none, or if it is one in the clear and `tls` is given."""
        if text.startswith(_GRPC_TARGETS):
            return cls(text, text, http=False, tls=tls)
        match = _ADDRESS.fullmatch(text)
        if match is None or not 0 < int(match[3]) < 65536:
            raise ValueError(f"expected an address such as {DEFAULT_URL} or http://HOST:PORT, got {text!r}")
        scheme, target = match[1] or "grpc", f"{match[2]}:{match[3]}"
        if tls is not None and not scheme.endswith("s"):
            raise ValueError(f"{text!r} is not encrypted: certificates need grpcs:// or https://")
        if scheme.endswith("s"):
            tls = tls or Tls()
        return cls(text, target, http=scheme.startswith("http"), tls=tls)


def _reason(error: OSError, otherwise: str) -> str:
    return otherwise if isinstance(error, ssl.SSLError) else error.strerror or otherwise
