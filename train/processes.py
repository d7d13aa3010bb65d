"""The ranks of a run: joining them and finding each one's device."""

import datetime
import os

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous


def start_process_group(timeout: float) -> torch.device:
    """Join the ranks that torchrun started (or be the only one) and take this rank's device.

    timeout: seconds after which waiting for another rank is an error, so that a hung rank ends the job. Ranks of one
    machine talk over the loopback interface, unless GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME name another.
    """
    if os.environ.get("LOCAL_WORLD_SIZE", "1") == os.environ.get("WORLD_SIZE", "1"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend, pinned = ("nccl", device) if on_gpu else ("gloo", None)
    limit = datetime.timedelta(seconds=timeout)
    if "RANK" in os.environ:
        store, rank, ranks = next(rendezvous("env://", timeout=limit))
        # the store outlives a restart by torchrun, and with it the addresses of the ranks before
        store = dist.PrefixStore(f"start{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    else:
        store, rank, ranks = dist.HashStore(), 0, 1
    dist.init_process_group(backend, device_id=pinned, timeout=limit, rank=rank, world_size=ranks, store=store)
    return device
