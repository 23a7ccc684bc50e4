"""Dense points of a face: a second network looks at the rectified face, and the model is fitted.

The regressor says where a head is and which way it looks. This network sees the face through the
mean face under that pose (`core.rectification`) and says where some hundreds of the face model's
own vertices lie, how sure it is of each, and whether this is a face at all. `core.point_fit` turns
that into pose, identity and expression.

Contract of the ONNX file:
    inputs   `image` (N, S, S, 3) uint8 RGB, S = `rectification.RECTIFIED_PX`; `normals` (N, C, C,
             3) float32, `Rectifier.seen_normals`
    outputs  `displacement` (N, P, 2) metres, as `rectification.FaceFrame` tells it; `log_sigma`
             (N, P) natural logarithm of its standard deviation in metres; `presence` (N, 1) in
             [0, 1]
    metadata `face_recon_points_format` = 1, `face_model`, `vertices` (JSON list of P indices into
             the coarse mesh), `prior` (JSON of `point_fit.FitPrior`), optional
             `face_model_sha256`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE, crop_from_face
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.onnx_session import OnnxSession
from face_recon_ros.core.point_fit import FitPrior, FitState, PointFit, PointFitter
from face_recon_ros.core.rectification import CELLS, RECTIFIED_PX, FaceFrame, Rectifier
from face_recon_ros.core.rigid import vector_from_rotation

POINTS_FORMAT = "1"
_OUTPUTS = ["displacement", "log_sigma", "presence"]
_REMEDY = "export it with `face-recon export`"


class DensePointNetwork:
    """The network as an ONNX Runtime session.

    Attributes:
        path: of the ONNX file.
        vertices: (P,) indices into the coarse mesh.
        prior: of the fit.
        face_model: name of the face model it was trained for.
    """

    def __init__(self, path: str | Path, *, provider: str = "auto", threads: int = 0) -> None:
        """Opens the network.

        Args:
            path: the ONNX file.
            provider: as for `FaceNetwork`.
            threads: of the CPU provider; 0 takes all cores.

        Raises:
            ModelError: the file is missing, damaged or another kind of network.
        """
        self.path = Path(path)
        self.session = OnnxSession(path, provider=provider, threads=threads)
        meta, shapes = self.session.metadata, self.session.shapes
        missing = [name for name in (*_OUTPUTS, "image", "normals") if name not in shapes]
        if meta.get("face_recon_points_format") != POINTS_FORMAT or missing:
            raise ModelError(
                f"a dense-point network of format {POINTS_FORMAT} at {path}",
                f"format {meta.get('face_recon_points_format')}, missing {missing}",
                _REMEDY,
            )
        try:
            self.vertices = np.array(json.loads(meta["vertices"]), np.intp)
            self.prior = _prior(json.loads(meta["prior"]))
        except (KeyError, ValueError, TypeError) as fault:
            raise ModelError(
                f"vertices and prior in the metadata of {path}", str(fault), _REMEDY
            ) from None
        sizes = [shapes["image"][1:], shapes["normals"][1:], shapes["log_sigma"][1:]]
        wanted = [[RECTIFIED_PX, RECTIFIED_PX, 3], [CELLS, CELLS, 3], [len(self.vertices)]]
        if sizes != wanted:
            raise ModelError(f"inputs and outputs of {wanted} in {path}", f"{sizes}", _REMEDY)
        self.face_model = meta.get("face_model", "")

    def predict(
        self, images: NDArray[np.uint8], normals: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], ...]:
        """Finds the points of N faces; see the contract above. N may be 0.

        Args:
            images: (N, RECTIFIED_PX, RECTIFIED_PX, 3).
            normals: (N, CELLS, CELLS, 3).

        Returns:
            Displacement (N, P, 2), log_sigma (N, P), presence (N,).
        """
        if len(images) == 0:
            p = len(self.vertices)
            return (
                np.zeros((0, p, 2), np.float32),
                np.zeros((0, p), np.float32),
                np.zeros(0, np.float32),
            )
        values = self.session.run(_OUTPUTS, {"image": images, "normals": normals})
        return values[0], values[1], values[2][:, 0]


def _prior(values: dict[str, object]) -> FitPrior:
    names = {f.name for f in fields(FitPrior)}
    if set(values) != names:
        raise ValueError(f"prior has {sorted(values)}, not {sorted(names)}")
    numbers = {k: np.asarray(v, np.float64) for k, v in values.items()}
    if not all(np.isfinite(v).all() and (v > 0).all() for v in numbers.values()):
        raise ValueError("prior has values that are not above zero")
    x, y, z = numbers["translation"]
    return FitPrior(
        rotation=float(numbers["rotation"]),
        translation=(float(x), float(y), float(z)),
        identity=float(numbers["identity"]),
        expression=numbers["expression"],
        independence=float(numbers["independence"]),
    )


@dataclass(frozen=True)
class DensePoints:
    """What the network saw of N faces, and what the fit made of it.

    Attributes:
        seen: (N, P, 2) where the vertices lie, crop sides from the middle of each crop.
        sigma: (N, P) standard deviations, crop sides.
        presence: (N,) how sure it is that this is a face, in [0, 1].
        fit: pose and shape.
    """

    seen: NDArray[np.float64]
    sigma: NDArray[np.float64]
    presence: NDArray[np.float32]
    fit: PointFit


class DensePointStage:
    """Image, crops and the regressor's answer in; corrected coefficients out."""

    def __init__(self, network: DensePointNetwork, model: MorphableModel) -> None:
        """Prepares grid and fit.

        Args:
            network: trained for the face model.
            model: coarse level, whole head.

        Raises:
            ModelError: they do not belong together.
        """
        known = len(network.vertices) and network.vertices.max() < model.n_vertices
        if network.face_model != model.name or not known:
            raise ModelError(
                f"a dense-point network for face model {model.name}",
                f"{network.path.name} for {network.face_model}",
                "use the face model it was trained for, or set reconstructor.points to off",
            )
        if len(network.prior.expression) != model.k_expression:
            raise ModelError(
                f"a prior for {model.k_expression} expressions",
                f"{len(network.prior.expression)} in {network.path.name}",
                _REMEDY,
            )
        self.network = network
        self._rectifier = Rectifier(model)
        self._fitter = PointFitter(model, network.vertices, network.prior)
        self.k_identity = model.k_identity

    @property
    def prior_information(self) -> NDArray[np.float64]:
        """(K_id, K_id) of an unknown person's identity."""
        return np.asarray(np.eye(self.k_identity) / self.network.prior.identity**2)

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        crops: list[Crop],
        prediction: Prediction,
        identity: NDArray[np.floating] | None = None,
        identity_information: NDArray[np.floating] | None = None,
    ) -> DensePoints:
        """Looks again and fits.

        Args:
            rgb: (H, W, 3) image.
            crops: N, that the regressor saw.
            prediction: N rows, all of them usable.
            identity: (N, K_id) what is known of the people; None: the regressor's answer.
            identity_information: (N, K_id, K_id) how well; None: the prior's.
        """
        c = prediction.coefficients
        poses = [crop_from_face(r, t) for r, t in zip(c.rotation, c.translation, strict=True)]
        rotation = np.array([p.rotation for p in poses]).reshape(-1, 3, 3)
        translation = np.array([p.translation for p in poses]).reshape(-1, 3)
        frame = FaceFrame.of(rotation, translation)
        images = np.empty((len(crops), RECTIFIED_PX, RECTIFIED_PX, 3), np.uint8)
        for i, crop in enumerate(crops):
            images[i] = self._rectifier.sample(rgb, crop, frame, i)
        displacement, log_sigma, presence = self.network.predict(
            images, self._rectifier.seen_normals(frame)
        )
        seen = frame.seen(displacement, self._fitter.mean)
        known = c.identity if identity is None else identity
        start = FitState(rotation, translation, known, c.expression)
        sigma = np.exp(log_sigma.astype(np.float64))
        fit = self._fitter.fit(start, seen, sigma, identity_information)
        return DensePoints(seen, sigma * frame.scale[:, None], presence, fit)


def corrected(prediction: Prediction, points: DensePoints) -> Prediction:
    """The regressor's answer with the fit's pose, identity and expression."""
    state = points.fit.state
    vectors = [vector_from_rotation(r @ CAMERA_FROM_FRONTAL_FACE.T) for r in state.rotation]
    coefficients = replace(
        prediction.coefficients,
        rotation=np.array(vectors, np.float32).reshape(-1, 3),
        translation=state.translation.astype(np.float32),
        identity=state.identity.astype(np.float32),
        expression=state.expression.astype(np.float32),
    )
    return replace(prediction, coefficients=coefficients)
