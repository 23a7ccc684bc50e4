"""The dense-point network: an ONNX file that says where points of the face model lie.

Contract of the ONNX file:
    inputs   `image` (N, S, S, 3) uint8 RGB, S = `rectification.RECTIFIED_PX`; `normals` (N, C, C,
             3) float32, `Rectifier.seen_normals`; optional `regressed` (N, K_id + K_exp) float32,
             the regressor's identity and expression
    outputs  `displacement` (N, P, 2) metres, frame of `rectification.FaceFrame`; `log_sigma`
             (N, P) natural logarithm of its standard deviation in metres; `presence` (N, 1) in
             [0, 1]; optional `coefficients` (N, K_id + K_exp), better than `regressed`
    metadata `face_recon_points_format` = 1, `face_model`, `vertices` (JSON list of P indices into
             the coarse mesh), `prior` (JSON of `point_fit.FitPrior`), optional
             `identity_answers` (JSON of the first four arguments of
             `identity_posterior.IdentityAnswers`), `neutral_answers` (JSON of
             `neutral_expression.NeutralAnswers`) and `face_model_sha256`.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.identity_posterior import IdentityAnswers
from face_recon_ros.core.morphable_model import MorphableModel, same_decoding
from face_recon_ros.core.neutral_expression import NeutralAnswers
from face_recon_ros.core.onnx_session import OnnxSession
from face_recon_ros.core.point_fit import FitPrior, PointFitter
from face_recon_ros.core.rectification import CELLS, RECTIFIED_PX

POINTS_FORMAT = "1"
#: What to do about a file that does not fit.
POINTS_REMEDY = "export it with `face-recon export`"
#: The fit uses so many points or a few more: 125 of 500 give the same shape to 0.2 %, sooner.
_FIT_POINTS = 160
_OUTPUTS = ["displacement", "log_sigma", "presence"]
#: Older files say of their prior what is no longer used.
OBSOLETE = ("identity_scale",)
_REGRESSED, _COEFFICIENTS = "regressed", "coefficients"


def fit_stride(points: int) -> int:
    """The fit uses one of so many of the network's points, which counts for all of them."""
    return max(1, points // _FIT_POINTS)


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
        answers: what its answers say of who is shown; None where that was not measured.
        neutral: what it answers for people on average; likewise.
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
                POINTS_REMEDY,
            )
        try:
            self.vertices = np.array(json.loads(meta["vertices"]), np.intp)
            self.prior = _prior(json.loads(meta["prior"]))
            self.answers = _answers(meta.get("identity_answers", ""), self.prior)
            self.neutral = _neutral(meta.get("neutral_answers", ""))
        except (KeyError, ValueError, TypeError) as fault:
            raise ModelError(
                f"vertices, prior and what was measured of answers in the metadata of {path}",
                str(fault),
                POINTS_REMEDY,
            ) from None
        sizes = [shapes["image"][1:], shapes["normals"][1:], shapes["log_sigma"][1:]]
        wanted = [[RECTIFIED_PX, RECTIFIED_PX, 3], [CELLS, CELLS, 3], [len(self.vertices)]]
        if sizes != wanted:
            raise ModelError(
                f"inputs and outputs of {wanted} in {path}", f"{sizes}", POINTS_REMEDY
            )
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
        return PointFitter(model, self.vertices, self.prior, fit_stride(len(self.vertices)))

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
    values = {k: v for k, v in values.items() if k not in OBSOLETE}
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
        start_information=start,
        **means,
    )


def _answers(text: str, prior: FitPrior) -> IdentityAnswers | None:
    if not text:
        return None
    values = json.loads(text)
    mean, response, person, picture = (
        np.asarray(values[k], np.float64) for k in ("mean", "response", "person", "picture")
    )
    k = mean.size
    if any(matrix.shape != (k, k) for matrix in (response, person, picture)):
        raise ValueError(f"identity_answers whose matrices are not {k} x {k}")
    people = np.broadcast_to(prior.population, k)
    return IdentityAnswers(mean, response, person, picture, people)


def _neutral(text: str) -> NeutralAnswers | None:
    if not text:
        return None
    values = json.loads(text)
    mean, ratio = (np.asarray(values[k], np.float64) for k in ("mean", "error_ratio"))
    if mean.ndim != 1 or mean.shape != ratio.shape or not np.isfinite(mean).all():
        raise ValueError("neutral_answers that are not two lists of the same length")
    if not (np.isfinite(ratio) & (ratio >= 0)).all():
        raise ValueError("neutral_answers with an error_ratio below zero")
    return NeutralAnswers(mean, ratio)
