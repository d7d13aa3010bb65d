"""The settings that a server's safety depends on, one line each, as they are and not as they were meant."""

import os
import re
import shutil
from collections.abc import Iterator

from serve import triton
from serve.access import PROTOCOLS
from serve.ports import is_loopback
from serve.server import Server

SAFE = "26.07"  # the oldest image of NVIDIA's without a known hole of high severity
SHARED_MEMORY = 256 * 2**20  # bytes that requests of 32 MiB on their way between processes need
_QUEUE = re.compile(r'max_queue_size:\s*(\d+)|key:\s*"waiting_requests"\s*value\s*\{\s*string_value:\s*"(\d+)"')


def describe(server: Server) -> Iterator[str]:
    """What to print before a server starts."""
    access, where = server.access, "this machine only" if is_loopback(server.host) else "OTHER MACHINES TOO"
    if access.client_authority:
        encrypted = f"TLS; clients need a certificate signed by {access.client_authority}"
    else:
        encrypted = "TLS" if access.certificate else "not encrypted"
    yield f"gRPC: {server.host}:{server.grpc_port}, {where}, {encrypted}, messages up to 2 GiB (limit them in a proxy)"
    http = "this machine only" if is_loopback(server.http_host) else "OTHER MACHINES TOO"
    yield f"HTTP: {server.http_host}:{server.http_port}, {http}, not encrypted (Triton has no TLS for it)"
    metrics = "this machine only" if is_loopback(server.metrics_host) else "OTHER MACHINES TOO"
    yield f"metrics and health: {server.metrics_host}, {metrics}, not encrypted"
    yield f"only with the administrator's key: {', '.join(access.restricted) or 'nothing'}"
    if opened := [name for name in PROTOCOLS if name in access.unrestricted]:
        yield f"OPEN TO EVERYBODY: {', '.join(opened)}"
    yield f"queues: {_queues(server)}"
    root = "ROOT, which a server on a network should not be" if os.getuid() == 0 else str(os.getuid())
    yield f"user: {root}"
    yield f"repository: {server.repository}, {'writable' if os.access(server.repository, os.W_OK) else 'read-only'}"
    free = shutil.disk_usage("/dev/shm").free
    yield f"shared memory: {free >> 20} MiB free{'' if free >= SHARED_MEMORY else ', TOO LITTLE FOR LARGE IMAGES'}"
    known = "of NVIDIA's image" if triton.package() == triton.IMAGE else "2.51 (24.10) of the wheel"
    yield f"server: {known}; on networks that are not trusted use NVIDIA's image {SAFE} or later"


def _queues(server: Server) -> str:
    """How many requests wait for each model at most, from the configurations."""
    found = []
    for name in server.selection.load:
        text = re.sub(r"#.*", "", (server.repository / name / "config.pbtxt").read_text(encoding="utf-8"))
        if "ensemble" not in text:
            size = _QUEUE.search(text)
            most = int(size[1] or size[2]) if size else 0
            found.append(f"{name} {f'{most} requests' if most else 'NO LIMIT'}")
    return "; ".join(found)
