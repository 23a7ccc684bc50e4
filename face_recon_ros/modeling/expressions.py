"""The 52 ARKit expressions from Face Units 01: lumps smoothed, lids that meet, eyes that turn."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import NDArray

from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.modeling.anny_source import AnnyData
from face_recon_ros.modeling.head_mesh import BODY, EYE_LEFT, EYE_RIGHT, HeadMesh
from face_recon_ros.modeling.identity import HEAD_SCALE
from face_recon_ros.modeling.topology import graph_laplacian

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
) -> tuple[list[str], NDArray[np.float64]]:
    """Names and fields of the expressions.

    Args:
        data: the source.
        head: the control mesh.
        base: (N, 3) MakeHuman shape the fields are applied about.
        mean: (C, 3) mean face, metres.
        stiff: (C,) how firmly a vertex keeps its displacement under smoothing; 1 for open skin.

    Returns:
        52 names, sorted, and (C, 3, 52) metres at activation 1.
    """
    prefix = "expression/"
    names = sorted(key[len(prefix) :] for key in data.targets if key.startswith(prefix))
    smooth = displacement_smoother(head, stiff, _SMOOTHING)
    fields = {}
    for name in names:
        full = np.zeros_like(base)
        target = data.targets[prefix + name]
        full[target.indices] = target.displacement * HEAD_SCALE
        field = head.displacement(base, full)
        for part in (EYE_RIGHT, EYE_LEFT):
            field[head.parts == part] = 0.0
        fields[name] = smooth(field)
    for name, (part, axis, degrees) in _GAZE_DEG.items():
        fields[name] = _turn_eye(fields[name], mean, head.parts == part, axis, degrees)
    left = _closed_lids(fields["eyeBlinkLeft"], mean, head)
    fields["eyeBlinkLeft"] = left
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
