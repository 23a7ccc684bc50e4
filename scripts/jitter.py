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

import numpy as np
from tqdm import tqdm

from face_recon_ros.core.detection import make_detector
from face_recon_ros.core.errors import FaceReconError
from face_recon_ros.core.models import NETWORK
from face_recon_ros.core.reconstructor import (
    FaceReconstructor,
    ReconstructorConfig,
)
from face_recon_ros.evaluation.chain import largest
from face_recon_ros.evaluation.datasets import read_image
from face_recon_ros.evaluation.jitter import (
    jitter_px,
    scaled_to,
    scattered_boxes,
)
from face_recon_ros.training.photographs import list_photographs


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("portraits", type=Path, help="a folder")
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--count", type=int, default=20, help="portraits, spread over the folder")
    parser.add_argument("--boxes", type=int, default=100, help="per portrait")
    parser.add_argument("--face-px", type=float, default=100.0, help="width of the face box")
    arguments = parser.parse_args()
    config = ReconstructorConfig(network=arguments.network, part="facial_skin", colours="off")
    reconstructor = FaceReconstructor.from_config(config)
    files = list_photographs(arguments.portraits)
    files = files[:: max(1, len(files) // arguments.count)][: arguments.count]
    detector, found = make_detector(), []
    for number, file in enumerate(tqdm(files, desc="portraits", disable=None)):
        image = read_image(file)
        faces = detector.detect(image)
        if (best := largest(faces)) is None:
            continue
        image, box = scaled_to(image, faces.boxes[best], arguments.face_px)
        boxes = scattered_boxes(box, arguments.boxes, np.random.default_rng(number))
        found.append(jitter_px(image, boxes, reconstructor))
    if not found:
        raise SystemExit(f"expected faces in {arguments.portraits}, got none; check the path")
    report = {
        "portraits": len(found),
        "median_px": round(float(np.median(found)), 3),
        "p90_px": round(float(np.percentile(found, 90)), 3),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    try:
        main()
    except FaceReconError as fault:
        sys.exit(str(fault))
