"""One run at a time in a folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from train import run
from train.claim import claimed

# Holds the folder, and forks a process that outlives it.
HOLDER = """
import os, sys, time
from pathlib import Path
from train.claim import claimed
with claimed(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_another_process_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who comes second is told; when the first is killed, the folder is free though what it forked lives on."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            for resume in ("true", "false"):
                assert run.main([f"out={tmp_path / 'run'}", f"resume={resume}"]) == 2
                message = f"another process trains into {tmp_path / 'run'}; out=DIR begins another run"
                assert capsys.readouterr().err.endswith(f"python -m train.run: {message}\n")
        finally:
            holder.kill()
            holder.wait()
        with claimed(tmp_path / "run"):
            os.kill(child, signal.SIGKILL)
