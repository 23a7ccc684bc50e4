#!/usr/bin/env python3
"""Lets MediaPipe FaceMesh annotate photographs: NAME.pts and NAME.xyz beside a link to each.

NAME.pts holds 68 points in the picture, NAME.xyz the same with a depth, all in pixels. `face-recon
evaluate landmarks --images OUT` and `evaluate expression --images OUT` then measure against
MediaPipe instead of people, on any photographs; training never sees it. Needs an environment of
its own:

    python3 -m venv mp && mp/bin/pip install mediapipe==0.10.21
    mp/bin/python scripts/mediapipe_points.py PHOTOGRAPHS OUT [--every N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import mediapipe
import numpy as np

#: FaceMesh's vertices nearest to iBUG's points, 0 to 67.
IBUG = """127 234 93 132 58 172 136 150 152 379 365 397 288 361 323 454 356
70 63 105 66 107 336 296 334 293 300 168 197 5 4 75 97 2 326 305
33 160 158 133 153 144 362 385 387 263 373 380
61 39 37 0 267 269 291 405 314 17 84 181 78 82 13 312 308 317 14 87"""
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def main() -> None:
    """Annotates the one face of each photograph; those with none or several are left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument("out", type=Path, help="new folder of links and points")
    parser.add_argument("--every", type=int, default=1, help="take one in so many photographs")
    parser.add_argument(
        "--refined", action="store_true", help="with the model that follows lids and lips closer"
    )
    arguments = parser.parse_args()
    files = sorted(p for p in arguments.photographs.iterdir() if p.suffix.lower() in SUFFIXES)
    files = files[:: arguments.every]
    arguments.out.mkdir(parents=True, exist_ok=True)
    indices, written = np.array(IBUG.split(), int), 0
    solution = mediapipe.solutions.face_mesh
    with solution.FaceMesh(
        static_image_mode=True, max_num_faces=2, refine_landmarks=arguments.refined
    ) as mesh:
        for file in files:
            image = cv2.imread(str(file))
            if image is None:
                continue
            faces = mesh.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).multi_face_landmarks or []
            if len(faces) != 1:
                continue
            width, height = image.shape[1::-1]
            points = np.array([[p.x, p.y, p.z] for p in faces[0].landmark])[indices]
            points = points * [width, height, width] - [0.5, 0.5, 0.0]  # depth is in widths
            np.savetxt(arguments.out / f"{file.stem}.pts", points[:, :2], fmt="%.3f")
            np.savetxt(arguments.out / f"{file.stem}.xyz", points, fmt="%.3f")
            link = arguments.out / file.name
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())
            written += 1
    print(f"{written} of {len(files)} photographs, those with one face, in {arguments.out}")


if __name__ == "__main__":
    main()
