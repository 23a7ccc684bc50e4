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

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop import CropSpec
from face_recon_ros.core.errors import ImageError, ModelError
from face_recon_ros.core.models import NETWORK, REFERENCE_NETWORK, find_model
from face_recon_ros.core.morphable_model import decoding_sha256, same_decoding
from face_recon_ros.core.onnx_file import network_signature
from face_recon_ros.core.onnx_session import OnnxSession, gpu_works
from face_recon_ros.core.types import COEFFICIENT_NAMES, Coefficients

NETWORK_FORMAT = "1"
AUTO = "auto"


def find_network(name: str, provider: str = "auto") -> Path:
    """The file of a network that ships, or of one's own.

    Args:
        name: as `find_model` takes it; `auto`: the reference network (ResNet50) where a GPU is
            at work, else the small one.
        provider: see `onnx_session.choose_providers`.
    """
    if name == AUTO:
        return find_model(REFERENCE_NETWORK if gpu_works(provider) else NETWORK)
    return find_model(name)


@dataclass(frozen=True)
class Prediction:
    """The network's answer for N crops.

    Attributes:
        coefficients: N rows.
        identity_confidence: (N,) float32 in (0, 1]; ones where the network gives none.
        presence: (N,) float32 in [0, 1], how sure it is that this is a face; None where no
            network says so.
        pose_covariance: (N, 6, 6) of the head's pose in the nominal crop camera: rotation about
            its axes, radians, and translation over depth; None where nothing says so.
        point_sigma: (N, P) standard deviations of the dense points, crop sides; None likewise.
        regressed: N rows, what the network said when it last looked at these faces, in the crops
            of then; None: `coefficients`, now.
        waited: (N,) images of the track since then; None: no image.
        settled: (N,) whether a fit found a face there and ended near its start; None without one.
    """

    coefficients: Coefficients
    identity_confidence: NDArray[np.float32]
    presence: NDArray[np.float32] | None = None
    pose_covariance: NDArray[np.float64] | None = None
    point_sigma: NDArray[np.float64] | None = None
    regressed: Coefficients | None = None
    waited: NDArray[np.intp] | None = None
    settled: NDArray[np.bool_] | None = None

    def rows(self, index: NDArray[np.intp] | slice) -> Prediction:
        """The rows `index`, (K,) or a slice, in that order; of a slice they are views."""
        values: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            values[each.name] = None if value is None else value[index]
        return Prediction(**values)

    def with_rows(self, index: NDArray[np.intp], other: Prediction) -> Prediction:
        """With the K rows of `other`, of the same outputs, in place of the rows `index` (K,)."""
        order = np.arange(len(self.coefficients))
        order[index] = len(order) + np.arange(len(index))
        return Prediction.stacked([self, other]).rows(order)

    @staticmethod
    def stacked(parts: Sequence[Prediction]) -> Prediction:
        """The rows of one or more that say as much as the first, one after the other."""
        values: dict[str, Any] = {}
        for each in fields(Prediction):
            column = [getattr(part, each.name) for part in parts]
            if column[0] is None:
                values[each.name] = None
            elif isinstance(column[0], Coefficients):
                values[each.name] = Coefficients.stacked(column)
            else:
                values[each.name] = np.concatenate(column)
        return Prediction(**values)

    @property
    def is_carried(self) -> NDArray[np.bool_]:
        """(N,) whether a row starts from what its track last showed."""
        return np.zeros(len(self.coefficients), bool) if self.waited is None else self.waited > 0

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) whether a row is finite and its face in front of the camera."""
        values = [getattr(self.coefficients, name) for name in COEFFICIENT_NAMES]
        usable = np.isfinite(self.identity_confidence) & (self.coefficients.translation[:, 2] > 0)
        for value in values:
            usable &= np.isfinite(value).all(axis=tuple(range(1, value.ndim)))
        return np.asarray(usable)


class FaceNetwork:
    """Regresses coefficients from crops.

    Attributes:
        path: of the ONNX file.
        metadata: of the file.
        size: S, side of the crops, pixels.
        crop_margin: side of the crop over side of the face box.
        crop_spec: both.
        face_model: name of the face model it was trained for.
        session: of ONNX Runtime.
        sizes: coefficients -> how many.
    """

    def __init__(self, path: str | Path, *, provider: str = "auto", threads: int = 0) -> None:
        """Opens the network.

        Args:
            path: the ONNX file.
            provider: see `onnx_session.choose_providers`.
            threads: of the CPU provider; 0 takes all cores.
        """
        self.path = Path(path)
        self.session = OnnxSession(path, provider=provider, threads=threads)
        self.metadata, shapes = self.session.metadata, self.session.shapes
        meta = self.metadata
        missing = [name for name in ("image", *COEFFICIENT_NAMES) if name not in shapes]
        if meta.get("face_recon_format") != NETWORK_FORMAT or missing:
            raise ModelError(
                f"a face network of format {NETWORK_FORMAT} with outputs "
                f"{', '.join(COEFFICIENT_NAMES)} at {path}",
                f"format {meta.get('face_recon_format')}, missing {missing}",
                "export it with `face-recon export`",
            )
        if any(not isinstance(shape[1], int) for shape in shapes.values()):
            raise ModelError(
                f"fixed sizes but for the batch in {path}",
                f"shapes {list(shapes.values())}",
                "export it with `face-recon export`",
            )
        self.size = int(shapes["image"][1])
        self.crop_margin = _positive(meta, "crop_margin", path)
        self.crop_spec = CropSpec(self.size, self.crop_margin)
        self.face_model = meta.get("face_model", "")
        self.sizes = {name: int(shapes[name][1]) for name in ("identity", "expression", "albedo")}
        self._has_confidence = "identity_confidence" in shapes

    @property
    def provider(self) -> str:
        """The provider of ONNX Runtime that is at work."""
        return self.session.provider

    @property
    def wanted_provider(self) -> str:
        """The provider that was asked for; see `OnnxSession`."""
        return self.session.wanted_provider

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
        answers = self.session.run(names, {"image": crops})
        values = dict(zip(names, answers, strict=True))
        confidence = values.pop("identity_confidence", np.ones((len(crops), 1), np.float32))
        return Prediction(Coefficients(**values), confidence[:, 0])


def read_crop_spec(path: Path) -> CropSpec:
    """What crops a network file wants, read without loading the network.

    Raises:
        ModelError: it is no face network.
    """
    try:
        metadata, shape = network_signature(path.read_bytes())
    except ValueError as fault:
        raise ModelError(f"an ONNX network at {path}", str(fault), "re-export it") from None
    if metadata.get("face_recon_format") != NETWORK_FORMAT or len(shape) != 4 or shape[1] < 1:
        raise ModelError(
            f"a face network of format {NETWORK_FORMAT} at {path}",
            f"format {metadata.get('face_recon_format')}, images of shape {shape}",
            "export it with `face-recon export`",
        )
    return CropSpec(shape[1], _positive(metadata, "crop_margin", path))


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
