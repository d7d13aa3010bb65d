"""`python -m serve`: a Triton server on the model repository, watched and kept answering, until Ctrl-C."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from serve.access import PROTOCOLS, Access
from serve.errors import PortInUse, Refused, ServerError
from serve.health import Endpoint, Health
from serve.log import Log
from serve.ports import numeric, reachable
from serve.reload import reload
from serve.repository import DEFAULT, SERVED, RepositoryError
from serve.selfcheck import describe
from serve.server import Server
from serve.supervisor import Supervisor
from serve.triton import TritonMissing

ADMIN_KEY = "GIN_ADMIN_KEY"  # environment variable
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a closed terminal


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End the server, once: a second Ctrl-C must not interrupt the cleaning up."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m serve", description="Serve the model repository with Triton.")
    parser.add_argument("--repository", type=Path, default=DEFAULT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="IPv4 address (default: %(default)s)")
    parser.add_argument("--grpc-port", type=int, default=8001, metavar="P", help="default: %(default)s; 0 picks one")
    parser.add_argument("--http-port", type=int, default=8000, metavar="P", help="default: %(default)s")
    parser.add_argument("--metrics-port", type=int, default=8002, metavar="P", help="default: %(default)s")
    parser.add_argument("--health-port", type=int, default=8003, metavar="P", help="default: %(default)s")
    which = "IPv4 address of the metrics' and the health port (default: %(default)s)"
    parser.add_argument("--metrics-host", default="127.0.0.1", metavar="H", help=which)
    parser.add_argument("--reload", action="store_true", help="have the server on --grpc-port load the newest versions")
    safety = parser.add_argument_group("safety (docs/operating.md)")
    safety.add_argument("--tls-certificate", type=Path, metavar="PEM", help="encrypt gRPC")
    safety.add_argument("--tls-key", type=Path, metavar="PEM", help="the certificate's private key")
    safety.add_argument("--tls-client-ca", type=Path, metavar="PEM", help="ask clients for certificates signed by this")
    safety.add_argument("--insecure", action="store_true", help="listen beyond this machine without encryption")
    key = f"file with the administrator's key (default: from {ADMIN_KEY}, or a new one)"
    safety.add_argument("--admin-key-file", type=Path, metavar="FILE", help=key)
    opened = f"open to everybody, more than once: {', '.join(PROTOCOLS)}"
    safety.add_argument("--unrestricted", action="append", default=[], metavar="PROTOCOL", help=opened)
    seeing = parser.add_argument_group("seeing what it does")
    seeing.add_argument("--verbose", action="store_true", help="show the server's log")
    seeing.add_argument("--json-log", action="store_true", help="log one JSON object a line")
    seeing.add_argument(
        "--trace-url", default="", metavar="URL", help="send OpenTelemetry traces there (OTLP over HTTP)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    for name in ("grpc_port", "http_port", "metrics_port", "health_port"):
        if not 0 <= getattr(arguments, name) <= 65_535:
            parser.error(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; ports are 0 to 65535")
    try:
        return _reload(arguments) if arguments.reload else _serve(arguments)
    except KeyboardInterrupt:
        if not arguments.reload:
            return 0  # so a server is ended
        print("python -m serve: interrupted; the server may go on loading", file=sys.stderr)
        return 130
    except (RepositoryError, TritonMissing, ServerError, OSError) as error:
        if arguments.json_log:
            Log(as_json=True).event("fatal", str(error))
        else:
            print(f"python -m serve: {error}", file=sys.stderr)
        return 2 if isinstance(error, (RepositoryError, TritonMissing, PortInUse, Refused)) else 1


def _serve(arguments: argparse.Namespace) -> int:
    for number in _STOPPING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # ignored: started by nohup
            signal.signal(number, _stop)
    log, health = Log(arguments.json_log), Health()
    with (  # the endpoint first, so that none of the server's ports can be the same
        contextlib.closing(Endpoint(health, numeric(arguments.metrics_host), arguments.health_port)) as endpoint,
        Server(
            arguments.repository,
            arguments.host,
            arguments.grpc_port,
            arguments.http_port,
            arguments.metrics_port,
            arguments.verbose,
            metrics_host=arguments.metrics_host,
            access=_access(arguments),
            trace_url=arguments.trace_url,
            log=log,
        ) as server,
    ):
        for line in describe(server):
            log.event("info", line)
        server.tell_what_is_missing()
        supervisor = Supervisor(server, health)
        supervisor.step()
        scheme = "grpcs" if server.access.certificate else "grpc"
        print(
            f"ready: model {SERVED} at {scheme}://{server.address}:{server.grpc_port}, {server.url}, "
            f"metrics {server.metrics_url}, health http://{reachable(server.metrics_host)}:{endpoint.port}/ready "
            "(Ctrl-C stops)",
            flush=True,
        )
        try:
            supervisor.run()
        finally:
            health.stopping()
    return 0


def _access(arguments: argparse.Namespace) -> Access:
    """Who may do what. Raises Refused."""
    key = os.environ.get(ADMIN_KEY, "")
    if arguments.admin_key_file:
        try:
            key = arguments.admin_key_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise Refused(f"{arguments.admin_key_file} cannot be read: {getattr(error, 'strerror', error)}") from None
    return Access(
        certificate=arguments.tls_certificate,
        private_key=arguments.tls_key,
        client_authority=arguments.tls_client_ca,
        unrestricted=tuple(arguments.unrestricted),
        insecure=arguments.insecure,
        **({"admin_key": key} if key or arguments.admin_key_file else {}),
    )


def _reload(arguments: argparse.Namespace) -> int:
    reloaded = reload(arguments.grpc_port)
    print("serving " + ", ".join(f"{name} version {version}" for name, version in sorted(reloaded.versions.items())))
    for reason in reloaded.refused.values():
        print(f"python -m serve: not served: {reason}", file=sys.stderr)
    return 1 if reloaded.refused else 0


if __name__ == "__main__":
    sys.exit(main())
