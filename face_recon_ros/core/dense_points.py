"""Dense points of a face: a second network looks at the rectified face, and the model is fitted.

The regressor says where a head is and which way it looks. This network sees the face through the
mean face under that pose (`core.rectification`) and says where some hundreds of the face model's
own vertices lie, how sure it is of each, whether this is a face at all, and what identity and
expression the picture shows. `core.point_fit` turns that into pose, identity and expression.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop import Picture, whole_crop
from face_recon_ros.core.crop_pose import (
    CROP_FOCAL,
    coefficients_from_crop_pose,
    crop_from_face,
)
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.identity_posterior import IdentityAnswers
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.mirror import expression_mirror, identity_mirror, mirrored_points
from face_recon_ros.core.models import (
    POINT_NETWORK,
    POINT_NETWORK_FLOAT,
    find_model,
    models_dir,
)
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.onnx_session import gpu_works
from face_recon_ros.core.point_fit import POSE, FitState, PointFit
from face_recon_ros.core.point_network import POINTS_REMEDY, DensePointNetwork, PointAnswer
from face_recon_ros.core.rectification import RECTIFIED_PX, FaceFrame, Rectifier
from face_recon_ros.core.rigid import Rigid, angle_between

#: A fit that ends farther from its start than this has come from where the network sees badly:
#: radians, across the line of sight over depth, logarithm of depth; presence below is no face.
_TURN, _ACROSS, _NEARER, _PRESENT = 0.15, 0.015, 0.1, 0.5


class Look(NamedTuple):
    """What the network saw of N faces.

    Attributes:
        cameras: N, that faces are fitted in.
        reach: (N,) see `FitState`.
        frame: the mean faces that it saw them through, in these cameras.
        answer: of the network.
        identity: (N, K_id) of each picture for itself, before the fit.
        expression: (N, K_exp) likewise, in its range.
    """

    cameras: list[NormalisedCamera]
    reach: NDArray[np.float64]
    frame: FaceFrame
    answer: PointAnswer
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]


@dataclass(frozen=True)
class DensePoints:
    """What the network saw of N faces, and what the fit made of it.

    Attributes:
        cameras: N, that faces were fitted in.
        seen: (N, P, 2) where the vertices lie, as `FaceFrame.project` has it.
        sigma: (N, P) standard deviations, crop sides.
        presence: (N,) how sure it is that this is a face, in [0, 1].
        pose_covariance: (N, 6, 6) calibrated, as `inference.Prediction` has it.
        fit: pose and shape, in the cameras.
        settled: (N,) whether there is a face and the fit ended near its start: it can be followed.
    """

    cameras: list[NormalisedCamera]
    seen: NDArray[np.float64]
    sigma: NDArray[np.float64]
    presence: NDArray[np.float32]
    pose_covariance: NDArray[np.float64]
    fit: PointFit
    settled: NDArray[np.bool_]


@dataclass(frozen=True)
class _Mirror:
    """Rectified faces in the mirror. The grid on the mean face is alike on both sides.

    Attributes:
        points: (P,) position of each point's mirror point.
        coefficients: (K_id + K_exp, K_id + K_exp) of a face to those of its mirror image.
    """

    points: NDArray[np.intp]
    coefficients: NDArray[np.float32]

    @staticmethod
    def of(model: MorphableModel, vertices: NDArray[np.intp]) -> _Mirror | None:
        """None where a point has no mirror point."""
        points = mirrored_points(model, vertices)
        if points is None:
            return None
        k, both = model.k_identity, model.k_identity + model.k_expression
        matrix = np.zeros((both, both), np.float32)
        matrix[:k, :k], matrix[k:, k:] = identity_mirror(model), expression_mirror(model)
        return _Mirror(points, matrix)

    def inputs(
        self,
        images: NDArray[np.uint8],
        normals: NDArray[np.float32],
        regressed: NDArray[np.float32],
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """The inputs of `DensePointNetwork.predict`, same shapes, of the mirrored image."""
        turned = normals[:, :, ::-1] * np.array([-1, 1, 1], np.float32)
        return np.ascontiguousarray(images[:, :, ::-1]), turned, regressed @ self.coefficients.T

    def answer(self, answer: PointAnswer) -> PointAnswer:
        """Of the mirror image, for the face itself."""
        return PointAnswer(
            answer.displacement[:, self.points] * np.array([-1, 1], np.float32),
            answer.log_sigma[:, self.points],
            answer.presence,
            answer.coefficients @ self.coefficients.T,
        )


def _mean_of(one: PointAnswer, other: PointAnswer) -> PointAnswer:
    return PointAnswer(
        *(np.asarray((a + b) / 2, np.float32) for a, b in zip(one, other, strict=True))
    )


class DensePointStage:
    """Image, crops and the regressor's answer in; corrected coefficients out.

    Attributes:
        network: that finds the points.
        answers: what fits to its points say of who is shown.
    """

    def __init__(self, network: DensePointNetwork, model: MorphableModel) -> None:
        """Prepares grid and fit.

        Args:
            network: trained for the face model.
            model: coarse level, whole head.

        Raises:
            ModelError: the prior's size is not the model's.
        """
        prior, k = network.prior, model.k_identity
        answers, neutral = network.answers, network.neutral
        by_identity = [prior.identity, prior.start_information, prior.population]
        by_identity += [prior.training_mean, 0.0 if answers is None else answers.mean]
        by_expression = [prior.expression, prior.expression if neutral is None else neutral.mean]
        identities, expressions = ({np.size(v) for v in of} for of in (by_identity, by_expression))
        if expressions != {model.k_expression} or not identities <= {1, k}:
            raise ModelError(
                f"a prior for {model.k_expression} expressions and {k} identities",
                f"{sorted(expressions)} and {sorted(identities)} in {network.path.name}",
                POINTS_REMEDY,
            )
        self.network = network
        known = (prior.start_information, prior.population, prior.training_mean)
        self.answers = answers or IdentityAnswers.uncalibrated(*known, k)
        self._rectifier = Rectifier(model)
        self._fitter = network.fitter(model)
        self._unit_interval = model.expression_prior == "unit_interval"
        self._model = model

    @functools.cached_property
    def _mirror(self) -> _Mirror | None:
        """Made when a picture first asks for it: videos never do."""
        return _Mirror.of(self._model, self.network.vertices)

    @property
    def mean(self) -> NDArray[np.floating]:
        """(P, 3) the points on the mean face, metres, face frame."""
        return self._fitter.mean

    def look(
        self,
        pictures: Sequence[Picture],
        cameras: Sequence[NormalisedCamera],
        prediction: Prediction,
        *,
        mirrored: bool = False,
    ) -> Look:
        """Has the network look at faces.

        Args:
            pictures: N, that show the faces.
            cameras: N, of the crops that the regressor saw.
            prediction: N rows, all of them usable.
            mirrored: whether it also looks at the mirror image of each, for twice the time; the
                answer is the mean of both. A face model without mirror vertices is seen once.
        """
        c = prediction.coefficients
        poses = [
            camera.from_crop_pose(crop_from_face(r, t))
            for camera, r, t in zip(cameras, c.rotation, c.translation, strict=True)
        ]
        rotation = np.array([p.rotation for p in poses]).reshape(-1, 3, 3)
        translation = np.array([p.translation for p in poses]).reshape(-1, 3)
        frame = FaceFrame.of(rotation, translation)
        rectified = np.empty((len(cameras), RECTIFIED_PX, RECTIFIED_PX, 3), np.uint8)
        for i, (picture, camera) in enumerate(zip(pictures, cameras, strict=True)):
            rectified[i] = self._rectifier.sample(picture, camera, frame, i)
        regressed = np.concatenate([c.identity, c.expression], 1)
        normals = self._rectifier.seen_normals(frame)
        answer = self.network.predict(rectified, normals, regressed)
        if mirrored and self._mirror is not None:
            seen = self._mirror.inputs(rectified, normals, regressed)
            answer = _mean_of(answer, self._mirror.answer(self.network.predict(*seen)))
        identity, expression = np.split(answer.coefficients, [c.identity.shape[1]], axis=1)
        if self._unit_interval:
            expression = np.clip(expression, 0.0, 1.0)
        reach = c.translation[:, 2].astype(np.float64)
        return Look(list(cameras), reach, frame, answer, identity, expression)

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
            cameras = [NormalisedCamera.of(whole_crop(pixels.shape[1]))] * len(rows)
            pictures = [Picture(crop) for crop in pixels[rows]]
            look = self.look(pictures, cameras, prediction.rows(rows))
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
        pose, reach = frame.camera_from_face, look.reach
        start = FitState(pose[:, :, :3], pose[:, :, 3], known, look.expression, reach)
        sigma = np.exp(answer.log_sigma.astype(np.float64))
        fit = self._fitter.fit(start, seen, sigma, identity_information)
        settled = fit.converged & (answer.presence >= _PRESENT) & _near(start, fit.state)
        scale = np.repeat(self.network.prior.pose_scale, [3, 2, 1])
        covariance = fit.pose_covariance * np.outer(scale, scale)
        in_crops = sigma * CROP_FOCAL / np.maximum(reach, 1e-3)[:, None]
        return DensePoints(look.cameras, seen, in_crops, answer.presence, covariance, fit, settled)

    def given(self, points: DensePoints, identity: NDArray[np.floating]) -> DensePoints:
        """The same points on N people of (N, K_id) identity; pose and expression follow."""
        return replace(points, fit=self._fitter.given(points.fit, identity))


def _near(start: FitState, end: FitState) -> NDArray[np.bool_]:
    """(N,) whether poses ended no farther from their starts than the network knows."""
    turn = [angle_between(a, b) for a, b in zip(start.rotation, end.rotation, strict=True)]
    depths = [np.maximum(state.translation[:, 2:], 1e-6) for state in (start, end)]
    slopes = [state.translation[:, :2] / z for state, z in zip((start, end), depths, strict=True)]
    away = np.abs(slopes[1] - slopes[0]) * depths[0] / start.units[:, :2]
    nearer = np.abs(np.log(depths[1] / depths[0]))[:, 0]
    near = (np.array(turn) < _TURN) & (away < _ACROSS).all(1) & (nearer < _NEARER)
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
    poses = [
        coefficients_from_crop_pose(camera.to_crop_pose(Rigid(r, t)))
        for camera, r, t in zip(points.cameras, state.rotation, state.translation, strict=True)
    ]
    values = {
        "rotation": np.array([r for r, _ in poses]).reshape(-1, 3),
        "translation": np.array([t for _, t in poses]).reshape(-1, 3),
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
