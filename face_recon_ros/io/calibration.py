"""Which camera took an image: shared by files, bags and live nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from face_recon_ros.core.camera import DEFAULT_HORIZONTAL_FOV_DEG, PinholeCamera
from face_recon_ros.core.errors import CameraError, ConfigError, reason
from face_recon_ros.core.models import user_path
from face_recon_ros.core.types import Image
from face_recon_ros.io.camera_info import (
    CameraReading,
    doubts,
    is_rectified,
    read_camera_info,
    same_view,
    usable_distortion,
)
from face_recon_ros.io.exif import focal_length_px

#: Parameter `rectified`: by the name of the image topic, always, never.
AUTO, YES, NO = "auto", "true", "false"


@dataclass(frozen=True)
class _Told:
    """A CameraInfo, what makes it differ from others, and what it says by size of the image."""

    info: Any
    said: tuple[object, ...]
    readings: dict[tuple[int, int], CameraReading] = field(default_factory=dict)


class CameraResolver:
    """The camera of each image: of a calibration file, else by CameraInfo, else assumed.

    CameraInfo is that of the last `update`; a source that reads a recording calls it in time.

    Attributes:
        readings: how often each origin was used: `calibration`, `CameraInfo`, `EXIF`, `assumed`.
        problems: all that was wrong with CameraInfo so far; see also `warnings`.
    """

    def __init__(
        self,
        calibration: PinholeCamera | str | Path | None = None,
        fov_deg: float = DEFAULT_HORIZONTAL_FOV_DEG,
        *,
        rectified: str = AUTO,
        image_topic: str = "",
        whole: bool = True,
    ) -> None:
        """Reads the calibration, if there is one.

        Args:
            calibration: camera, or path of its file; it goes before any CameraInfo.
            fov_deg: assumed across the longer side of images without either.
            rectified: `auto` (by the topic's name), `true` or `false`: P without D counts.
            image_topic: name of the images' topic.
            whole: False when images may have been cut out of others; see `PinholeCamera`.

        Raises:
            CameraError: the file cannot be read, or no camera has this field of view.
            ConfigError: `rectified` is none of the three.
        """
        if rectified not in (AUTO, YES, NO):
            raise ConfigError(
                f"{AUTO}, {YES} or {NO} for rectified", repr(rectified), "choose one"
            )
        self._name = ""
        self._file_warnings: tuple[str, ...] = ()
        if isinstance(calibration, str | Path) and str(calibration):
            self._name = Path(calibration).name
            calibration, problem = read_calibration_file(calibration)
            self._file_warnings = (problem,) if problem else ()
        self._calibration = calibration if isinstance(calibration, PinholeCamera) else None
        PinholeCamera.from_fov(1, 1, fov_deg)  # a wrong one is told now, and not image by image
        self._fov_deg, self._whole = fov_deg, whole
        self._rectified = rectified
        self.image_topic = image_topic
        self.readings = {"calibration": 0, "CameraInfo": 0, "EXIF": 0, "assumed": 0}
        self.problems: list[str] = list(self._file_warnings)
        self._told = _Told(None, ())
        self._size = 0, 0  # of the last image
        self._usable: dict[tuple[int, int], PinholeCamera] = {}

    @property
    def rectified(self) -> bool:
        """Whether images are taken as rectified."""
        by_name = self._rectified == AUTO and is_rectified(self.image_topic)
        return by_name or self._rectified == YES

    def update(self, info: Any) -> bool:
        """Takes a CameraInfo message; whether it says something else than the one before."""
        said = (
            int(info.width), int(info.height), str(info.distortion_model),
            *(np.asarray(a, np.float64).tobytes() for a in (info.k, info.d, info.p)),
            int(info.binning_x), int(info.binning_y),
            *(int(getattr(info.roi, n)) for n in ("x_offset", "y_offset", "width", "height")),
        )  # fmt: skip
        if said == self._told.said:
            return False
        self._told = _Told(info, said)
        return True

    def forget(self) -> None:
        """Without CameraInfo from now on."""
        self._told = _Told(None, ())
        self._usable.clear()

    def reading(self, width: int = 0, height: int = 0) -> CameraReading:
        """What CameraInfo says about images of a size; without a size, of its own."""
        told, key = self._told, (width, height)
        if told.info is None:
            return CameraReading(None)
        if key not in told.readings:
            reading = read_camera_info(told.info, width, height, rectified=self.rectified)
            if reading.camera is not None:
                self._usable[key] = reading.camera
            elif reading.warnings and key in self._usable:
                warnings = (*reading.warnings, "the last usable CameraInfo counts")
                reading = replace(reading, camera=self._usable[key], warnings=warnings)
            told.readings[key] = reading
            self.problems += [w for w in reading.warnings if w not in self.problems]
        return told.readings[key]

    def camera(self, width: int, height: int) -> PinholeCamera:
        """The camera of an image of this size.

        Raises:
            CameraError: the calibration file is of another aspect ratio.
        """
        self._size = width, height
        if self._calibration is not None:
            self.readings["calibration"] += 1
            return calibration_for(self._calibration, width, height)
        camera = self.reading(width, height).camera
        self.readings["assumed" if camera is None else "CameraInfo"] += 1
        if camera is not None:
            return camera
        return PinholeCamera.from_fov(width, height, self._fov_deg, whole=self._whole)

    def of_picture(self, path: str | Path, width: int, height: int) -> PinholeCamera:
        """The camera of a picture file: where it is not known, by what it noted in the file.

        Args:
            path: of the file.
            width: of the picture as it is shown, pixels.
            height: likewise.
        """
        if self._calibration is None and not self._whole:
            focal_px = focal_length_px(path, width, height)
            if focal_px is not None:
                self.readings["EXIF"] += 1
                half = math.atan(max(width, height) / 2 / focal_px)
                return PinholeCamera.from_fov(width, height, math.degrees(2 * half))
        return self.camera(width, height)

    def __call__(self, image: Image) -> PinholeCamera:
        """The camera of an image; see `camera`."""
        height, width = image.rgb.shape[:2]
        return self.camera(width, height)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the CameraInfo in use for the last image, for as long as it is."""
        if self._calibration is not None or self._told.info is None:
            return self._file_warnings
        return self.reading(*self._size).warnings

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done with the CameraInfo in use for the last image."""
        return () if self._calibration is not None else self.reading(*self._size).notes

    @property
    def source(self) -> str:
        """Where the cameras so far came from, in words."""
        if self._calibration is not None:
            return f"calibration {self._name}".strip()
        assumed = f"field of view assumed to be {self._fov_deg:g} degrees"
        known = " or ".join(name for name in ("CameraInfo", "EXIF") if self.readings[name])
        if not known:
            return assumed
        return known + (f"; without it, {assumed}" if self.readings["assumed"] else "")


def read_calibration_file(path: str | Path) -> tuple[PinholeCamera, str]:
    """The camera of a calibration file as camera_calibration writes it (ost.yaml).

    Returns:
        The camera, and what is odd about it: empty where nothing is.

    Raises:
        CameraError: the file is missing, or is no calibration.
    """
    import yaml

    path = user_path(path)
    remedy = "calibrate with `ros2 run camera_calibration cameracalibrator` and give its ost.yaml"
    try:
        data: dict[str, Any] = yaml.safe_load(path.read_text())
        matrix = np.array(data["camera_matrix"]["data"], np.float64).reshape(3, 3)
        distortion = np.array(data["distortion_coefficients"]["data"], np.float64)
        width, height = int(data["image_width"]), int(data["image_height"])
        stated = str(data.get("distortion_model", "plumb_bob"))
    except OSError as fault:
        raise CameraError(f"a calibration at {path}", str(fault.strerror), remedy) from None
    except (KeyError, TypeError, ValueError, OverflowError, yaml.YAMLError) as fault:
        raise CameraError(
            f"a camera calibration (YAML) at {path}", reason(fault), remedy
        ) from None
    model, distortion, problem = usable_distortion(stated, distortion)
    camera = PinholeCamera(width, height, matrix, distortion, model)
    return camera, "; ".join(filter(None, [problem, *doubts(camera)]))


def calibration_for(camera: PinholeCamera, width: int, height: int) -> PinholeCamera:
    """A calibration made at another resolution of the same sensor, for this image size.

    Raises:
        CameraError: the aspect ratio differs, so it cannot be the same view.
    """
    if (camera.width, camera.height) == (width, height):
        return camera
    if not same_view(camera, width, height):
        raise CameraError(
            f"a calibration of the aspect ratio {width} x {height}",
            f"{camera.width} x {camera.height}",
            "recalibrate at this image size",
        )
    return camera.resized(width, height)
