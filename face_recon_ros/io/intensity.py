"""Pixels of 10, 12, 14 or 16 bits to 8: by what the stream shows, steadily."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Values that span less than this share of their full scale lie far from zero: thermal, counts.
_NARROW_ENTER, _NARROW_LEAVE = 0.25, 0.40
_LOW, _HIGH = 0.5, 99.5  # percentiles: hot and dead pixels decide nothing
_MARGIN = 0.05  # of the range, kept free at both ends
_FORGET = 0.02  # share by which a range that is too wide shrinks, per image
_DULL = 5  # images in a row that are narrow
_SAMPLES = 40_000  # pixels looked at


class IntensityScale:
    """Scales the deep pixels of one stream to 8 bits.

    Messages and files say how many bits a pixel takes, not how many of them the sensor fills.
    There are two cases. Values that span much of their full scale are those of an ordinary
    camera: they are divided by the smallest full scale (8 to 16 bits) that any needed so far.
    Values in a narrow range far from zero (thermal cameras, counts with an offset) are stretched
    between the darkest and the brightest seen; that range widens at once and shrinks slowly, so
    that it does not flicker.
    """

    def __init__(self) -> None:
        """Knows nothing of the stream yet."""
        self._bits = self._narrow = 0
        self._range: tuple[float, float] | None = None

    def __call__(self, pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """The next image of the stream.

        Args:
            pixels: (H, W) or (H, W, C) of any unsigned type deeper than 8 bits.

        Returns:
            The same shape, uint8.
        """
        step = max(1, pixels.size // _SAMPLES)
        low, high = np.percentile(pixels.reshape(-1)[::step], [_LOW, _HIGH])
        bits = min(16, max(self._bits, 8, int(np.ceil(np.log2(high + 1.0)))))
        if self._is_narrow(float(low), float(high), bits):
            bottom, top = self._widened(float(low), float(high))
        else:
            self._range = None
            self._bits = bits
            bottom, top = 0.0, float(2**self._bits - 1)
        table = np.arange(np.iinfo(np.uint16).max + 1, dtype=np.float32)
        table = np.clip((table - bottom) * (255.0 / max(top - bottom, 1.0)), 0.0, 255.0)
        return np.asarray(np.rint(table).astype(np.uint8)[pixels], np.uint8)

    @property
    def used(self) -> bool:
        """Whether any image had deep pixels."""
        return bool(self._bits) or self._range is not None

    @property
    def description(self) -> str:
        """What is shown as black and white, in words; empty while nothing was scaled."""
        if self._range is not None:
            return f"{self._range[0]:.0f} to {self._range[1]:.0f}, stretched"
        return f"{self._bits} bits" if self._bits else ""

    def _is_narrow(self, low: float, high: float, bits: int) -> bool:
        limit = _NARROW_ENTER if self._range is None else _NARROW_LEAVE
        narrow = bits > 8 and high - low < limit * 2**bits and low > _NARROW_ENTER * high
        self._narrow = self._narrow + 1 if narrow else 0
        # One dull image of an ordinary camera changes nothing; a stream of them does.
        return narrow and (self._range is not None or not self._bits or self._narrow > _DULL)

    def _widened(self, low: float, high: float) -> tuple[float, float]:
        margin = _MARGIN * max(high - low, 1.0)
        low, high = low - margin, high + margin
        if self._range is not None:
            before_low, before_high = self._range
            low = min(low, before_low + _FORGET * (low - before_low))
            high = max(high, before_high + _FORGET * (high - before_high))
        self._range = low, high
        return self._range
