"""Threads follow what the process may use, not what the machine has."""

import os
from pathlib import Path

import pytest

import serve.cores
from serve.cores import cores


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four processors whose files are in a folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(serve.cores, "CPUS", tmp_path / "cpus")
    monkeypatch.setattr(serve.cores, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(serve.cores, "OWN_GROUP", tmp_path / "own")
    return tmp_path


def test_no_limit() -> None:
    """Where nothing can be read, all that the process may run on."""
    assert cores() == 4


def test_hyper_threads_count_once(machine: Path) -> None:
    """Two processors of one core are one."""
    for number, siblings in enumerate(("0,2", "1", "0,2", "3")):
        topology = machine / f"cpus/cpu{number}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{siblings}\n")
    assert cores() == 3


@pytest.mark.parametrize(
    ("inner", "outer", "granted"),
    [
        ("200000 100000", None, 2),
        ("150000 100000", None, 2),
        ("10000 100000", None, 1),
        ("max 100000", None, 4),
        ("max 100000", "300000 100000", 3),
        ("100000 100000", "300000 100000", 1),
        ("6400000 100000", None, 4),
    ],
)
def test_quota(machine: Path, inner: str, outer: str | None, granted: int) -> None:
    """A container's limit, or that of a group around it, rounded up."""
    group = machine / "groups/system.slice/gin.service"
    group.mkdir(parents=True)
    (machine / "own").write_text("4:memory:/elsewhere\n0::/system.slice/gin.service\n")
    (group / "cpu.max").write_text(f"{inner}\n")
    if outer:
        (group.parent / "cpu.max").write_text(f"{outer}\n")
    assert cores() == granted


def test_a_container_sees_its_group_as_the_outermost(machine: Path) -> None:
    """As inside Docker and Kubernetes."""
    (machine / "groups").mkdir()
    (machine / "own").write_text("0::/\n")
    (machine / "groups/cpu.max").write_text("50000 25000\n")
    assert cores() == 2


def test_first_version(machine: Path) -> None:
    """Control groups of version 1 alone tell nothing here."""
    (machine / "own").write_text("4:cpu:/limited\n")
    assert cores() == 4
