"""Files of 68 landmarks: `.pts` of pictures, `.pts3d` of meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import DataError

COUNT = 68


def read_landmarks(
    path: str | Path, dimensions: int, *, gaps: bool = False
) -> NDArray[np.float64]:
    """68 landmarks of a `.pts` (2D) or `.pts3d` (3D) file.

    Plain files hold 68 lines, pixel centres at integers. iBUG's own files have a header
    ("version: 1", braces) and count pixels from one as Matlab does; those 2D points move by -1.

    Args:
        path: the file.
        dimensions: 2 or 3.
        gaps: whether points may be missing, written as `nan`.

    Returns:
        (68, dimensions).

    Raises:
        DataError: the file cannot be read, or holds other than 68 points.
    """
    path = Path(path)
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError as fault:
        raise DataError(f"landmarks at {path}", str(fault.strerror), "check the path") from None
    rows = [line.replace(",", " ").split() for line in lines]
    ibug = any(row and row[0].startswith("version") for row in rows)
    rows = [row for row in rows if row and not (row[0] in "{}" or row[0].endswith(":"))]
    try:
        points = np.array([[float(x) for x in row] for row in rows])
    except ValueError:
        points = np.zeros((0, 0))
    if points.shape != (COUNT, dimensions) or not (gaps or np.isfinite(points).all()):
        raise DataError(
            f"{COUNT} lines of {dimensions} numbers",
            f"{len(rows)} lines in {path.name}",
            "restore the annotation",
        )
    return points - 1.0 if ibug and dimensions == 2 else points
