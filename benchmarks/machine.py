"""What figures depend on: the machine, the versions, the commit."""

import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

HERE = str(Path(__file__).parent)
if sys.path[0] == HERE:  # where Python looks first, and would take export.py for the package of that name
    sys.path[0] = str(Path(HERE).parent)
    sys.path.append(HERE)


def describe_machine(**versions: str) -> dict[str, Any]:
    """Plain data for a record. versions: of packages besides Python and PyTorch."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "machine": {"cpu": cpu, "cores": torch.get_num_threads(), "gpu": gpu},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **versions},
    }
