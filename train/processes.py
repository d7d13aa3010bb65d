"""The ranks of a run: joining them and finding each one's device."""

import contextlib
import datetime
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Result = TypeVar("Result")
LOOPBACK = "127.0.0.1"


def start_process_group(timeout: float) -> torch.device:
    """Join the ranks that torchrun started (or be the only one) and take this rank's device.

    timeout: seconds after which waiting for another rank is an error, so that a hung rank ends the job. Ranks of one
    machine talk over the loopback interface, unless GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME name another.
    """
    if _one_machine():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend, pinned = ("nccl", device) if on_gpu else ("gloo", None)
    limit = datetime.timedelta(seconds=timeout)
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    dist.init_process_group(
        backend, device_id=pinned, timeout=limit, rank=rank, world_size=ranks, store=_meet(rank, ranks, limit)
    )
    return device


@contextlib.contextmanager
def process_group(timeout: float) -> Iterator[torch.device]:
    """As `start_process_group`, and part from the others in the end; after an error at once, whatever they are at."""
    device = start_process_group(timeout)
    try:
        yield device
    except BaseException:
        # or NCCL waits below until all ranks part, and those may be waiting for this one
        dist.group.WORLD.abort()  # type: ignore[union-attr]
        raise
    finally:
        dist.destroy_process_group()


def by_first_rank(work: Callable[[], Result]) -> Result:
    """What the work gives, done by the first rank alone and told to all. The ValueError or OSError that it raises is
    raised on every rank."""
    told: list[Any] = [None]
    if not dist.is_initialized() or dist.get_rank() == 0:
        try:
            told = [work()]
        except (ValueError, OSError) as error:
            told = [error]
    if dist.is_initialized():
        dist.broadcast_object_list(told)
    if isinstance(told[0], Exception):
        if dist.is_initialized():
            dist.barrier()  # nobody parts from the others before they have heard it
        raise told[0]
    return told[0]


def launch_store() -> dist.Store | None:
    """torchrun's store, in which a rank finds what was written before a restart of this launch; None without one."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return dist.PrefixStore("launch", store)


def _meet(rank: int, ranks: int, timeout: datetime.timedelta) -> dist.Store:
    """Where the ranks find each other: torchrun's store, or one that the first rank offers, to this machine alone
    where all ranks are on it."""
    if "RANK" not in os.environ:
        return dist.HashStore()
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        store = dist.TCPStore(host, port, ranks, is_master=False, timeout=timeout)
        return dist.PrefixStore(_name_this_start(dist.PrefixStore("starts", store), rank, ranks, timeout), store)
    if not _one_machine():
        return dist.TCPStore(host, port, ranks, is_master=rank == 0, timeout=timeout)
    if rank > 0:  # MASTER_ADDR is this machine's name, which as a rule means another address
        return dist.TCPStore(LOOPBACK, port, ranks, is_master=False, timeout=timeout)
    listener = socket.create_server((LOOPBACK, port)).detach()
    return dist.TCPStore(
        LOOPBACK, port, ranks, is_master=True, timeout=timeout, master_listen_fd=listener, use_libuv=False
    )


def _name_this_start(store: dist.Store, rank: int, ranks: int, timeout: datetime.timedelta) -> str:
    """A name that no start before had, thought of by the first rank. Raises TimeoutError.

    torchrun's store outlives a restart, and with it the addresses of the ranks before. TORCHELASTIC_RESTART_COUNT does
    not tell starts apart: a node counts only the failures of its own ranks, not the restarts that another's bring.
    Since what was asked and answered before is still there too, every rank asks with a word of its own.
    """
    if rank > 0:
        word = uuid.uuid4().hex
        store.set(f"asked by {rank}", word)
        name = store.get(f"answer to {word}").decode()
        store.set(f"{name} is known to {rank}", "")
        return name
    name = uuid.uuid4().hex
    deadline = time.monotonic() + timeout.total_seconds()
    for other in range(1, ranks):
        while not store.check([f"{name} is known to {other}"]):
            word = store.get(f"asked by {other}").decode()  # by the rank of this start, or of one before
            store.set(f"answer to {word}", name)
            if time.monotonic() > deadline:
                raise TimeoutError(f"rank {other} did not come within {timeout.total_seconds():g} seconds")
            time.sleep(0.05)
    return name


def _one_machine() -> bool:
    return os.environ.get("LOCAL_WORLD_SIZE", "1") == os.environ.get("WORLD_SIZE", "1")
