"""Dense points of a face: a second network looks at the rectified face, and the model is fitted.

The regressor says where a head is and which way it looks. This network sees the face through the
mean face under that pose (`core.rectification`) and says where some hundreds of the face model's
own vertices lie, how sure it is of each, whether this is a face at all, and what identity and
expression the picture shows. `core.point_fit` turns that into pose, identity and expression.

Contract of the ONNX file:
    inputs   `image` (N, S, S, 3) uint8 RGB, S = `rectification.RECTIFIED_PX`; `normals` (N, C, C,
             3) float32, `Rectifier.seen_normals`; optional `regressed` (N, K_id + K_exp) float32,
             the regressor's identity and expression
    outputs  `displacement` (N, P, 2) metres, frame of `rectification.FaceFrame`; `log_sigma`
             (N, P) natural logarithm of its standard deviation in metres; `presence` (N, 1) in
             [0, 1]; optional `coefficients` (N, K_id + K_exp), better than `regressed`
    metadata `face_recon_points_format` = 1, `face_model`, `vertices` (JSON list of P indices into
             the coarse mesh), `prior` (JSON of `point_fit.FitPrior`), optional
             `face_model_sha256`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop import Crop, whole_crop
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE, crop_from_face
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.models import (
    POINT_NETWORK,
    POINT_NETWORK_FLOAT,
    find_model,
    models_dir,
)
from face_recon_ros.core.morphable_model import MorphableModel, same_decoding
from face_recon_ros.core.onnx_session import OnnxSession, gpu_works
from face_recon_ros.core.point_fit import POSE, FitPrior, FitState, PointFit, PointFitter
from face_recon_ros.core.rectification import CELLS, RECTIFIED_PX, FaceFrame, Rectifier
from face_recon_ros.core.rigid import angle_between, vector_from_rotation

POINTS_FORMAT = "1"
#: The fit uses so many points or a few more: 125 of 500 give the same shape to 0.2 %, sooner.
_FIT_POINTS = 160
#: A fit that ends farther from its start than this has come from where the network sees badly:
#: radians, across the line of sight over depth, logarithm of depth; presence below is no face.
_TURN, _ACROSS, _NEARER, _PRESENT = 0.15, 0.015, 0.1, 0.5
_OUTPUTS = ["displacement", "log_sigma", "presence"]
_REGRESSED, _COEFFICIENTS = "regressed", "coefficients"
_REMEDY = "export it with `face-recon export`"


class PointAnswer(NamedTuple):
    """The network's answer for N faces.

    Attributes:
        displacement: (N, P, 2) metres, frame of `rectification.FaceFrame`.
        log_sigma: (N, P) natural logarithm of its standard deviation in metres.
        presence: (N,) how sure it is that this is a face, in [0, 1].
        coefficients: (N, K_id + K_exp) identity and expression, where the fit starts.
    """

    displacement: NDArray[np.float32]
    log_sigma: NDArray[np.float32]
    presence: NDArray[np.float32]
    coefficients: NDArray[np.float32]


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
        self.metadata = meta = self.session.metadata
        shapes = self.session.shapes
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
        #: Whether it corrects the regressor's identity and expression.
        self.corrects = _COEFFICIENTS in shapes
        self.face_model = meta.get("face_model", "")

    def trained_for(self, model: MorphableModel, face_model: Path) -> bool:
        """Whether it finds points of this face model, at level coarse, from this file."""
        wanted = self.metadata.get("face_model_sha256", "")
        fits = self.face_model == model.name and len(self.vertices) > 0
        fits = fits and self.vertices.max() < model.n_vertices
        return fits and (not wanted or same_decoding(wanted, face_model))

    def check_trained_for(self, model: MorphableModel, face_model: Path) -> None:
        """Raises ModelError unless it was trained for this face model."""
        if not self.trained_for(model, face_model):
            raise ModelError(
                f"a dense-point network for face model {model.name} as in {face_model.name}",
                f"{self.path.name} for {self.face_model or 'another'}",
                "use the face model it was trained for, or set reconstructor.points to off",
            )

    def fitter(self, model: MorphableModel) -> PointFitter:
        """Fits the face model (coarse level, whole head) to this network's answers."""
        every = max(1, len(self.vertices) // _FIT_POINTS)
        return PointFitter(model, self.vertices, self.prior, every)

    def predict(
        self,
        images: NDArray[np.uint8],
        normals: NDArray[np.float32],
        regressed: NDArray[np.float32],
    ) -> PointAnswer:
        """Finds the points of N faces; see the contract above. N may be 0.

        Args:
            images: (N, RECTIFIED_PX, RECTIFIED_PX, 3).
            normals: (N, CELLS, CELLS, 3).
            regressed: (N, K_id + K_exp) the regressor's identity and expression.
        """
        if len(images) == 0:
            p = len(self.vertices)
            none = np.zeros((0, p), np.float32)
            return PointAnswer(none[..., None].repeat(2, 2), none, none[:, 0], regressed)
        names = list(_OUTPUTS)
        feeds: dict[str, NDArray[Any]] = {"image": images, "normals": normals}
        if self.corrects:
            names.append(_COEFFICIENTS)
            feeds[_REGRESSED] = regressed
        values = self.session.run(names, feeds)
        coefficients = values[3] if self.corrects else regressed
        return PointAnswer(values[0], values[1], values[2][:, 0], coefficients)


def _prior(values: dict[str, object]) -> FitPrior:
    needed = {f.name for f in fields(FitPrior) if f.default is MISSING}
    if not needed <= set(values) <= {f.name for f in fields(FitPrior)}:
        raise ValueError(f"prior has {sorted(values)}, not {sorted(needed)}")
    numbers = {k: np.asarray(v, np.float64) for k, v in values.items()}
    start = numbers.pop("start_information", np.zeros(()))
    means = {k: numbers.pop(k, np.zeros(())) for k in ("population", "training_mean")}
    if not all(np.isfinite(v).all() and (v > 0).all() for v in numbers.values()):
        raise ValueError("prior has values that are not above zero")
    if not (np.isfinite(start).all() and (start >= 0).all()):
        raise ValueError("prior has a start_information below zero")
    if not all(np.isfinite(v).all() for v in means.values()):
        raise ValueError("prior has a population or training_mean that is not finite")
    translation, scale = numbers["translation"], numbers.get("pose_scale", np.ones(3))
    if translation.shape != (3,) or scale.shape != (3,):
        raise ValueError("prior has a translation or pose_scale that is not of 3 numbers")
    return FitPrior(
        rotation=float(numbers["rotation"]),
        translation=tuple(translation.tolist()),
        identity=numbers["identity"],
        expression=numbers["expression"],
        independence=float(numbers["independence"]),
        pose_scale=tuple(scale.tolist()),
        identity_scale=float(numbers.get("identity_scale", 1.0)),
        start_information=start,
        **means,
    )


class Look(NamedTuple):
    """What the network saw of N faces.

    Attributes:
        frame: the mean faces that it saw them through.
        answer: of the network.
        identity: (N, K_id) of each picture for itself, before the fit.
        expression: (N, K_exp) likewise, in its range.
    """

    frame: FaceFrame
    answer: PointAnswer
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]


