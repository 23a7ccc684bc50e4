"""The 52 ARKit expressions from Face Units 01: lumps smoothed, lids that meet, eyes that turn."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import NDArray

from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.face_model.anny_source import AnnyData
from face_recon_ros.face_model.head_mesh import BODY, EYE_LEFT, EYE_RIGHT, TEETH, TONGUE, HeadMesh
from face_recon_ros.face_model.identity import HEAD_SCALE
from face_recon_ros.face_model.lips import LipSeam
from face_recon_ros.face_model.topology import graph_laplacian

# Full activation turns the eye by this much. Axes of the face: +z left, -y up.
_GAZE_DEG = {
    "eyeLookUpLeft": (EYE_LEFT, 1, -22.0),
    "eyeLookUpRight": (EYE_RIGHT, 1, -22.0),
    "eyeLookDownLeft": (EYE_LEFT, 1, 26.0),
    "eyeLookDownRight": (EYE_RIGHT, 1, 26.0),
    "eyeLookInLeft": (EYE_LEFT, 2, -28.0),
    "eyeLookInRight": (EYE_RIGHT, 2, 28.0),
    "eyeLookOutLeft": (EYE_LEFT, 2, 28.0),
    "eyeLookOutRight": (EYE_RIGHT, 2, -28.0),
}
_DENTED = ("mouthSmileLeft", "mouthSmileRight")  # beside the corners of the mouth
_SMOOTHING_OF_DENTS = 40.0
_LIP_GAP = 0.0001  # metres
_PUCKER = np.array([1.15, 1.6, 1.0])  # Face Units' is weak
_PUFF = 0.0065  # metres sideways
_PUFF_CENTRE = np.array([-0.022, 0.046, -0.066])
_PUFF_RADII = np.array([0.022, 0.020, 0.017])
_TONGUE_FLAT = 0.45
_TONGUE_BACK = 0.006
_TONGUE_OUT = np.array([0.007, 0.0, 0.004])  # metres
# The outer rim of the subject's left lid margins, inner to outer corner, MakeHuman's numbering.
UPPER_LID_RIM = (
    11486,
    11490,
    11485,
    11484,
    11483,
    11465,
    11466,
    11467,
    11468,
    11469,
    11470,
    11471,
)
LOWER_LID_RIM = (
    11488,
    11489,
    11482,
    11743,
    11481,
    11480,
    11479,
    11478,
    11477,
    11476,
    11475,
    11474,
)
_LID_OVERLAP = 0.0004  # metres: closed lids touch with this to spare
_SMOOTHING = 6.0


def build_expressions(
    data: AnnyData,
    head: HeadMesh,
    base: NDArray[np.float64],
    mean: NDArray[np.float64],
    stiff: NDArray[np.float64],
    lips: LipSeam,
) -> tuple[list[str], NDArray[np.float64]]:
    """Names and fields of the expressions.

    Args:
        data: the source.
        head: the control mesh.
        base: (N, 3) MakeHuman shape the fields are applied about.
        mean: (C, 3) mean face, metres.
        stiff: (C,) how firmly a vertex keeps its displacement under smoothing; 1 for open skin.
        lips: of that mean; they part where an expression presses one through the other.

    Returns:
        52 names, sorted, and (C, 3, 52) metres at activation 1.
    """
    prefix = "expression/"
    names = sorted(key[len(prefix) :] for key in data.targets if key.startswith(prefix))
    smooth = displacement_smoother(head, stiff, _SMOOTHING)
    smooth_more = displacement_smoother(head, stiff, _SMOOTHING_OF_DENTS)
    fields = {}
    for name in names:
        full = np.zeros_like(base)
        target = data.targets[prefix + name]
        full[target.indices] = target.displacement * HEAD_SCALE
        field = head.displacement(base, full)
        for part in (EYE_RIGHT, EYE_LEFT):
            field[head.parts == part] = 0.0
        fields[name] = (smooth_more if name in _DENTED else smooth)(field)
    for name, (part, axis, degrees) in _GAZE_DEG.items():
        fields[name] = _turn_eye(fields[name], mean, head.parts == part, axis, degrees)
    fields["cheekPuff"] += _puff(mean, head)
    fields["mouthPucker"] *= _PUCKER
    fields["jawOpen"] = _tongue_down(fields["jawOpen"], mean, head)
    fields["tongueOut"][head.parts == TONGUE] += _TONGUE_OUT
    left = _closed_lids(fields["eyeBlinkLeft"], mean, head)
    fields["eyeBlinkLeft"] = left
    for name in names:
        # mouthClose undoes jawOpen: alone it is meant to run through.
        before = mean + fields["jawOpen"] if name == "mouthClose" else mean
        fields[name] = lips.parted(before + fields[name], _LIP_GAP) - before
    for name in names:  # the right side is the left side's mirror image
        other = name.replace("Left", "Right")
        image = _image(fields[other], head)
        if name in ("jawLeft", "mouthLeft"):  # sideways as a whole: both know all of the face
            fields[name] = (fields[name] + image) / 2
            fields[other] = _image(fields[name], head)
        elif other != name:
            fields[other] = _image(fields[name], head)
        elif not name.endswith("Right"):
            fields[name] = (fields[name] + image) / 2
    return names, np.stack([fields[name] for name in names], axis=2)


def displacement_smoother(head: HeadMesh, stiff: NDArray[np.float64], amount: float):
    """A function that takes the lumps out of displacements: min stiff |u - f|^2 + amount |L u|^2.

    Args:
        head: the control mesh.
        stiff: (C,) firmness of each vertex.
        amount: weight of the squared graph Laplacian.
    """
    laplacian = graph_laplacian(head.triangles, head.n_control)
    system = sp.diags(stiff) + amount * laplacian.T @ laplacian
    solver = spla.splu(sp.csc_matrix(system))
    body = head.parts == BODY

    def smooth(field: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = field.reshape(len(field), -1)
        out = solver.solve(np.ascontiguousarray(stiff[:, None] * flat))
        out[~body] = flat[~body]
        return np.asarray(out.reshape(field.shape))

    return smooth


def _puff(mean: NDArray[np.float64], head: HeadMesh) -> NDArray[np.float64]:
    """(C, 3) cheeks blown up sideways; Face Units push them forward only."""
    x, y, z = mean.T
    offset = np.stack([x, np.abs(y), z], axis=1) - _PUFF_CENTRE
    bump = np.exp(-0.5 * ((offset / _PUFF_RADII) ** 2).sum(axis=1)) * (head.parts == BODY)
    bump *= np.tanh(np.abs(y) / 0.01)
    return np.asarray(bump[:, None] * np.stack([0 * y, np.sign(y), 0 * y], axis=1) * _PUFF)


def _tongue_down(
    field: NDArray[np.float64], mean: NDArray[np.float64], head: HeadMesh
) -> NDArray[np.float64]:
    """An open mouth whose tongue lies flat between the lower teeth and goes with them."""
    tongue, teeth = head.parts == TONGUE, head.parts == TEETH
    teeth = teeth & (field[:, 2] < -0.007)
    design = np.concatenate([mean, np.ones((len(mean), 1))], axis=1)
    turn = np.linalg.lstsq(design[teeth], field[teeth], rcond=None)[0]
    out = field.copy()
    out[tongue] = design[tongue] @ turn
    floor = mean[tongue, 2].min()
    out[tongue, 2] -= (1 - _TONGUE_FLAT) * (mean[tongue, 2] - floor)
    out[tongue, 0] -= _TONGUE_BACK
    return out


def _image(field: NDArray[np.float64], head: HeadMesh) -> NDArray[np.float64]:
    return np.asarray(field[head.mirror] * np.array([1.0, -1.0, 1.0]))


def _turn_eye(
    field: NDArray[np.float64],
    mean: NDArray[np.float64],
    eye: NDArray[np.bool_],
    axis: int,
    degrees: float,
) -> NDArray[np.float64]:
    ball = mean[eye]
    low, high = ball.min(axis=0), ball.max(axis=0)
    radius = (high[2] - low[2]) / 2
    centre = np.array([high[0] - radius, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2])
    vector = np.zeros(3)
    vector[axis] = np.radians(degrees)
    out = field.copy()
    out[eye] = (ball - centre) @ rotation_from_vector(vector).T + centre - ball
    return out


def _closed_lids(
    field: NDArray[np.float64], mean: NDArray[np.float64], head: HeadMesh
) -> NDArray[np.float64]:
    """Scales a blink along the lid so that the upper rim just passes the lower one."""
    upper = np.array([head.control(i) for i in UPPER_LID_RIM])
    lower = np.array([head.control(i) for i in LOWER_LID_RIM])

    # For each vertex of the upper rim, how far along its path it meets the lower rim.
    scale = np.zeros(len(upper))
    steps = np.linspace(0.4, 1.2, 161)
    for i, vertex in enumerate(upper):
        for step in steps:
            shut = mean[lower] + step * field[lower]
            order = np.argsort(shut[:, 1])
            point = mean[vertex] + step * field[vertex]
            height = np.interp(point[1], shut[order, 1], shut[order, 2])
            scale[i] = step
            if point[2] < height - _LID_OVERLAP:
                break
    inner = scale[2:-2]  # the corners hardly move
    across = mean[upper, 1][2:-2]
    smooth = np.polynomial.Polynomial.fit(across, inner, 2)
    smooth_scale = smooth(np.clip(mean[:, 1], across.min(), across.max()))
    smooth_scale += np.max(inner - smooth(across))
    return np.asarray(field * smooth_scale[:, None])
