"""`face-recon evaluate pose`: head rotation on AFLW2000-3D, BIWI, or our own synthetic scenes.

Traps, and what is done about them:
- Angle order and sign differ by data set: `metrics.EulerConvention`.
- AFLW2000-3D's 31 heads beyond 99 degrees are left out by most papers: both figures are given. Its
  stored angles decide: a matrix made of them no longer says whether yaw was 92 or 88.
- AFLW2000-3D was labelled under weak perspective: the attitude to the viewing ray is compared.
- BIWI's matrices are in the depth camera; the field compares them with RGB pictures as they are.
  That is the main figure; `in_rgb_camera` applies the rotation of `rgb.cal`.
- What counts as looking straight differs between head models by a constant turn: `offset_removed`
  takes the best constant turn away, and says how large it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.rigid import angle_between, nearest_rotation
from face_recon_ros.core.types import Detections
from face_recon_ros.evaluation.chain import Estimator, associate, box_of_points
from face_recon_ros.evaluation.datasets import Sample, Skipped, list_samples
from face_recon_ros.evaluation.metrics import (
    AFLW2000,
    BIWI,
    EulerConvention,
    bootstrap,
    euler_errors,
    percentiles,
)
from face_recon_ros.evaluation.stills import HERE, Execution, Still, StillBenchmark, score_samples
from face_recon_ros.evaluation.synthetic import read_truth

Array = NDArray[np.float64]

EXTREME_DEG = 99.0
LAYOUTS = ("aflw2000", "biwi", "synthetic")


@dataclass(frozen=True)
class Truth:
    """An annotated head.

    Attributes:
        rotation: (3, 3) of the face in the camera.
        angles: (3,) pitch, yaw, roll in radians by the data set's convention, as it stores them
            where it stores angles.
        camera: of the image, None when unknown.
        box: (4,) of the annotated head, pixels; None: only `point_px` is known.
        point_px: (2,) within the head.
        rgb_camera_rotation: (3, 3) the same in the RGB camera where that differs (BIWI).
    """

    rotation: Array
    angles: Array
    camera: PinholeCamera | None
    box: Array | None = None
    point_px: Array | None = None
    rgb_camera_rotation: Array | None = None


@dataclass(frozen=True)
class PoseBenchmark(StillBenchmark[Truth]):
    """Rotations of heads in single pictures.

    Attributes:
        read: reads a picture's annotation.
        convention: of the data set's angles.
        to_the_ray: the attitude to the viewing ray is compared, not that in the camera.
    """

    read: Callable[[Sample], Truth]
    convention: EulerConvention
    to_the_ray: bool

    def truth(self, sample: Sample) -> Truth:
        """By the data set's layout."""
        return self.read(sample)

    def choose(self, detections: Detections, truth: Truth, width: int, height: int) -> int | None:
        """The detection that overlaps the head's box, or holds its point."""
        if truth.box is not None:
            return associate(detections, truth.box)
        return _containing(detections, truth.point_px)

    def camera(self, sample: Sample, truth: Truth, width: int, height: int) -> PinholeCamera:
        """The known one, else of the assumed field of view."""
        return truth.camera or PinholeCamera.from_fov(width, height, whole=False)

    def score(self, still: Still[Truth]) -> tuple[dict[str, Any], dict[str, Any]]:
        """True angles, and the errors where the head was found."""
        figures: dict[str, Any] = {"true_deg": _named(still.truth.angles)}
        truth = still.truth
        kept: dict[str, Any] = {
            "truth": {
                "rotation": truth.rotation,
                "angles": truth.angles,
                "rgb_camera_rotation": truth.rgb_camera_rotation,
            }
        }
        if (e := still.estimate) is not None:
            head = e.crop_from_face if self.to_the_ray else e.camera_from_face
            kept["rotation"] = head.rotation
            figures |= _errors(head.rotation, still.truth, self.convention)
        return figures, kept


