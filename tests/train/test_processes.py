"""Ranks that find each other: on one machine in private, and from two launches as on two machines."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.train.ranks import ON_THE_CPU, server
from tests.train.runs import arguments
from train.processes import process_group, start_process_group

ROOT = Path(__file__).parents[2]
LISTENERS = """
import os, sys
from pathlib import Path
import torch.distributed as dist
from train.processes import start_process_group

start_process_group(60)
dist.barrier()
files = [file for pid in (os.getpid(), os.getppid()) for file in Path(f"/proc/{pid}/fd").iterdir()]
own = {os.readlink(file) for file in files if file.is_symlink()}
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
            print("listens", fields[1].split(":")[0], flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def environment(**more: str) -> dict[str, str]:
    """Of a started process."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | ON_THE_CPU | more


@pytest.mark.parametrize("processes", [1, 2])
def test_one_machine_listens_on_loopback_alone(tmp_path: Path, processes: int) -> None:
    """Started as docs/training.md says, neither ranks nor launcher can be reached from outside."""
    (tmp_path / "listeners.py").write_text(LISTENERS)
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--rdzv-backend=c10d", f"--rdzv-endpoint={tmp_path / 'meeting'}"]
        launcher += ["--rdzv-conf=store_type=file", f"--nproc_per_node={processes}"]
        launcher += ["--local-addr=127.0.1.1"]  # what a machine's name means under Debian
    done = subprocess.run(
        [*launcher, str(tmp_path / "listeners.py")], capture_output=True, text=True, check=False, timeout=120,
        env=environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listening = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("listens")]
    assert listening
    assert set(listening) == {"0100007F"}  # 127.0.0.1, as the kernel writes it


def test_two_nodes(tmp_path: Path) -> None:
    """Two launches of one process each meet and train one run, as on two machines."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv-id=test"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "-m", "train.run"]
    command += arguments(tmp_path / "scenes", tmp_path / "run", "optim.epochs=1")
    nodes = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(GLOO_SOCKET_IFNAME="lo"),
        )
        for _ in range(2)
    ]  # fmt: skip
    results = [node.communicate(timeout=180) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], results
    assert "".join(out for out, _ in results).count("epoch 1:") == 1
    last = torch.load(tmp_path / "run" / "last.pth", weights_only=True)
    assert last["training"]["epoch"] == 1


def meet(**variables: str) -> None:
    """A rank that torchrun started, which ends once it has met the others."""
    os.environ.update(variables)
    start_process_group(20)
    dist.barrier()
    dist.destroy_process_group()


def test_nodes_that_count_restarts_differently() -> None:
    """Ranks meet again in torchrun's store after a restart that only one node's own ranks failed for."""
    kept = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    same = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(kept.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    same |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"} | ON_THE_CPU
    for restarts in ("00", "01"):
        ranks = [
            server.Process(target=meet, kwargs=same | {"RANK": str(rank), "TORCHELASTIC_RESTART_COUNT": count})
            for rank, count in enumerate(restarts)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        assert [process.exitcode for process in ranks] == [0, 0]


def test_parting(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error a rank first breaks off what others may be waiting in, where NCCL would wait for them in turn."""
    parted: list[str] = []
    destroy = dist.destroy_process_group
    monkeypatch.setattr(dist.ProcessGroup, "abort", lambda _: parted.append("abort"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: (parted.append("destroy"), destroy()))
    with process_group(20):
        pass
    assert parted == ["destroy"]
    with pytest.raises(MemoryError), process_group(20):
        raise MemoryError
    assert parted == ["destroy", "abort", "destroy"]
    assert not dist.is_initialized()
