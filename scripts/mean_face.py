#!/usr/bin/env python3
"""The average photograph beside the average rendering, lined up by the network's own answers.

What photographs have in other places than renderings shows here, without any annotation: brows
that hang lower, eyes that are open less, whole faces that the network puts too low. Crosses mark
the face model's landmarks, which are where the network says they are.

    scripts/mean_face.py PHOTOGRAPHS [--network FILE] [--out mean_face.png] [--count 300]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_recon_ros.core.crop import crop_from_face_box
from face_recon_ros.core.crop_pose import crop_camera, crop_from_face
from face_recon_ros.core.detection import make_detector
from face_recon_ros.core.errors import FaceReconError
from face_recon_ros.core.inference import FaceNetwork
from face_recon_ros.core.models import FACE_MODEL, NETWORK, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.evaluation.chain import largest
from face_recon_ros.evaluation.datasets import read_stored_image
from face_recon_ros.evaluation.landmarks import LandmarkProjector
from face_recon_ros.evaluation.metrics import INNER
from face_recon_ros.training.data import synthetic_crops
from face_recon_ros.training.photographs import list_photographs

SIDE = 480  # pixels of the picture
WIDTH_M = 0.16  # of what it shows
MAX_TURN_DEG = 18.0


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument(
        "--network", default=NETWORK, help="regression network (default: the shipped one)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("mean_face.png"), help="(default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=300, help="of each, at most")
    arguments = parser.parse_args()
    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    network = FaceNetwork(find_model(arguments.network))
    size, margin = network.size, network.crop_margin
    photographs = photograph_crops(arguments.photographs, arguments.count, size, margin)
    renderings = synthetic_crops(model, margin, size, arguments.count)
    marks = model.landmarks.of(model.mean_shape)[INNER, 1:] * [1, -1]  # right and down
    at = marks * SIDE / WIDTH_M + [SIDE / 2, SIDE / 3]
    panels = []
    for name, crops in (("photographs", photographs), ("renderings", renderings)):
        mean, used = mean_face(crops, network, LandmarkProjector(model), at)
        print(f"{name}: {used} of {len(crops)} look ahead")
        marked = mean.copy()
        for x, y in np.rint(at).astype(int):
            cv2.drawMarker(marked, (int(x), int(y)), (0, 160, 0), cv2.MARKER_CROSS, 7, 1)
        panels += [mean, marked]
    cv2.imwrite(str(arguments.out), np.concatenate(panels, 1)[..., ::-1])
    print(arguments.out)


def photograph_crops(folder: Path, count: int, size: int, margin: float) -> NDArray[np.uint8]:
    """(N, S, S, 3) largest faces of up to `count` photographs, spread over the folder."""
    files = list_photographs(folder)
    files = files[:: max(1, len(files) // count)][:count]
    detector, crops = make_detector(), []
    for file in tqdm(files, desc="photographs", disable=None):
        try:
            image = read_stored_image(file)
        except FaceReconError:
            continue
        found = detector.detect(image)
        if (best := largest(found)) is not None:
            crops.append(crop_from_face_box(found.boxes[best], margin, size).extract(image))
    if not crops:
        raise SystemExit(f"expected photographs of faces in {folder}, got none; check the path")
    return np.stack(crops)


def mean_face(
    crops: NDArray[np.uint8],
    network: FaceNetwork,
    projector: LandmarkProjector,
    at: NDArray[np.float64],
) -> tuple[NDArray[np.uint8], int]:
    """Average of the crops that look ahead, each moved so that its inner landmarks lie `at`.

    Returns:
        (SIDE, SIDE, 3) picture and how many crops it is made of.
    """
    camera, total, used = crop_camera(crops.shape[1]), np.zeros((SIDE, SIDE, 3)), 0
    for crop in tqdm(crops, desc="lined up", disable=None):
        row = network.predict(crop[None]).coefficients
        head = crop_from_face(row.rotation[0], row.translation[0])
        if np.degrees(np.arccos(np.clip(-head.rotation[2, 0], -1, 1))) > MAX_TURN_DEG:
            continue
        points = projector.project(row.identity[0], row.expression[0], head, camera)[INNER]
        affine = np.linalg.lstsq(np.column_stack([points, np.ones(len(points))]), at, rcond=None)[
            0
        ]
        moved = cv2.warpAffine(crop, affine.T, (SIDE, SIDE), flags=cv2.INTER_CUBIC).astype(float)
        total += (moved - moved.mean()) / max(moved.std(), 1.0)
        used += 1
    low, high = np.percentile(total, [1, 99])
    return np.asarray(np.clip((total - low) / (high - low), 0, 1) * 255, np.uint8), used


if __name__ == "__main__":
    try:
        main()
    except FaceReconError as fault:
        sys.exit(str(fault))