@dataclass(frozen=True)
class DensePoints:
    """What the network saw of N faces, and what the fit made of it.

    Attributes:
        seen: (N, P, 2) where the vertices lie, crop sides from the middle of each crop.
        sigma: (N, P) standard deviations, crop sides.
        presence: (N,) how sure it is that this is a face, in [0, 1].
        pose_covariance: (N, 6, 6) calibrated, as `inference.Prediction` has it.
        fit: pose and shape.
        settled: (N,) whether there is a face and the fit ended near its start: it can be followed.
    """

    seen: NDArray[np.float64]
    sigma: NDArray[np.float64]
    presence: NDArray[np.float32]
    pose_covariance: NDArray[np.float64]
    fit: PointFit
    settled: NDArray[np.bool_]


class DensePointStage:
    """Image, crops and the regressor's answer in; corrected coefficients out."""

    def __init__(self, network: DensePointNetwork, model: MorphableModel) -> None:
        """Prepares grid and fit.

        Args:
            network: trained for the face model.
            model: coarse level, whole head.

        Raises:
            ModelError: the prior's size is not the model's.
        """
        prior, k = network.prior, model.k_identity
        by_identity = (prior.identity, prior.start_information)
        means = (prior.population, prior.training_mean)
        sizes = [np.size(v) for v in (prior.expression, *by_identity, *means)]
        if sizes[0] != model.k_expression or not set(sizes[1:]) <= {1, k}:
            raise ModelError(
                f"a prior for {model.k_expression} expressions and {k} identities",
                f"{sizes} in {network.path.name}",
                _REMEDY,
            )
        self.network = network
        self._rectifier = Rectifier(model)
        self._fitter = network.fitter(model)
        self._unit_interval = model.expression_prior == "unit_interval"

    @property
    def mean(self) -> NDArray[np.floating]:
        """(P, 3) the points on the mean face, metres, face frame."""
        return self._fitter.mean

    def look(
        self, images: Sequence[NDArray[np.uint8]], crops: Sequence[Crop], prediction: Prediction
    ) -> Look:
        """Has the network look at faces.

        Args:
            images: N images (H, W, 3).
            crops: N, that the regressor saw, each in its image.
            prediction: N rows, all of them usable.
        """
        c = prediction.coefficients
        poses = [crop_from_face(r, t) for r, t in zip(c.rotation, c.translation, strict=True)]
        rotation = np.array([p.rotation for p in poses]).reshape(-1, 3, 3)
        translation = np.array([p.translation for p in poses]).reshape(-1, 3)
        frame = FaceFrame.of(rotation, translation)
        rectified = np.empty((len(crops), RECTIFIED_PX, RECTIFIED_PX, 3), np.uint8)
        for i, (rgb, crop) in enumerate(zip(images, crops, strict=True)):
            rectified[i] = self._rectifier.sample(rgb, crop, frame, i)
        regressed = np.concatenate([c.identity, c.expression], 1)
        normals = self._rectifier.seen_normals(frame)
        answer = self.network.predict(rectified, normals, regressed)
        identity, expression = np.split(answer.coefficients, [c.identity.shape[1]], axis=1)
        if self._unit_interval:
            expression = np.clip(expression, 0.0, 1.0)
        return Look(frame, answer, identity, expression)

    def presence(self, pixels: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.float32]:
        """How sure the network is of each crop that it shows a face.

        Args:
            pixels: (N, S, S, 3) uint8 RGB of the crops.
            prediction: N rows of the regressor.

        Returns:
            (N,) in [0, 1]; 0 where the regressor's row is not usable.
        """
        out = np.zeros(len(pixels), np.float32)
        rows = np.flatnonzero(prediction.usable)
        if len(rows):
            crops = [whole_crop(pixels.shape[1])] * len(rows)
            look = self.look(list(pixels[rows]), crops, prediction.rows(rows))
            out[rows] = look.answer.presence
        return out

    def fit(
        self,
        look: Look,
        identity: NDArray[np.floating] | None = None,
        identity_information: NDArray[np.floating] | None = None,
    ) -> DensePoints:
        """Fits the face model to what the network saw.

        Args:
            look: at N faces.
            identity: (N, K_id) what is known of the people; None: what the look says.
            identity_information: (N, K_id, K_id) how well; None: the prior's.
        """
        frame, answer = look.frame, look.answer
        seen = frame.seen(answer.displacement, self._fitter.mean)
        known = look.identity if identity is None else identity
        pose = frame.crop_from_face
        start = FitState(pose[:, :, :3], pose[:, :, 3], known, look.expression)
        sigma = np.exp(answer.log_sigma.astype(np.float64))
        fit = self._fitter.fit(start, seen, sigma, identity_information)
        settled = fit.converged & (answer.presence >= _PRESENT) & _near(pose, fit.state)
        scale = np.repeat(self.network.prior.pose_scale, [3, 2, 1])
        covariance = fit.pose_covariance * np.outer(scale, scale)
        return DensePoints(
            seen, sigma * frame.scale[:, None], answer.presence, covariance, fit, settled
        )


