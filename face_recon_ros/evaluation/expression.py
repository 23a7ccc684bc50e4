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
