"""The Triton server program, of NVIDIA's image or of `pip install nvidia-pytriton`, and what it needs around it."""

import importlib.util
import os
import shutil
import site
import sys
import sysconfig
from pathlib import Path

IMAGE = Path("/opt/tritonserver")  # where NVIDIA's image has the server and all backends
ROOT = Path(__file__).resolve().parent.parent
BACKENDS = Path(__file__).resolve().parent / "backends"
# Blocks of so many bytes go back to the system when they are freed. Features and pictures live and die on different
# threads, and glibc's heaps, one for each thread, would keep their gaps: 100 MiB in a few minutes of load.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}


class TritonMissing(RuntimeError):
    """The server program is not installed, or not for this Python; the message says what to do."""


def package() -> Path:
    """The folder with the server: the image's, or the wheel's, found without importing it."""
    if (IMAGE / "bin" / "tritonserver").is_file():
        return IMAGE
    spec = importlib.util.find_spec("pytriton")
    folder = Path(spec.origin).parent / "tritonserver" if spec is not None and spec.origin else None
    if folder is None or not (folder / "bin" / "tritonserver").is_file():
        raise TritonMissing("the Triton server is not installed; run `pip install nvidia-pytriton==0.7.0`")
    return folder


def program() -> Path:
    """The server program."""
    return package() / "bin" / "tritonserver"


def build_backends(folder: Path) -> Path:
    """The backend directory: the image's, or `folder`, filled with Triton's `python` and this project's own.

    The stub in it is the one of this interpreter.
    """
    if package() == IMAGE:
        return IMAGE / "backends"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = package() / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise TritonMissing(f"the installed Triton server has no Python backend for Python {version}")
    shutil.copytree(package() / "backends" / "python", folder / "python")
    shutil.copy2(stub, folder / "python")
    for backend in BACKENDS.iterdir():
        if (backend / "model.py").is_file():
            shutil.copytree(backend, folder / backend.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def backend_names() -> set[str]:
    """The backends that `build_backends` provides."""
    if package() == IMAGE:
        return {backend.name for backend in (IMAGE / "backends").iterdir()}
    return {"python"} | {backend.name for backend in BACKENDS.iterdir() if (backend / "model.py").is_file()}


def environment() -> dict[str, str]:
    """Environment of the server: how memory is given back, where the loader finds libpython and the wheel's libraries,
    and Python its packages. What the user has set for the allocator stays.

    The server embeds the base interpreter, so a virtual environment's packages must be named. The image's server has
    all it needs.
    """
    if package() == IMAGE:
        return MALLOC | os.environ
    libraries = [sysconfig.get_config_var("LIBDIR"), str(package().parent.parent / "nvidia_pytriton.libs")]
    libraries += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    packages = [str(ROOT), *site.getsitepackages(), *filter(None, [os.environ.get("PYTHONPATH")])]
    places = {"LD_LIBRARY_PATH": os.pathsep.join(libraries), "PYTHONPATH": os.pathsep.join(packages)}
    return MALLOC | os.environ | places
