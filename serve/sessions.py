"""ONNX Runtime sessions as a Triton configuration asks for them, under the names of NVIDIA's own backend."""

from pathlib import Path
from typing import Any

import onnxruntime

from serve.cores import cores

onnxruntime.disable_telemetry_events()  # a server tells nobody what it does

# All sessions on the CPU share one arena: each alone would keep what the largest batch has ever needed.
onnxruntime.create_and_register_allocator(
    onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    ),
    onnxruntime.OrtArenaCfg({}),
)
SHARED_ARENA = {"session.use_env_allocators": "1"}
SPINNING = {
    # Waiting threads spin as long as the next operator of a run may take to come, for waking one up costs more. Beyond
    # that, or after a run, spinning would take the cores from decoding and from other runs: with one caller this is a
    # fifth faster than none, with many a twentieth slower; the default of a millisecond is a quarter slower.
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "50",
    "session.force_spinning_stop": "1",
}
THREADS = {"intra_op_thread_count": "intra_op_num_threads", "inter_op_thread_count": "inter_op_num_threads"}
LEVELS = {  # of NVIDIA's `optimization { graph { level } }`
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
TENSORRT = {  # parameters of the accelerator, and ONNX Runtime's names for them
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "trt_engine_cache_enable": "trt_engine_cache_enable",
    "trt_engine_cache_path": "trt_engine_cache_path",
}
CUDA = {
    "use_tf32": "0",  # which would be half precision by another name: there are files of half precision
    "cudnn_conv_algo_search": "HEURISTIC",  # the default tries all algorithms at each new shape, up to 600 ms long
}
PRECISIONS = {"FP32": {}, "FP16": {"trt_fp16_enable": "True"}, "INT8": {"trt_int8_enable": "True"}}
TRUTH = {"1": "True", "0": "False"}  # which to ONNX Runtime are no truth values, but to NVIDIA's backend


class CannotOpen(ValueError):
    """A file that does not run as its configuration asks; the message names the file and the cause."""


def open_session(
    path: Path, config: dict[str, Any], device: int | None, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """A session on GPU number `device`, or on the CPU if it is None. config: the model's, as Triton gives it. threads:
    of one operator, where it is not what the configuration says.

    Raises CannotOpen, also where ONNX Runtime would fall back to a slower device without a word.
    """
    if not path.is_file():
        raise CannotOpen(f"{path} does not exist")
    providers = choose_providers(path, config, device)
    if device is not None:
        onnxruntime.preload_dlls()  # finds the CUDA libraries that pip installed; the loader's own paths lack them
    try:
        options = make_options(path, config)
        if threads is not None:
            options.intra_op_num_threads = threads
        # Where a provider fails, now or in a run, the session would be opened anew without it.
        session = onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # the runtime's exceptions share no base but Exception
        raise CannotOpen(f"{path} cannot be opened: {str(error).strip()}") from None
    wanted, running = providers[0][0], session.get_providers()[0]
    if running != wanted:
        raise CannotOpen(
            f"{path} was to run with {wanted} on GPU {device}, but ONNX Runtime chose {running}; "
            "an instance_group of KIND_CPU in its configuration would allow that"
            if wanted != "TensorrtExecutionProvider"
            else f"{path} was to run with {wanted}, but ONNX Runtime chose {running}; are TensorRT's libraries there?"
        )
    return session


def make_options(path: Path, config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """Thread counts and optimization level. Raises CannotOpen."""
    options = onnxruntime.SessionOptions()
    # ONNX Runtime's own would be pinned to cores, and whoever runs on the core of one would wait for it while another
    # core is idle.
    options.intra_op_num_threads = cores()
    for name, value in (SPINNING | SHARED_ARENA).items():
        options.add_session_config_entry(name, value)
    for name, attribute in THREADS.items():
        if threads := thread_count(path, config, name):
            setattr(options, attribute, threads)
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    if level not in LEVELS:
        raise CannotOpen(f"the configuration of {path} has optimization level {level}; known: -1, 0, 1, 2")
    options.graph_optimization_level = LEVELS[level]
    return options


def thread_count(path: Path, config: dict[str, Any], name: str) -> int:
    """A configured number of threads; 0 where it is left to the runtime. Raises CannotOpen."""
    value = parameter(config, name, "0")
    if not value.isdecimal():
        raise CannotOpen(f"the configuration of {path} has {name} {value!r}, which is no number")
    return int(value)


def choose_providers(path: Path, config: dict[str, Any], device: int | None) -> list[tuple[str, dict[str, str]]]:
    """ONNX Runtime's execution providers with their options, the wanted one first. Raises CannotOpen."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    wanted = accelerators.get("gpu_execution_accelerator", []) if device is not None else []
    unknown = [entry["name"] for entry in accelerators.get("cpu_execution_accelerator", [])]
    unknown += [entry["name"] for entry in wanted if entry["name"] != "tensorrt"]
    if unknown:
        raise CannotOpen(
            f"the configuration of {path} asks for the accelerator {unknown[0]!r}; known: tensorrt, on GPUs"
        )
    providers: list[tuple[str, dict[str, str]]] = []
    for entry in wanted:
        given = dict(entry.get("parameters", {}))
        precision = given.pop("precision_mode", "FP32")
        if precision not in PRECISIONS or not set(given) <= set(TENSORRT):
            raise CannotOpen(
                f"the configuration of {path} gives tensorrt {entry['parameters']}; known: precision_mode "
                f"({', '.join(PRECISIONS)}), {', '.join(TENSORRT)}"
            )
        options = {TENSORRT[name]: value for name, value in given.items()} | PRECISIONS[precision]
        options |= {name: TRUTH.get(value, value) for name, value in options.items() if name.endswith("_enable")}
        providers.append(("TensorrtExecutionProvider", {"device_id": str(device), **options}))
    if device is not None:
        providers.append(("CUDAExecutionProvider", {"device_id": str(device), **CUDA}))
    return [*providers, ("CPUExecutionProvider", {})]


def parameter(config: dict[str, Any], name: str, default: str = "") -> str:
    """A parameter of a configuration."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value") or default)