def _near(start: NDArray[np.float64], end: FitState) -> NDArray[np.bool_]:
    """(N,) whether poses ended no farther from their (N, 3, 4) starts than the network knows."""
    turn = [angle_between(a, b) for a, b in zip(start[:, :, :3], end.rotation, strict=True)]
    away = np.abs(end.translation / end.translation[:, 2:] - start[:, :, 3] / start[:, 2:, 3])
    nearer = np.abs(np.log(np.maximum(end.translation[:, 2] / start[:, 2, 3], 1e-6)))
    near = (np.array(turn) < _TURN) & (away[:, :2] < _ACROSS).all(1) & (nearer < _NEARER)
    return np.asarray(near)


def corrected(prediction: Prediction, rows: NDArray[np.intp], points: DensePoints) -> Prediction:
    """The regressor's answer with the fit's pose, identity and expression.

    Args:
        prediction: N rows of the regressor.
        rows: (M,) which of them were looked at again.
        points: M rows.

    Returns:
        N rows; presence is zero in those that were not looked at.
    """
    state, c = points.fit.state, prediction.coefficients
    vectors = [vector_from_rotation(r @ CAMERA_FROM_FRONTAL_FACE.T) for r in state.rotation]
    values = {
        "rotation": np.array(vectors).reshape(-1, 3),
        "translation": state.translation,
        "identity": state.identity,
        "expression": state.expression,
    }
    changed = {name: getattr(c, name).copy() for name in values}
    for name, value in values.items():
        changed[name][rows] = value
    presence = np.zeros(len(c), np.float32)
    presence[rows] = points.presence
    pose_covariance = np.zeros((len(c), POSE, POSE))
    pose_covariance[rows] = points.pose_covariance
    point_sigma = np.zeros((len(c), points.sigma.shape[1]))
    point_sigma[rows] = points.sigma
    settled = np.zeros(len(c), np.bool_)
    settled[rows] = points.settled
    return replace(
        prediction,
        coefficients=replace(c, **changed),
        presence=presence,
        pose_covariance=pose_covariance,
        point_sigma=point_sigma,
        settled=settled,
    )


def find_points(name: str, provider: str) -> Path | None:
    """The file that `ReconstructorConfig.points` means; None without one.

    Args:
        name: of a network; `auto` or `off`.
        provider: of ONNX Runtime.
    """
    if name == "off":
        return None
    if name == "auto":
        name = POINT_NETWORK_FLOAT if gpu_works(provider) else POINT_NETWORK
        if not (models_dir() / name).is_file():
            return None
    return find_model(name)


def open_points(
    name: str, coarse: MorphableModel, face_model: Path, *, provider: str, threads: int
) -> DensePointStage | None:
    """What `ReconstructorConfig.points` asks for.

    Args:
        name: of a network; `auto` or `off`.
        coarse: face model, coarse level, whole head.
        face_model: its file.
        provider: of ONNX Runtime.
        threads: likewise.
    """
    path, automatic = find_points(name, provider), name == "auto"
    if path is None:
        return None
    network = DensePointNetwork(path, provider=provider, threads=threads)
    if automatic and not network.trained_for(coarse, face_model):
        return None
    network.check_trained_for(coarse, face_model)
    return DensePointStage(network, coarse)