def evaluate_pose(
    folder: str | Path,
    layout: str,
    estimator: Estimator,
    *,
    execution: Execution = HERE,
) -> dict[str, Any]:
    """Measures head rotation.

    Args:
        folder: of the data set.
        layout: one of `LAYOUTS`.
        estimator: what is measured.
        execution: where pictures are worked on.

    Returns:
        The result, see docs/evaluation.md.

    Raises:
        DataError: nothing to evaluate, or an unknown layout.
    """
    if layout not in LAYOUTS:
        raise DataError(f"a layout of {', '.join(LAYOUTS)}", repr(layout), "choose one")
    skipped = Skipped()
    convention = BIWI if layout == "biwi" else AFLW2000
    if layout == "biwi":
        samples, read = _biwi_samples(Path(folder), skipped), _read_biwi
    else:
        suffix = {"aflw2000": ".mat", "synthetic": ".json"}[layout]
        samples = list_samples(folder, (suffix,), skipped)
        read = {"aflw2000": _read_aflw2000, "synthetic": _read_synthetic}[layout]

    scored = score_samples(
        samples,
        PoseBenchmark(read, convention, to_the_ray=layout == "aflw2000"),
        estimator,
        skipped,
        execution,
        wanted="readable image with pose",
    )
    truths = [Truth(camera=None, **s.kept["truth"]) for s in scored]
    pairs = [
        (s.kept["rotation"], truth) for s, truth in zip(scored, truths, strict=True) if s.found
    ]
    result = _result(pairs, layout, convention)
    result |= {
        "count": len(scored),
        "missed": len(scored) - len(pairs),
        "extreme_count": sum(_is_extreme(truth) for truth in truths),
    }
    return {
        **result,
        "skipped": skipped.as_json(),
        "per_image": [s.entry() for s in scored],
    }


def _result(
    pairs: list[tuple[Array, Truth]], layout: str, convention: EulerConvention
) -> dict[str, Any]:
    """Protocol and errors of predicted rotations and truth."""
    result: dict[str, Any] = {
        "protocol": {
            "name": f"head pose, {layout}",
            "euler_convention": f"{convention.name}: {convention.order}, signs {convention.signs}",
            "rotation": "to the viewing ray" if layout == "aflw2000" else "in the camera",
            "extreme": f"any annotated angle beyond {EXTREME_DEG:g} degrees; "
            "extreme_count is of all annotated heads, found or missed",
            "euler_errors": "the short way round, from the nearer of the two triples that write "
            "the predicted rotation",
        },
        "all": _summary(pairs, convention),
        "without_extreme": _summary([p for p in pairs if not _is_extreme(p[1])], convention),
    }
    if layout == "biwi":
        result["in_rgb_camera"] = _summary(
            [
                (r, _turned(t, t.rgb_camera_rotation, convention))
                for r, t in pairs
                if t.rgb_camera_rotation is not None
            ],
            convention,
        )
    return result


def _errors(predicted: Array, true: Truth, convention: EulerConvention) -> dict[str, Any]:
    euler = euler_errors(predicted, true.rotation, convention, true_angles=true.angles)
    return {
        "error_deg": _named(euler),
        "geodesic_deg": float(np.degrees(angle_between(predicted, true.rotation))),
    }


def _named(angles: Array) -> dict[str, float]:
    pitch, yaw, roll = np.degrees(angles)
    return {"pitch": float(pitch), "yaw": float(yaw), "roll": float(roll)}


def _is_extreme(truth: Truth) -> bool:
    return bool((np.abs(np.degrees(truth.angles)) > EXTREME_DEG).any())


def _turned(truth: Truth, rotation: Array, convention: EulerConvention) -> Truth:
    """The same head with another rotation, written in the triple nearest to the annotated one."""
    angles = convention.angles_near(rotation, truth.angles)
    return replace(truth, rotation=rotation, angles=angles)


def _summary(pairs: list[tuple[Array, Truth]], convention: EulerConvention) -> dict[str, Any]:
    plain = _mean_errors(pairs, convention)
    if not pairs:
        return plain
    face_from_face = nearest_rotation(sum(t.rotation.T @ p for p, t in pairs))
    moved = _mean_errors(
        [(p, _turned(t, t.rotation @ face_from_face, convention)) for p, t in pairs], convention
    )
    offset = float(np.degrees(angle_between(np.eye(3), face_from_face)))
    return {**plain, "offset_removed": {"offset_deg": offset, **moved}}


def _mean_errors(pairs: list[tuple[Array, Truth]], convention: EulerConvention) -> dict[str, Any]:
    euler = np.degrees(
        [euler_errors(p, t.rotation, convention, true_angles=t.angles) for p, t in pairs]
    ).reshape(-1, 3)
    geodesic = np.degrees([angle_between(p, t.rotation) for p, t in pairs])
    mae = euler.mean(axis=0) if len(pairs) else np.full(3, np.nan)
    return {
        "count": len(pairs),
        "mae_deg": {**_named(np.radians(mae)), "mean": float(mae.mean())},
        "mae_mean_interval_95": bootstrap(euler.mean(axis=1)),
        "geodesic_deg": {
            "mean": float(geodesic.mean()) if len(pairs) else float("nan"),
            **percentiles(geodesic),
        },
    }


