"""The regression network as an ONNX Runtime session with named outputs.

Contract of the ONNX file:
    input   `image` (N, S, S, 3) uint8 RGB; normalisation is inside the graph
    outputs `identity` (N, K_id), `expression` (N, K_exp), `albedo` (N, K_alb),
            `rotation` (N, 3) radians, `translation` (N, 3) metres, `illumination` (N, 9, 3);
            all float32, meanings in `core.types.Coefficients`.
            `identity_confidence` (N, 1) in (0, 1] is optional.
    metadata `face_recon_format` = 1, `face_model` (name of the face model it was trained for),
            `crop_margin` (side of the crop over side of the face box); optional:
            `face_model_sha256` (its `morphable_model.decoding_sha256`, in older networks the
            SHA-256 of its file); free: `training`, `licence`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from face_recon_ros.core.errors import ConfigError, ImageError, ModelError
from face_recon_ros.core.morphable_model import decoding_sha256, same_decoding
from face_recon_ros.core.types import COEFFICIENT_NAMES, Coefficients

NETWORK_FORMAT = "1"
#: In order of preference. `auto` leaves out TensorRT: it builds an engine, for minutes, whenever
#: the number of faces changes.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


@dataclass(frozen=True)
class Prediction:
    """The network's answer for N crops.

    Attributes:
        coefficients: N rows.
        identity_confidence: (N,) float32 in (0, 1]; ones where the network gives none.
    """

    coefficients: Coefficients
    identity_confidence: NDArray[np.float32]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) whether a row is finite and its face in front of the camera."""
        values = [getattr(self.coefficients, name) for name in COEFFICIENT_NAMES]
        usable = np.isfinite(self.identity_confidence) & (self.coefficients.translation[:, 2] > 0)
        for value in values:
            usable &= np.isfinite(value).all(axis=tuple(range(1, value.ndim)))
        return np.asarray(usable)


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


class FaceNetwork:
    """Regresses coefficients from crops.

    Attributes:
        path: of the ONNX file.
        metadata: of the file.
        size: S, side of the crops, pixels.
        crop_margin: side of the crop over side of the face box.
        face_model: name of the face model it was trained for.
        wanted_provider: of ONNX Runtime, the best of those asked for.
        provider: that is at work; another than the wanted one where that could not start, or was
            lost under way.
        sizes: coefficients -> how many.
    """

    def __init__(self, path: str | Path, *, provider: str = "auto", threads: int = 0) -> None:
        """Opens the network.

        Args:
            path: the ONNX file.
            provider: see `choose_providers`.
            threads: of the CPU provider; 0 takes all cores.
        """
        self.path = Path(path)
        self._threads = threads
        providers = choose_providers(provider)
        self.wanted_provider = providers[0]
        self._session = self._open(providers)
        meta = self._session.get_modelmeta().custom_metadata_map
        outputs = {o.name: o for o in self._session.get_outputs()}
        missing = [name for name in COEFFICIENT_NAMES if name not in outputs]
        if meta.get("face_recon_format") != NETWORK_FORMAT or missing:
            raise ModelError(
                f"a face network of format {NETWORK_FORMAT} with outputs "
                f"{', '.join(COEFFICIENT_NAMES)} at {path}",
                f"format {meta.get('face_recon_format')}, missing {missing}",
                "export it with `face-recon export`",
            )
        if provider != "auto" and self._session.get_providers()[0] != self.wanted_provider:
            raise ConfigError(
                f"{self.wanted_provider} to start",
                f"{self._session.get_providers()[0]} in its place",
                "check driver, CUDA and cuDNN against ONNX Runtime's, or set provider to auto",
            )
        self.metadata: dict[str, str] = dict(meta)
        shapes = [self._session.get_inputs()[0].shape, *(o.shape for o in outputs.values())]
        if any(not isinstance(shape[1], int) for shape in shapes):
            raise ModelError(
                f"fixed sizes but for the batch in {path}",
                f"shapes {shapes}",
                "export it with `face-recon export`",
            )
        self.size = int(shapes[0][1])
        self.crop_margin = _positive(meta, "crop_margin", path)
        self.face_model = meta.get("face_model", "")
        self.provider = self._session.get_providers()[0]
        self.sizes = {
            name: int(outputs[name].shape[1]) for name in ("identity", "expression", "albedo")
        }
        self._has_confidence = "identity_confidence" in outputs

    def check_trained_for(self, face_model: Path) -> None:
        """Raises ModelError if this network was trained for a face model that decodes otherwise.

        Bases of equal size with other components would make other faces, and nobody would know.
        """
        wanted = self.metadata.get("face_model_sha256", "")
        if wanted and not same_decoding(wanted, face_model):
            raise ModelError(
                f"the face model {self.path.name} was trained for, SHA-256 {wanted[:16]}...",
                f"{face_model.name}, whose bases have {decoding_sha256(face_model)[:16]}...",
                "restore that file, or train a network for this one (docs/training.md)",
            )

    def predict(self, crops: NDArray[np.uint8]) -> Prediction:
        """Regresses all crops in one batch.

        Args:
            crops: (N, S, S, 3) uint8 RGB; N may be 0.

        Returns:
            N rows; not all of them need be `usable`.

        Raises:
            ImageError: the crops are of another size or type.
            ModelError: the network does not run, not even on the CPU.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.size, self.size, 3):
            raise ImageError(
                f"crops (N, {self.size}, {self.size}, 3) uint8",
                f"{crops.shape} {crops.dtype}",
                "cut them with core.crop",
            )
        if len(crops) == 0:
            return Prediction(Coefficients.zeros(0, *self.sizes.values()), np.ones(0, np.float32))
        names = [*COEFFICIENT_NAMES, *(["identity_confidence"] if self._has_confidence else [])]
        values = dict(zip(names, self._run(names, crops), strict=True))
        confidence = values.pop("identity_confidence", np.ones((len(crops), 1), np.float32))
        return Prediction(Coefficients(**values), confidence[:, 0])

    def _run(self, names: list[str], crops: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """The named outputs; a GPU that is lost under way hands over to the CPU, for good."""
        try:
            return list(self._session.run(names, {"image": crops}))
        except Exception as fault:  # onnxruntime raises its own, unexported classes
            if self.provider == PROVIDERS["cpu"]:
                raise ModelError(
                    f"{self.path.name} to run on {self.provider}",
                    str(fault).splitlines()[0],
                    "check memory, or restore the network",
                ) from None
        self._session = self._open([PROVIDERS["cpu"]])
        self.provider = PROVIDERS["cpu"]
        return self._run(names, crops)

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


def _positive(metadata: dict[str, str], key: str, path: str | Path) -> float:
    text = metadata.get(key, "")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0.0 and np.isfinite(value)):
        raise ModelError(
            f"a number above zero as {key} in the metadata of {path}",
            repr(text),
            "export it with `face-recon export`",
        )
    return value
