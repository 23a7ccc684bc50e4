"""An ONNX file open in ONNX Runtime, on a GPU where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from face_recon_ros.core.errors import ConfigError, ModelError

#: In order of preference. `auto` leaves out TensorRT: it builds an engine, for minutes, whenever
#: the number of faces changes.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


def choose_providers(provider: str = "auto") -> list[str]:
    """ONNX Runtime providers to try, best first.

    Args:
        provider: `auto` (CUDA where there is one, else the CPU), or `tensorrt`, `cuda`, `cpu` to
            force one.

    Raises:
        ConfigError: unknown, or not in this build of ONNX Runtime.
    """
    available = ort.get_available_providers()
    if provider == "auto":
        automatic = [name for key, name in PROVIDERS.items() if key != "tensorrt"]
        return [name for name in automatic if name in available]
    if provider not in PROVIDERS:
        raise ConfigError(f"provider auto, {', '.join(PROVIDERS)}", repr(provider), "choose one")
    if PROVIDERS[provider] not in available:
        raise ConfigError(
            f"{PROVIDERS[provider]} in this ONNX Runtime",
            f"{', '.join(available)}",
            "install onnxruntime-gpu with a matching CUDA, or set provider to auto",
        )
    return [PROVIDERS[provider]]


class OnnxSession:
    """Runs a network; a GPU that is lost under way hands over to the CPU, for good.

    Attributes:
        path: of the ONNX file.
        metadata: of the file.
        shapes: input or output -> its shape; a name where the size is free.
        wanted_provider: of ONNX Runtime, the best of those asked for.
        provider: that is at work; another than the wanted one where that could not start, or was
            lost under way.
    """

    def __init__(self, path: str | Path, *, provider: str = "auto", threads: int = 0) -> None:
        """Opens the file.

        Args:
            path: the ONNX file.
            provider: see `choose_providers`.
            threads: of the CPU provider; 0 takes all cores.

        Raises:
            ModelError: the file is missing or damaged.
            ConfigError: the provider that was asked for does not start.
        """
        self.path = Path(path)
        self._threads = threads
        providers = choose_providers(provider)
        self.wanted_provider = providers[0]
        self._session = self._open(providers)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        self.shapes: dict[str, list[Any]] = {end.name: list(end.shape) for end in ends}
        self.provider: str = self._session.get_providers()[0]
        if provider != "auto" and self.provider != self.wanted_provider:
            raise ConfigError(
                f"{self.wanted_provider} to start",
                f"{self.provider} in its place",
                "check driver, CUDA and cuDNN against ONNX Runtime's, or set provider to auto",
            )

    def run(self, names: list[str], inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The named outputs.

        Raises:
            ModelError: the network does not run, not even on the CPU.
        """
        try:
            return list(self._session.run(names, inputs))
        except Exception as fault:  # onnxruntime raises its own, unexported classes
            if self.provider == PROVIDERS["cpu"]:
                raise ModelError(
                    f"{self.path.name} to run on {self.provider}",
                    str(fault).splitlines()[0],
                    "check memory, or restore the network",
                ) from None
        self._session = self._open([PROVIDERS["cpu"]])
        self.provider = PROVIDERS["cpu"]
        return self.run(names, inputs)

    def _open(self, providers: list[str]) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return ort.InferenceSession(str(self.path), options, providers=providers)
        except Exception as fault:  # as above
            raise ModelError(
                f"an ONNX network at {self.path}",
                str(fault).splitlines()[0],
                "restore or re-export it",
            ) from None
