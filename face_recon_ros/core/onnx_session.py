"""An ONNX file open in ONNX Runtime, on a GPU where there is one."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ConfigError, ModelError, reason
from face_recon_ros.core.onnx_writer import Graph

#: In order of preference. `auto` leaves out TensorRT: it builds an engine, for minutes, whenever
#: the number of faces changes.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
#: Packages that install the module onnxruntime, each over the files of the others.
_BUILDS = ("onnxruntime", "onnxruntime-gpu")
_CHECK_GPU = "nvidia-smi must show a driver for the CUDA of this ONNX Runtime (docs/install.md)"
_missing_libraries: list[str] = []  # of CUDA and cuDNN
_troubles: dict[str, None] = {}  # of all sessions of this process


@functools.cache
def runtime() -> ModuleType:
    """The module onnxruntime, with CUDA and cuDNN of the wheels loaded where there are any.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as fault:
        raise ConfigError(
            "ONNX Runtime",
            str(fault),
            "pip install 'face_recon_ros[cpu]', or [gpu] for NVIDIA GPUs; never both",
        ) from None
    if PROVIDERS["cuda"] in onnxruntime.get_available_providers():
        onnxruntime.set_default_logger_severity(4)  # what does not start is in `trouble`
        if hasattr(onnxruntime, "preload_dlls"):  # 1.21 and newer
            with contextlib.redirect_stdout(io.StringIO()) as told:  # it prints what it misses
                onnxruntime.preload_dlls()
            _missing_libraries.extend(re.findall(r"Failed to load (\S+?):", told.getvalue()))
    module: ModuleType = onnxruntime
    return module


def session_options(threads: int) -> Any:
    """Options of a session: errors alone are logged, and threads that wait do not spin.

    Args:
        threads: of the CPU; 0 takes all cores.
    """
    options = runtime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_on_cpu(path: str | Path, options: Any, what: str) -> Any:
    """A session of a network so small that it always runs on the CPU.

    Raises:
        ModelError: the file is missing or damaged; `what` says what it should be.
    """
    try:
        return runtime().InferenceSession(str(path), options, providers=[PROVIDERS["cpu"]])
    except Exception as fault:  # onnxruntime raises its own, unexported classes
        raise ModelError(f"{what} at {path}", reason(fault), "restore the file") from None


@functools.cache
def clashing_builds() -> str:
    """A warning if more than one build of ONNX Runtime is installed; else empty."""
    found = []
    for name in _BUILDS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(found) < 2:
        return ""
    return (
        f"{' and '.join(found)} are both installed and overwrite each other; "
        f"pip uninstall -y {' '.join(_BUILDS)}, then install one of them again"
    )


def runtime_warnings() -> list[str]:
    """What this process should be told of its ONNX Runtime: see `trouble`, `clashing_builds`."""
    return [*_troubles, *filter(None, [clashing_builds()])]


def choose_providers(provider: str = "auto") -> list[str]:
    """ONNX Runtime providers to try, best first.

    Args:
        provider: `auto` (CUDA where there is one, else the CPU), or `tensorrt`, `cuda`, `cpu` to
            force one.

    Raises:
        ConfigError: unknown, or not in this build of ONNX Runtime.
    """
    if provider not in ("auto", *PROVIDERS):
        raise ConfigError(f"provider auto, {', '.join(PROVIDERS)}", repr(provider), "choose one")
    available = runtime().get_available_providers()
    if provider == "auto":
        automatic = [name for key, name in PROVIDERS.items() if key != "tensorrt"]
        return [name for name in automatic if name in available]
    if PROVIDERS[provider] not in available:
        raise ConfigError(
            f"{PROVIDERS[provider]} in this ONNX Runtime",
            f"{', '.join(available)}",
            "install the group `gpu` in place of `cpu` (docs/install.md), or set provider to auto",
        )
    return [PROVIDERS[provider]]


@functools.cache
def gpu_works(provider: str = "auto") -> bool:
    """Whether a graph of one node starts on a GPU.

    Args:
        provider: see `choose_providers`.
    """
    if choose_providers(provider)[0] == PROVIDERS["cpu"]:
        return False
    graph = Graph({"x": ("N",)}, {"y": ("N",)})
    graph.node("Neg", "x", output="y")
    session = OnnxSession("probe", content=graph.serialised())
    return session.provider != PROVIDERS["cpu"]


