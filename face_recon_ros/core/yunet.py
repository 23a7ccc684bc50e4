"""YuNet (Wu, Peng and Yu 2023, "YuNet: A tiny millisecond-level face detector") in ONNX Runtime.

Contract of the ONNX file, as of OpenCV Zoo:
    input   `input` (1, 3, H, W) float32 BGR, 0 to 255; H and W multiples of 32, open or fixed
    outputs for each stride s of 8, 16, 32 a row per cell of s x s pixels: `cls_s`, `obj_s`
            (1, cells, 1) in [0, 1]; `bbox_s` (1, cells, 4) offset of the centre from the cell and
            log size, both in strides. Others are not read.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.boxes import nms
from face_recon_ros.core.errors import ModelError, reason
from face_recon_ros.core.onnx_session import open_on_cpu, session_options

_STRIDES = (8, 16, 32)
_OUTPUTS = tuple(f"{kind}_{stride}" for stride in _STRIDES for kind in ("cls", "obj", "bbox"))
_MOST = 1000  # candidates that suppression looks at, best first


class YuNet:
    """Boxes as the network draws them. Keeps no memory of earlier pictures."""

    def __init__(
        self, path: str | Path, min_score: float = 0.5, max_side_px: int = 640, threads: int = 2
    ) -> None:
        """Loads the network.

        Args:
            path: of the ONNX file.
            min_score: boxes below are dropped.
            max_side_px: larger pictures are shrunk to this before the search.
            threads: of ONNX Runtime; 0 takes all cores.

        Raises:
            ModelError: it is no such file.
        """
        self._session = open_on_cpu(path, session_options(threads), "a YuNet ONNX file")
        inputs = {i.name: i.shape for i in self._session.get_inputs()}
        missing = {*_OUTPUTS} - {o.name for o in self._session.get_outputs()}
        if len(inputs.get("input", ())) != 4 or missing:
            raise ModelError(
                f"a YuNet ONNX file with an input `input` and outputs {', '.join(_OUTPUTS)}",
                f"{path} with inputs {[*inputs]}, without {sorted(missing)}",
                "take face_detection_yunet_2023mar.onnx of the OpenCV Zoo or the shipped file",
            )
        height, width = inputs["input"][2:]
        self._fixed = (height, width) if isinstance(height, int) else None
        self._path, self._min_score, self._max_side_px = path, min_score, max_side_px

    def __call__(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Finds faces.

        Args:
            rgb: (H, W, 3) uint8.

        Returns:
            (N, 4) boxes x0, y0, x1, y1, pixels of `rgb`, and (N,) scores, best first.
        """
        height, width = rgb.shape[:2]
        small = self._shrunk(rgb)
        # A black border moves nothing.
        h, w = self._fixed or (-(-small.shape[0] // 32) * 32, -(-small.shape[1] // 32) * 32)
        picture = np.zeros((1, 3, h, w), np.float32)
        for channel, plane in enumerate(cv2.split(small)):
            picture[0, 2 - channel, : small.shape[0], : small.shape[1]] = plane
        try:
            values = self._session.run(_OUTPUTS, {"input": picture})
        except Exception as fault:  # onnxruntime raises its own, unexported classes
            raise ModelError(f"{self._path} to run", reason(fault), "restore the file") from None
        boxes, scores = _decode(dict(zip(_OUTPUTS, values, strict=True)), w, self._min_score)
        scale = np.array([width / small.shape[1], height / small.shape[0]] * 2)
        return boxes * scale, scores

    def _shrunk(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = rgb.shape[:2]
        shrink = max(1.0, max(height, width) / self._max_side_px)
        if self._fixed:
            shrink = max(shrink, height / self._fixed[0], width / self._fixed[1])
        if shrink == 1.0:
            return rgb
        size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
        return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _decode(
    values: dict[str, NDArray[np.float32]], width: int, min_score: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes and scores, best first, of the outputs for a picture of that width."""
    boxes, scores = [np.zeros((0, 4))], [np.zeros(0)]
    for stride in _STRIDES:
        product = values[f"cls_{stride}"][0, :, 0] * values[f"obj_{stride}"][0, :, 0]
        cells = np.flatnonzero(product >= min_score**2)
        row, column = np.divmod(cells, width // stride)
        box = values[f"bbox_{stride}"][0, cells].astype(np.float64)
        centre = stride * (box[:, :2] + np.stack([column, row], axis=1))
        half = stride * np.exp(box[:, 2:]) / 2
        boxes.append(np.concatenate([centre - half, centre + half], axis=1))
        scores.append(np.sqrt(product[cells].astype(np.float64)))
    every, score = np.concatenate(boxes), np.concatenate(scores)
    best = np.argsort(-score, kind="stable")[:_MOST]
    every, score = every[best], score[best]
    keep = nms(every.astype(np.float32), score.astype(np.float32))
    return every[keep], score[keep]
