#!/usr/bin/env python3
"""How much a still face trembles when the detector's box does: no smoothing, one pass.

Each portrait is scaled until its face box is --face-px wide; boxes scatter around the one found,
as a detector's do. Printed is the root mean square distance of the facial skin's vertices from
their own mean, in pixels of the scaled portrait.

    scripts/jitter.py PORTRAITS [--network FILE] [--points FILE] [--count 20]
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path

from face_recon_ros.core.detection import make_detector
from face_recon_ros.core.errors import FaceReconError
from face_recon_ros.core.models import NETWORK
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.evaluation.jitter import JitterScorer, evaluate_jitter
from face_recon_ros.evaluation.stills import Execution
from face_recon_ros.io.jobs import PerProcess, Pool
from face_recon_ros.training.photographs import list_photographs


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("portraits", type=Path, help="a folder")
    parser.add_argument("--network", default=NETWORK, help="regression network")
    parser.add_argument("--points", default="auto", help="dense-point network, or off")
    parser.add_argument("--count", type=int, default=20, help="portraits, spread over the folder")
    parser.add_argument("--boxes", type=int, default=100, help="per portrait")
    parser.add_argument("--face-px", type=float, default=100.0, help="width of the face box")
    arguments = parser.parse_args()
    config = ReconstructorConfig(
        network=arguments.network, points=arguments.points, part="facial_skin", colours="off"
    )
    files = list_photographs(arguments.portraits)
    files = files[:: max(1, len(files) // arguments.count)][: arguments.count]
    scorer = JitterScorer(
        PerProcess(make_detector),
        PerProcess(functools.partial(FaceReconstructor.from_config, config)),
        arguments.boxes,
        arguments.face_px,
    )
    found = evaluate_jitter(files, scorer, Execution(Pool(), bar=True))
    if not found["faces"]:
        raise SystemExit(f"expected faces in {arguments.portraits}, got none; check the path")
    report = {
        "portraits": found["faces"],
        "median_px": round(found["median"], 3),
        "p90_px": round(found["p90"], 3),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    try:
        main()
    except FaceReconError as fault:
        sys.exit(str(fault))
