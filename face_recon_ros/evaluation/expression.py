"""How far expressions can be trusted: channel by channel, and on photographs by measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: Channels whose answers correlate less with the truth are marked as untrusted.
TRUSTED_CORRELATION = 0.5
#: An activation above this counts as shown.
SHOWN = 0.05


def channel_table(names: Sequence[str], ours: ArrayLike, truth: ArrayLike) -> list[dict[str, Any]]:
    """Correlation and amplitude of every channel.

    Args:
        names: of the K channels.
        ours: (N, K) answers.
        truth: (N, K).

    Returns:
        For each channel: name, correlation (NaN where one side never changes), amplitude (slope
        of the answers over the truth), shown (share of samples in which the truth is active) and
        trusted.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(truth, np.float64)
    table = []
    for name, x, y in zip(names, a.T, b.T, strict=True):
        r, slope = correlation(x, y), amplitude(x, y)
        table.append(
            {
                "name": name,
                "correlation": r,
                "amplitude": slope,
                "shown": float((np.abs(y) > SHOWN).mean()) if len(y) else float("nan"),
                "trusted": bool(r >= TRUSTED_CORRELATION),
            }
        )
    return table


def measures(points: ArrayLike) -> dict[str, float]:
    """What a face does, measured on its 68 landmarks in 3D, whatever its place, size and attitude.

    Lengths are shares of the distance of the outer eye corners; heights are taken along the
    direction from the base of the nose to the eyes.

    Args:
        points: (68, 3) iBUG order, any frame and unit; a mirrored frame will do.

    Returns:
        `MEASURES` -> value; NaN where the eye corners coincide.
    """
    p = np.asarray(points, np.float64)
    across = p[45] - p[36]
    size = float(np.linalg.norm(across))
    if not size > 0:
        return dict.fromkeys(MEASURES, float("nan"))
    across = across / size
    up = p[[36, 39, 42, 45]].mean(axis=0) - p[33]
    up = up - (up @ across) * across
    up = up / np.linalg.norm(up)

    def gap(a: int, b: int) -> float:
        return float(np.linalg.norm(p[a] - p[b]))

    def height(above: list[int], below: list[int]) -> float:
        return float((p[above].mean(axis=0) - p[below].mean(axis=0)) @ up) / size

    eyes = [(gap(37, 41) + gap(38, 40)) / gap(36, 39), (gap(43, 47) + gap(44, 46)) / gap(42, 45)]
    return {
        "lids": float(np.mean(eyes)) / 2,
        "lips": gap(62, 66) / size,
        "mouth_width": gap(48, 54) / size,
        "mouth_corners": height([48, 54], [51, 57]),
        "inner_brows": height([21, 22], [39, 42]),
        "outer_brows": height([17, 18, 25, 26], [36, 45]),
    }


#: Measure -> what it says, and channels that should move it, those that lower it with a minus.
MEASURES = {
    "lids": ("gap of the lids over the width of the eye", ("-eyeBlink", "+eyeWide", "-eyeSquint")),
    "lips": ("gap of the lips", ("+jawOpen",)),
    "mouth_width": ("width of the mouth", ("+mouthSmile", "-mouthPucker", "-mouthFunnel")),
    "mouth_corners": ("height of the mouth's corners", ("+mouthSmile", "-mouthFrown")),
    "inner_brows": ("height of the inner brows over the eyes", ("+browInnerUp", "-browDown")),
    "outer_brows": ("height of the outer brows over the eyes", ("+browOuterUp", "-browDown")),
}


def untrusted(table: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the channels that are not to be trusted, in order."""
    return [row["name"] for row in table if not row["trusted"]]


def correlation(ours: ArrayLike, truth: ArrayLike) -> float:
    """Pearson's, of (N,) and (N,); NaN where one of them does not change."""
    x, y = (np.asarray(v, np.float64) - np.mean(v) if np.size(v) else _NONE for v in (ours, truth))
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def amplitude(ours: ArrayLike, truth: ArrayLike) -> float:
    """Slope of least squares of (N,) answers over the (N,) truth; NaN where that is constant."""
    x, y = (np.asarray(v, np.float64) - np.mean(v) if np.size(v) else _NONE for v in (ours, truth))
    return float(x @ y / (y @ y)) if y @ y > 0 else float("nan")


_NONE: Array = np.zeros(0)
