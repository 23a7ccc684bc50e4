"""Analysis by synthesis: its derivatives, and truth recovered from renderings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop_pose import coefficients_from_crop_pose, crop_camera, crop_from_face
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.rigid import Rigid, angle_between, rotation_from_vector
from face_recon_ros.core.types import Coefficients
from face_recon_ros.evaluation.synthetic import ModelScenes, soft_light
from face_recon_ros.fitting.photo import PhotometricFitter
from face_recon_ros.fitting.photo_config import FROM_SCRATCH, FitConfig, FitLevel
from face_recon_ros.fitting.photo_residual import PhotometricResidual, State

SIZE = 128
#: Fewer samples, each of which counts for more, and fewer steps than by default: quicker.
QUICK = replace(
    FROM_SCRATCH,
    levels=(FitLevel(6.0, 6, False), FitLevel(3.0, 6, True), FitLevel(1.0, 4, True)),
    samples=1000,
    effective_share=0.15,
)


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


def true_coefficients(model, seed=0):
    rng = np.random.default_rng(seed)
    zeros = Coefficients.zeros(1, model.k_identity, model.k_expression, model.k_albedo)
    return replace(
        zeros,
        identity=0.5 * rng.standard_normal((1, model.k_identity)).astype(np.float32),
        albedo=0.5 * rng.standard_normal((1, model.k_albedo)).astype(np.float32),
        rotation=np.float32([[0.05, 0.25, -0.04]]),
        translation=np.float32([[0.005, -0.04, 1.3]]),
        illumination=soft_light()[None],
    )


def render(model, coefficients):
    """The crop that coefficients describe."""
    scenes = ModelScenes(model)
    pose = crop_from_face(coefficients.rotation[0], coefficients.translation[0])
    scenes.camera = PinholeCamera(SIZE, SIZE, crop_camera(SIZE).matrix)
    scene = scenes.scene(
        "x",
        pose,
        identity=coefficients.identity[0],
        expression=coefficients.expression[0],
        albedo=coefficients.albedo[0],
        illumination=coefficients.illumination[0],
    )
    return scene.render()


def disturbed(coefficients, *, turn_deg=5.0, shift=(0.004, -0.003, 0.03)):
    pose = crop_from_face(coefficients.rotation[0], coefficients.translation[0])
    turn = rotation_from_vector(np.radians(turn_deg) * np.array([0.5, 0.8, 0.3]))
    moved = Rigid(turn @ pose.rotation, pose.translation + np.array(shift))
    rotation, translation = coefficients_from_crop_pose(moved)
    zeros = Coefficients.zeros(
        1,
        *(v.shape[1] for v in (coefficients.identity, coefficients.expression)),
        coefficients.albedo.shape[1],
    )
    return replace(
        zeros,
        rotation=rotation[None].astype(np.float32),
        translation=translation[None].astype(np.float32),
        illumination=soft_light()[None],
    )


def smooth_image():
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    waves = [
        0.5 + 0.3 * np.sin(2 * np.pi * (a * x + b * y)) for a, b in [(1, 0.5), (0.3, 1), (1, 1)]
    ]
    return np.stack(waves, axis=2).astype(np.float32)


def test_derivatives_equal_finite_differences(model):
    problem = PhotometricResidual(model)
    image = smooth_image()
    state = State.of(true_coefficients(model))
    state = replace(state, expression=np.full_like(state.expression, 0.05))
    samples = problem.sample(state, SIZE, 300)
    residual, jacobian, inside = problem.jacobian(
        state, samples, image, problem.normal_slopes(state)
    )
    assert inside.all()
    n = jacobian.shape[2]
    rng = np.random.default_rng(0)
    k_id, k_exp, k_alb = model.k_identity, model.k_expression, model.k_albedo
    groups = {
        "identity": (range(k_id), 0.05),
        "expression": (range(k_id, k_id + k_exp), 0.02),
        "albedo": (range(k_id + k_exp, k_id + k_exp + k_alb), 0.05),
        "turn": (range(n - 33, n - 30), 2e-3),
        "shift": (range(n - 30, n - 27), 2e-4),
        "light": (range(n - 27, n), 0.01),
    }
    for name, (members, step) in groups.items():
        for p in rng.choice(list(members), 3, replace=False):
            delta = np.zeros(n)
            delta[p] = step
            ahead, _ = problem.residual(problem.moved(state, delta, True), samples, image)
            behind, _ = problem.residual(problem.moved(state, -delta, True), samples, image)
            numeric = (ahead - behind) / (2 * step)
            scale = np.abs(numeric).max() + 1e-6
            gap = np.abs(jacobian[:, :, p] - numeric)
            assert np.median(gap) < 0.02 * scale and np.mean(gap) < 0.05 * scale, name
    assert np.isfinite(residual).all()


def test_a_rendered_face_is_recovered_from_a_disturbed_start(model):
    truth = true_coefficients(model)
    crop = render(model, truth)
    fitter = PhotometricFitter(model, QUICK)
    start = disturbed(truth)
    fit = fitter.fit(crop, [start])
    true_pose, found, began = (
        crop_from_face(c.rotation[0], c.translation[0]) for c in (truth, fit.coefficients, start)
    )
    error = np.degrees(angle_between(true_pose.rotation, found.rotation))
    # Shape and attitude trade a little: the prior pulls the shape to the mean.
    assert error < 0.6 * np.degrees(angle_between(true_pose.rotation, began.rotation))
    shapes = [model.neutral(c.identity[0]) for c in (truth, fit.coefficients, start)]
    skin = model.subsets["facial_skin"]
    gaps = [np.linalg.norm(s - shapes[0], axis=1)[skin].mean() for s in shapes[1:]]
    assert gaps[0] < 0.9 * gaps[1]
    assert fit.photometric_end < 0.5 * fit.photometric_start
    assert fit.photometric_end < 4.0
    assert all(costs[-1] < 1.05 * costs[0] for costs in fit.history)  # samples are drawn anew


def test_the_truth_stays_where_it_is(model):
    truth = true_coefficients(model)
    crop = render(model, truth)
    fit = PhotometricFitter(model, QUICK).fit(crop, [truth])
    a = crop_from_face(truth.rotation[0], truth.translation[0])
    b = crop_from_face(fit.coefficients.rotation[0], fit.coefficients.translation[0])
    assert np.degrees(angle_between(a.rotation, b.rotation)) < 1.5
    assert fit.photometric_end <= fit.photometric_start + 0.7


def test_what_the_model_does_not_know_hardly_bends_a_known_face(model):
    """A smile under a dark moustache and a fringe stays a smile: the start is known to be near."""
    truth = true_coefficients(model)
    smile = [i for i, n in enumerate(model.expression_names) if n.startswith("mouthSmile")]
    expression = truth.expression.copy()
    expression[0, smile] = 0.8
    truth = replace(truth, expression=expression)
    crop = render(model, truth)
    crop[: SIZE // 3] //= 3
    crop[int(0.6 * SIZE) : int(0.66 * SIZE), SIZE // 3 : -SIZE // 3] //= 4
    near = FitConfig(levels=QUICK.levels, samples=QUICK.samples)
    kept, bent = (
        PhotometricFitter(model, c).fit(crop, [truth]).coefficients.expression[0, smile]
        for c in (near, QUICK)
    )
    assert (kept > 0.65).all()
    assert np.abs(kept - 0.8).max() < np.abs(bent - 0.8).max()


def test_from_scratch_covers_the_crop_and_takes_the_best_yaw(model):
    truth = replace(true_coefficients(model), rotation=np.float32([[0, 0.45, 0]]))
    crop = render(model, truth)
    fitter = PhotometricFitter(model, replace(QUICK, levels=(FitLevel(6.0, 6, False),)))
    starts = fitter.from_scratch(SIZE)
    fit = fitter.fit(crop, starts)
    assert fit.coefficients.rotation[0, 1] > 0.2


def test_no_start_and_no_skin(model):
    fitter = PhotometricFitter(model)
    with pytest.raises(DataError):
        fitter.fit(np.zeros((SIZE, SIZE, 3), np.uint8), [])
    away = replace(true_coefficients(model), translation=np.float32([[5.0, 0, 1.0]]))
    assert np.isnan(fitter.photometric_error(np.zeros((SIZE, SIZE, 3), np.uint8), away))