# Layouts -----------------------------------------------------------------------------------------


def _read_aflw2000(sample: Sample) -> Truth:
    """NAME.mat: `Pose_Para` (1, 7) pitch, yaw, roll (radians), ...; `pt3d_68` (3, 68) pixels."""
    from scipy.io import loadmat

    try:
        mat = loadmat(sample.annotations[".mat"])
        angles = np.asarray(mat["Pose_Para"], np.float64).ravel()[:3]
        if angles.shape != (3,) or not np.isfinite(angles).all():
            raise ValueError(f"Pose_Para holds {angles}")
        points = np.asarray(mat["pt3d_68"], np.float64)[:2].T
        if points.shape != (68, 2):
            raise ValueError(f"pt3d_68 holds {points.shape}")
    except Exception as fault:  # scipy raises many kinds on damaged files
        raise DataError(
            "Pose_Para and pt3d_68", f"{fault!r}"[:120], "restore the .mat file"
        ) from None
    box = box_of_points(points)
    return Truth(AFLW2000.rotation(*angles), angles, None, box)


def _read_synthetic(sample: Sample) -> Truth:
    camera, camera_from_face = read_truth(sample.annotations[".json"])
    sellion = camera.project(camera_from_face.translation)
    rotation = camera_from_face.rotation
    return Truth(rotation, AFLW2000.angles(rotation), camera, point_px=sellion)


def _biwi_samples(root: Path, skipped: Skipped) -> list[Sample]:
    """`NN/frame_XXXXX_rgb.png` (or .jpg) with `frame_XXXXX_pose.txt` and `rgb.cal`."""
    if not root.is_dir():
        raise DataError(f"BIWI's hpdb folder at {root}", "no such folder", "check the path")
    samples = []
    for pose in sorted(root.rglob("frame_*_pose.txt")):
        stem = pose.name[: -len("_pose.txt")]
        images = [p for s in (".png", ".jpg") if (p := pose.with_name(f"{stem}_rgb{s}")).is_file()]
        name = f"{pose.parent.name}/{stem}"
        if not images:
            skipped.add(name, "annotation without image")
            continue
        samples.append(Sample(name, images[0], {".txt": pose, ".cal": pose.parent / "rgb.cal"}))
    if not samples:
        raise DataError(
            f"NN/frame_XXXXX_pose.txt with frame_XXXXX_rgb.png below {root}",
            "none",
            "give the folder that holds BIWI's 24 numbered folders",
        )
    return samples


def _read_biwi(sample: Sample) -> Truth:
    """A pose file: 3 x 3 rotation, then the head's centre, millimetres, depth camera."""
    pose = _numbers(sample.annotations[".txt"], 12)
    calibration = _numbers(sample.annotations[".cal"], 9 + 5 + 9 + 3 + 2)
    depth_from_head, centre_mm = pose[:9].reshape(3, 3), pose[9:12]
    matrix, rgb_from_depth = calibration[:9].reshape(3, 3), calibration[14:23].reshape(3, 3)
    width, height = (int(v) for v in calibration[26:28])
    camera = PinholeCamera(width, height, matrix)
    centre = camera.project((rgb_from_depth @ centre_mm + calibration[23:26]) / 1000.0)
    rotation = depth_from_head @ BIWI.dataset_face_from_face
    return Truth(
        rotation,
        BIWI.angles(rotation),
        camera,
        point_px=centre,
        rgb_camera_rotation=rgb_from_depth @ rotation,
    )


def _numbers(path: Path, count: int) -> Array:
    try:
        values = np.array([float(x) for x in path.read_text().split()])
    except (OSError, ValueError) as fault:
        raise DataError(f"numbers in {path.name}", str(fault), "restore the file") from None
    if len(values) < count or not np.isfinite(values).all():
        raise DataError(
            f"{count} finite numbers in {path.name}", f"{len(values)}", "restore the file"
        )
    return values


def _containing(detections: Detections, point_px: Array | None) -> int | None:
    """The detection whose box holds a point most centrally."""
    if len(detections) == 0 or point_px is None:
        return None
    low, high = detections.boxes[:, :2], detections.boxes[:, 2:]
    offset = np.abs(point_px - (low + high) / 2) / np.maximum((high - low) / 2, 1e-6)
    reach = offset.max(axis=1)
    best = int(reach.argmin())
    return best if reach[best] <= 1.0 else None
