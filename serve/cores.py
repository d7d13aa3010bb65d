"""How many threads this process can keep busy: libraries count the machine's cores, whatever a container may use."""

import math
import os
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")  # control groups, version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html


def cores() -> int:
    """Cores that this process may use, hyper-threads of one core counted once, at most its quota of time, rounded up:
    threads beyond it would all be stopped together once the quota is spent."""
    usable = os.sched_getaffinity(0)
    try:
        number = len({(CPUS / f"cpu{number}/topology/thread_siblings_list").read_text() for number in usable})
    except OSError:  # a sandbox without it
        number = len(usable)
    return min([number, *map(math.ceil, _quotas())])


def _quotas() -> list[float]:
    """Cores' worth of time that the process's control group and those around it grant, where they limit it: what
    Kubernetes and Docker call a limit, systemd CPUQuota."""
    try:
        own = next(line for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::/"))
    except (OSError, StopIteration):  # no Linux with version 2
        return []
    quotas = []
    group = GROUPS / own.removeprefix("0::/")
    for folder in (group, *group.parents):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except OSError:  # the outermost group has none
            continue
        if quota != "max":
            quotas.append(int(quota) / int(period))
    return quotas