class OnnxSession:
    """Runs a network; a GPU that is lost under way hands over to the CPU, for good.

    Attributes:
        path: of the ONNX file.
        metadata: of the file.
        shapes: input or output -> its shape; a name where the size is free.
        wanted_provider: of ONNX Runtime, the best of those asked for.
        provider: that is at work; another than the wanted one where that could not start, or was
            lost under way.
        trouble: why the wanted provider is not at work, and what to do; empty where it is.
        held: inputs in memory of the device, by name.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        provider: str = "auto",
        threads: int = 0,
        content: bytes | None = None,
        exact: bool = False,
        device: str | None = None,
    ) -> None:
        """Opens the file.

        Args:
            path: the ONNX file.
            provider: see `choose_providers`.
            threads: of the CPU provider; 0 takes all cores.
            content: of the file; the path is then only its name.
            exact: no TensorFloat-32 on the GPU, whose products have ten bits.
            device: whose memory keeps the inputs from run to run, `cuda` or `cpu`; empty: none
                does; None: the GPU's where one is at work.

        Raises:
            ModelError: the file is missing or damaged.
            ConfigError: the provider that was asked for does not start.
        """
        self.path = Path(path)
        self._model = str(path) if content is None else content
        self._threads, self._exact = threads, exact
        providers = choose_providers(provider)
        self.wanted_provider = providers[0]
        self._session = self._open(providers)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        self.shapes: dict[str, list[Any]] = {end.name: list(end.shape) for end in ends}
        self.provider: str = self._session.get_providers()[0]
        self.trouble = ""
        if self.provider != self.wanted_provider:
            missing = f" without {', '.join(_missing_libraries)}" if _missing_libraries else ""
            self.trouble = f"{self.wanted_provider} did not start{missing}; {_CHECK_GPU}"
            _troubles[f"{self.trouble}; everything runs on {self.provider}"] = None
            if provider != "auto":
                raise ConfigError(
                    f"{self.wanted_provider} to start",
                    f"{self.provider} in its place",
                    f"{_CHECK_GPU}, or set provider to auto",
                )
        on_gpu = self.provider != PROVIDERS["cpu"] and runtime().get_device() == "GPU"
        self._device = ("cuda" if on_gpu else "") if device is None else device
        self.held: dict[str, Any] = {}

    def run(self, names: list[str], inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The named outputs.

        Raises:
            ModelError: the network does not run, not even on the CPU.
        """
        try:
            if self._device:
                return self._run_bound(names, inputs)
            return list(self._session.run(names, inputs))
        except Exception as fault:  # onnxruntime raises its own, unexported classes
            if self.provider == PROVIDERS["cpu"]:
                raise ModelError(
                    f"{self.path.name} to run on {self.provider}",
                    reason(fault),
                    "check memory, or restore the network",
                ) from None
            self.trouble = f"{self.provider} was lost: {reason(fault)[:200]}"
            _troubles[self.trouble] = None
        self._session = self._open([PROVIDERS["cpu"]])
        self.provider, self._device = PROVIDERS["cpu"], ""
        self.held.clear()
        return self.run(names, inputs)

    def _run_bound(
        self, names: list[str], inputs: dict[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """As `run`, with inputs in memory of the GPU that is kept while their shapes stay."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            held = self.held.get(name)
            array = np.ascontiguousarray(value)
            if held is None or held.shape() != list(array.shape):
                held = runtime().OrtValue.ortvalue_from_numpy(array, self._device, 0)
                self.held[name] = held
            else:
                held.update_inplace(array)
            binding.bind_ortvalue_input(name, held)
        for name in names:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    def _open(self, providers: list[str]) -> Any:
        options = session_options(self._threads)
        if self._exact and PROVIDERS["cuda"] in providers:
            settings = [{"use_tf32": 0} if p == PROVIDERS["cuda"] else {} for p in providers]
        else:
            settings = None
        try:
            return runtime().InferenceSession(self._model, options, providers, settings)
        except Exception as fault:  # as above
            raise ModelError(
                f"an ONNX network at {self.path}",
                reason(fault),
                "restore or re-export it",
            ) from None
