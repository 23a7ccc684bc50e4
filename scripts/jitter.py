#!/usr/bin/env python3
"""How much a still face trembles when the detector's box does: no smoothing, one pass.

Each portrait is scaled until its face box is --face-px wide; boxes scatter around the one found,
as a detector's do. Printed is the root mean square distance of the facial skin's vertices from
their own mean, in pixels of the scaled portrait.

    scripts/jitter.py PORTRAITS [--network FILE] [--count 20]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tqdm import tqdm  # noqa: E402

from face_recon_ros.core.crop import crop_from_face_box  # noqa: E402
from face_recon_ros.core.crop_pose import crop_camera, crop_from_face  # noqa: E402
from face_recon_ros.core.detection import make_detector  # noqa: E402
from face_recon_ros.core.errors import FaceReconError  # noqa: E402
from face_recon_ros.core.inference import FaceNetwork  # noqa: E402
from face_recon_ros.core.models import FACE_MODEL, NETWORK, find_model  # noqa: E402
from face_recon_ros.core.morphable_model import (  # noqa: E402
    FACIAL_SKIN,
    MorphableModel,
    load_morphable_model,
)
from face_recon_ros.evaluation.chain import largest  # noqa: E402
from face_recon_ros.evaluation.datasets import read_image  # noqa: E402
from face_recon_ros.training.photographs import list_photographs  # noqa: E402

SCATTER, ZOOM = 0.012, 0.02  # of the box's side: standard deviations of its middle and its size


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("portraits", type=Path, help="a folder")
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--count", type=int, default=20, help="portraits, spread over the folder")
    parser.add_argument("--boxes", type=int, default=100, help="per portrait")
    parser.add_argument("--face-px", type=float, default=100.0, help="width of the face box")
    arguments = parser.parse_args()
    network = FaceNetwork(find_model(arguments.network))
    skin = load_morphable_model(find_model(FACE_MODEL), level="coarse").subset(FACIAL_SKIN)
    files = list_photographs(arguments.portraits)
    files = files[:: max(1, len(files) // arguments.count)][: arguments.count]
    detector, found = make_detector(), []
    for number, file in enumerate(tqdm(files, desc="portraits", disable=None)):
        image = read_image(file)
        faces = detector.detect(image)
        if (best := largest(faces)) is None:
            continue
        scale = arguments.face_px / (faces.boxes[best][2] - faces.boxes[best][0])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        boxes = scattered(faces.boxes[best] * scale, arguments.boxes, number)
        found.append(jitter_px(image, boxes, network, skin))
    if not found:
        raise SystemExit(f"expected faces in {arguments.portraits}, got none; check the path")
    report = {
        "portraits": len(found),
        "median_px": round(float(np.median(found)), 3),
        "p90_px": round(float(np.percentile(found, 90)), 3),
    }
    print(json.dumps(report, indent=2))


def scattered(box: NDArray[np.floating], count: int, seed: int) -> NDArray[np.float64]:
    """(count, 4) boxes around a (4,) box, as a detector's scatter."""
    random = np.random.default_rng(seed)
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    side = box[2] - box[0]
    middles = middle + random.normal(0, SCATTER * side, (count, 2))
    halves = half * np.exp(random.normal(0, ZOOM, (count, 1)))
    return np.concatenate([middles - halves, middles + halves], 1)


def jitter_px(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    network: FaceNetwork,
    skin: MorphableModel,
) -> float:
    """Root mean square distance, in pixels, of vertices from their mean over (N, 4) boxes."""
    crops = [crop_from_face_box(box, network.crop_margin, network.size) for box in boxes]
    answer = network.predict(np.stack([crop.extract(image) for crop in crops])).coefficients
    camera, points = crop_camera(network.size), []
    for row, crop in enumerate(crops):
        vertices = skin.vertices(answer.identity[row], answer.expression[row])
        in_crop = crop_from_face(answer.rotation[row], answer.translation[row]).apply(vertices)
        points.append(crop.to_image(camera.project(in_crop)))
    away = np.stack(points) - np.mean(points, axis=0)
    return float(np.sqrt((away**2).sum(2).mean()))


if __name__ == "__main__":
    try:
        main()
    except FaceReconError as fault:
        sys.exit(str(fault))
