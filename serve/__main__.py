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
PORTS = (
    ("grpc", 8001, "port that clients ask over gRPC"),
    ("http", 8000, "port that clients ask over HTTP"),
    ("metrics", 8002, "port of Triton's and the models' metrics, for Prometheus"),
    ("health", 8003, "port of /ready, /live and the supervisor's own /metrics"),
)
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a closed terminal


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End the server, once: a second Ctrl-C must not interrupt the cleaning up."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m serve", description="Serve the model repository with Triton.")
    models = "Triton model repository: the folder with the models (default: %(default)s)"
    parser.add_argument("--repository", type=Path, default=DEFAULT, metavar="DIR", help=models)
    address = "IPv4 address that gRPC and HTTP listen on; 0.0.0.0: all of this machine's (default: %(default)s)"
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help=address)
    port = "{} (default: %(default)s; 0: a free one)"
    for name, default, what in PORTS:
        parser.add_argument(f"--{name}-port", type=int, default=default, metavar="P", help=port.format(what))
    which = "IPv4 address that the metrics' and the health port listen on (default: %(default)s)"
    parser.add_argument("--metrics-host", default="127.0.0.1", metavar="H", help=which)
    newest = "start nothing: have the server that runs at --grpc-port load the newest versions of its models"
    parser.add_argument("--reload", action="store_true", help=newest)
    safety = parser.add_argument_group("safety (docs/operating.md)")
    safety.add_argument("--tls-certificate", type=Path, metavar="PEM", help="encrypt gRPC with this certificate")
    safety.add_argument("--tls-key", type=Path, metavar="PEM", help="the private key of --tls-certificate")
    authority = "take only clients with a certificate that one of this file's authorities signed"
    safety.add_argument("--tls-client-ca", type=Path, metavar="PEM", help=authority)
    safety.add_argument("--insecure", action="store_true", help="listen beyond this machine without encryption")
    key = f"file with the key that administrators send (default: from {ADMIN_KEY}, or made up at each start)"
    safety.add_argument("--admin-key-file", type=Path, metavar="FILE", help=key)
    opened = f"let everybody use this without the key, one of {', '.join(PROTOCOLS)}; may be given more than once"
    safety.add_argument("--unrestricted", action="append", default=[], metavar="PROTOCOL", help=opened)
    seeing = parser.add_argument_group("seeing what it does")
    seeing.add_argument("--verbose", action="store_true", help="show all of Triton's log, not only warnings and errors")
    seeing.add_argument("--json-log", action="store_true", help="log one JSON object a line")
    traces = "send OpenTelemetry traces to this collector (OTLP over HTTP), such as http://127.0.0.1:4318/v1/traces"
    seeing.add_argument("--trace-url", default="", metavar="URL", help=traces)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    for name, _, _ in PORTS:
        if not 0 <= (port := getattr(arguments, f"{name}_port")) <= 65_535:
            parser.error(f"--{name}-port is {port}; ports are 0 to 65535")
    log = Log(arguments.json_log)
    try:
        return _reload(arguments, log) if arguments.reload else _serve(arguments, log)
    except KeyboardInterrupt:
        if not arguments.reload:
            return 0  # so a server is ended
        log.event("warning", "interrupted; the server may go on loading")
        return 130
    except (RepositoryError, TritonMissing, ServerError, OSError) as error:
        log.event("fatal", str(error))
        return 2 if isinstance(error, (RepositoryError, TritonMissing, PortInUse, Refused)) else 1


def _serve(arguments: argparse.Namespace, log: Log) -> int:
    for number in _STOPPING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # ignored: started by nohup
            signal.signal(number, _stop)
    health = Health()
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
            reason = getattr(error, "strerror", error)
            raise Refused(f"the key's file {arguments.admin_key_file} cannot be read: {reason}") from None
    return Access(
        certificate=arguments.tls_certificate,
        private_key=arguments.tls_key,
        client_authority=arguments.tls_client_ca,
        unrestricted=tuple(arguments.unrestricted),
        insecure=arguments.insecure,
        **({"admin_key": key} if key or arguments.admin_key_file else {}),
    )


def _reload(arguments: argparse.Namespace, log: Log) -> int:
    reloaded = reload(arguments.grpc_port)
    print("serving " + ", ".join(f"{name} version {version}" for name, version in sorted(reloaded.versions.items())))
    for reason in reloaded.refused.values():
        log.event("error", f"not served: {reason}")
    return 1 if reloaded.refused else 0


if __name__ == "__main__":
    sys.exit(main())
