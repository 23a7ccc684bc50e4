"""Random cameras, encodings and containers against the truth: is anything wrong without a word?

Each case makes an image of a known scene by a known camera at a known time, two points of a face
at a known distance, and writes them as a driver, recorder or phone would, often with an oddity.
What is read is compared with the truth: pixels, time, K by the distance that follows from it.
A case is `right`, `refused` (one line), `warned` (something is off and said so) or `wrong`: off
without a word. `python test/io/fuzz_inputs.py --cases 5000` prints the count of each.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import input_tables as t
import numpy as np

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import FaceReconError
from face_recon_ros.core.types import Image
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.messages import ImageStream
from face_recon_ros.io.sources import SourceConfig, open_source, with_cameras

RIGHT, REFUSED, WARNED, WRONG = "right", "refused", "warned", "wrong"
_EYES_M = 0.063
_FAR_OFF = 0.02  # share of the distance that is wrong
_LATE_S = 1e-3
_GREYS = 12.0  # mean difference of pixels


@dataclass
class Case:
    """What is true and what is sent.

    Attributes:
        camera: of the image.
        info: fields of CameraInfo.
        topic: of the images.
        note: what was done, for whoever reads a failure.
        odd: whether the image is damaged, so that its pixels are not compared.
    """

    camera: PinholeCamera
    info: dict[str, Any]
    topic: str = "/cam/image_raw"
    note: list[str] = field(default_factory=list)
    odd: bool = False


# --- cameras -------------------------------------------------------------------------------------


def random_case(rng: np.random.Generator) -> Case:
    """A camera with any region of interest, binning, scale, distortion, as the message says it."""
    bin_px = int(rng.choice([1, 1, 1, 2]))
    width, height = 2 * rng.integers(16, 48, 2) * bin_px
    left, top = (int(v) for v in rng.choice([0, 8, 20], 2))
    full_w, full_h = (
        int(width + left + rng.choice([0, 16])),
        int(height + top + rng.choice([0, 8])),
    )
    focal = float(rng.uniform(0.6, 2.5) * full_w)
    k = np.array([[focal, 0, full_w * rng.uniform(0.4, 0.6)],
                  [0, focal * rng.uniform(0.98, 1.02), full_h * rng.uniform(0.4, 0.6)],
                  [0, 0, 1.0]])  # fmt: skip
    model, d = random_distortion(rng)
    full = PinholeCamera(full_w, full_h, k, d, model)
    camera = full
    fields: dict[str, Any] = {
        "k": k.ravel(), "d": d, "model": model, "width": full_w, "height": full_h,
    }  # fmt: skip
    case = Case(camera, fields)
    if (full_w, full_h) != (width, height):
        camera = camera.cropped(left, top, int(width), int(height))
        fields["roi"] = (left, top, int(width), int(height))
    if bin_px > 1:
        camera = camera.resized(int(width) // bin_px, int(height) // bin_px)
        fields["binning"] = (bin_px, bin_px)
    case.camera = camera
    p = np.column_stack([k * [[0.9], [0.9], [1.0]], np.zeros(3)])
    fields["p"] = p.ravel()
    if rng.random() < 0.25:
        case.topic = str(rng.choice(["/cam/image_rect", "/cam/image_rect_color", "/rect/image"]))
        ideal = PinholeCamera(full_w, full_h, p[:, :3])
        if "roi" in fields:
            ideal = ideal.cropped(left, top, int(width), int(height))
        case.camera = ideal.resized(camera.width, camera.height)
        case.note.append("rectified")
    elif rng.random() < 0.2 and "roi" not in fields and bin_px == 1:
        scale = int(rng.choice([2, 3]))
        big = case.camera.resized(scale * full_w, scale * full_h)
        fields.update(k=big.matrix.ravel(), width=big.width, height=big.height)
        case.note.append(f"of {scale} times the size")
    return case


def random_distortion(rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """A model and small coefficients of it."""
    model, n = [("plumb_bob", 5), ("plumb_bob", 4), ("plumb_bob", 0),
                ("rational_polynomial", 8), ("equidistant", 4)][rng.integers(5)]  # fmt: skip
    return model, rng.uniform(-0.05, 0.05, n) * np.array([1, 1, 0.1, 0.1, 1, 1, 1, 1])[:n]


def _set(**fields: Any) -> Callable[[Case, np.random.Generator], None]:
    def change(case: Case, rng: np.random.Generator) -> None:
        for name, value in fields.items():
            case.info[name] = value(case, rng) if callable(value) else value

    return change


_ALIASES = {
    "plumb_bob": ("PLUMB_BOB", "Plumb Bob", "radtan", "brown_conrady", "plumb_bob", ""),
    "rational_polynomial": ("Rational_Polynomial", "rational", " rational_polynomial"),
    "equidistant": ("fisheye", "Kannala_Brandt4", "KB4", "equidistant ", "kannala_brandt"),
}


def _without_distortion(case: Case, rng: np.random.Generator) -> str:
    """Zeros are no distortion: then the truth has none either."""
    true = case.camera
    case.camera = PinholeCamera(true.width, true.height, true.matrix)
    return str(rng.choice(["none", "pinhole", "whatever", "fisheye", "mei"]))


def _k(case: Case) -> np.ndarray:
    return np.array(case.info["k"], np.float64).reshape(3, 3)


def _poked(index: int, value: float) -> Callable[[Case, np.random.Generator], Any]:
    def change(case: Case, rng: np.random.Generator) -> np.ndarray:
        k = np.array(case.info["k"], np.float64)
        k[index] = value
        return k

    return change


ODDITIES: dict[str, Callable[[Case, np.random.Generator], None]] = {
    "another name of the model": _set(model=lambda c, r: str(r.choice(_ALIASES[c.info["model"]]))),
    "zeros after the coefficients": _set(
        d=lambda c, r: np.append(c.info["d"], np.zeros(r.integers(1, 9)))
    ),
    "zeros for a model that is unknown": _set(
        d=lambda c, r: np.zeros(r.integers(0, 14)), model=_without_distortion
    ),
    "too many coefficients": _set(
        d=lambda c, r: np.append(c.info["d"], r.uniform(0.01, 0.2, r.integers(1, 4)))
    ),
    "too few coefficients": _set(d=lambda c, r: c.info["d"][: r.integers(1, 4)]),
    "an unknown model": _set(model=lambda c, r: str(r.choice(["ftheta", "mei", "division", "x"]))),
    "NaN in D": _set(d=lambda c, r: np.append(c.info["d"][1:], np.nan)),
    "no size": _set(width=0, height=0),
    "a region of interest outside": _set(roi=lambda c, r: (r.integers(1, 9), 500, 40, 40)),
    "a region of interest of another image": _set(roi=(0, 0, 10, 14)),
    "binning that was applied already": _set(binning=(2, 2)),
    "another aspect": _set(height=lambda c, r: c.info["height"] * 3),
    "sides swapped": _set(
        width=lambda c, r: c.info["height"], height=lambda c, r: c.info["width"] + 7
    ),
    "K column by column": _set(k=lambda c, r: _k(c).T.ravel()),
    "K without its 1": _set(k=_poked(8, 0.0)),
    "K with noise below": _set(k=_poked(6, 5.0)),
    "K of zeros": _set(k=np.zeros(9)),
    "NaN in K": _set(k=_poked(2, np.nan)),
    "a negative focal length": _set(k=_poked(0, -300.0)),
    "K in shares of the width": _set(k=lambda c, r: (_k(c) / c.info["width"]).ravel()),
    "K in micrometres": _set(k=lambda c, r: (_k(c) * 1e6).ravel()),
    "P of zeros": _set(p=np.zeros(12)),
    "NaN in P": _set(p=np.full(12, np.nan)),
}


# --- images --------------------------------------------------------------------------------------


def random_pixels(rgb: np.ndarray, rng: np.random.Generator) -> tuple[str, Callable[[int], Any]]:
    """A name and what makes the image message of it, raw or compressed, at a time."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    bits = int(rng.choice([8, 10, 12, 14, 16]))
    deep = rgb.astype(np.uint16) << (bits - 8)
    kind = str(rng.choice(
        ["rgb8", "bgr8", "rgba8", "mono8", "rgb16", "bgr16", "mono16", "16UC1", "thermal", "nv12",
         "yuyv", "bayer_grbg8", "bayer_rggb16", "jpeg", "jpeg cut", "png", "png 16", "32FC1",
         "fancy", "padded"]
    ))  # fmt: skip
    if kind in ("jpeg", "jpeg cut", "png", "png 16"):
        if kind == "png 16":
            data = cv2.imencode(".png", grey.astype(np.uint16) << (bits - 8))[1].tobytes()
        else:
            suffix = ".png" if kind == "png" else ".jpg"
            data = cv2.imencode(suffix, rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[
                1
            ].tobytes()
        if kind == "jpeg cut":
            data = data[: -2 if rng.random() < 0.5 else len(data) // 2]
        return kind, lambda ns: t.compressed_message(data, "jpeg", ns)
    height, width = grey.shape
    size: tuple[int, int] | None = None
    mosaics = {"bayer_grbg8": (1, 0, 2, 1), "bayer_rggb16": (0, 1, 1, 2)}
    if kind in mosaics:
        pixels = np.empty_like(grey)
        for i, channel in enumerate(mosaics[kind]):
            pixels[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, channel]
        pixels = pixels.astype(np.uint16) << (bits - 8) if kind.endswith("16") else pixels
    elif kind in ("nv12", "yuyv"):
        i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
        y, chroma = i420[:height], i420[height:].reshape(2, height // 2, width // 2)
        if kind == "nv12":
            pixels = np.vstack([y, np.stack(list(chroma), -1).reshape(height // 2, width)])
            size = (height, width) if rng.random() < 0.5 else None
        else:
            u, v = np.repeat(chroma, 2, axis=1)
            pixels = np.stack([y, np.stack([u, v], -1).reshape(height, width)], -1)
    else:
        pixels = {
            "rgb8": rgb, "bgr8": rgb[..., ::-1], "fancy": rgb, "mono8": grey,
            "rgba8": np.dstack([rgb, grey]), "rgb16": deep, "bgr16": deep[..., ::-1],
            "mono16": grey.astype(np.uint16) << (bits - 8),
            "16UC1": grey.astype(np.uint16) << (bits - 8),
            "thermal": grey.astype(np.uint16) * 5 + 27000,
            "32FC1": grey.astype(np.float32), "padded": np.pad(rgb, ((0, 0), (0, 3), (0, 0))),
        }[kind]  # fmt: skip
    encoding = {"thermal": "mono16", "padded": "rgb8"}.get(kind, kind)
    if kind == "padded":
        size = (height, width)
    pixels = np.ascontiguousarray(pixels)
    return kind, lambda ns: t.image_message(pixels, encoding, ns, size=size)


def shows(rgb: np.ndarray, truth: np.ndarray, kind: str) -> bool:
    """Whether an image shows what is true: in light and shade where its scale is free."""
    if rgb.shape != truth.shape:
        return False
    inner = (slice(3, -3), slice(3, -3))
    seen, true = rgb[inner].astype(float), truth[inner].astype(float)
    if kind in ("mono8", "mono16", "16UC1", "thermal", "png 16"):
        seen, true = seen.mean(2), cv2.cvtColor(truth, cv2.COLOR_RGB2GRAY)[inner].astype(float)
        return bool(np.corrcoef(seen.ravel(), true.ravel())[0, 1] > 0.98 and seen.std() > 8)
    return bool(np.abs(seen - true).mean() < _GREYS)


# --- comparison ----------------------------------------------------------------------------------


def distance_error(true: PinholeCamera, read: PinholeCamera, rng: np.random.Generator) -> float:
    """Share by which the distance of a face is off that `true` took and `read` measures."""
    for _ in range(20):
        z = rng.uniform(0.5, 3.0)
        middle = rng.uniform(0.3, 0.7, 2) * [true.width, true.height]
        ray = true.rays_from_pixels(middle)
        eyes = ray * z + np.array([[-_EYES_M / 2, 0, 0], [_EYES_M / 2, 0, 0]])
        pixels = true.project(eyes)
        if np.isfinite(pixels).all():
            break
    rays = read.rays_from_pixels(pixels)
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    seen = np.linalg.norm(rays[0] - rays[1])
    real = eyes / np.linalg.norm(eyes, axis=-1, keepdims=True)
    off_axis = np.linalg.norm(rays.mean(0) - real.mean(0))
    return float(abs(np.linalg.norm(real[0] - real[1]) / max(seen, 1e-9) - 1) + off_axis)


def verdict(
    case: Case,
    kind: str,
    truth: np.ndarray,
    image: Image,
    camera: PinholeCamera,
    warnings: list[str],
    stamp_s: float,
    rng: np.random.Generator,
) -> str:
    """What became of a case that was read."""
    off = []
    if abs(image.stamp - stamp_s) > _LATE_S:
        off.append(f"time {image.stamp - stamp_s:.3f} s")
    if kind != "jpeg cut" and not shows(image.rgb, truth, kind):
        off.append("pixels")
    if not camera.calibrated:
        warnings = [*warnings, "uncalibrated"]
    elif (error := distance_error(case.camera, camera, rng)) > _FAR_OFF:
        off.append(f"distance {error:.1%}")
    if not off:
        return WARNED if warnings else RIGHT
    case.note += off
    return WARNED if warnings else WRONG


def one_message(rng: np.random.Generator) -> tuple[str, Case, str]:
    """A live topic: messages as they come."""
    case = random_case(rng)
    kind, truth, make = _pictured(case, rng)
    resolver = CameraResolver(image_topic=case.topic)
    resolver.update(t.info_message(**case.info))
    stream, ns = ImageStream(), t.START_NS + int(rng.integers(10**9))
    image = stream.read(make(ns))
    camera = resolver(image)
    warnings = [w for w in (*resolver.warnings, stream.warning) if w]
    return verdict(case, kind, truth, image, camera, warnings, ns * 1e-9, rng), case, kind


def _pictured(
    case: Case, rng: np.random.Generator
) -> tuple[str, np.ndarray, Callable[[int], Any]]:
    truth = t.scene(case.camera.width, case.camera.height)
    if rng.random() < 0.6:
        name = str(rng.choice(list(ODDITIES)))
        ODDITIES[name](case, rng)
        case.note.append(name)
    kind, make = random_pixels(truth, rng)
    case.note.append(kind)
    return kind, truth, make


def one_bag(rng: np.random.Generator) -> tuple[str, Case, str]:
    """A recording, in any container, perhaps cut off."""
    case = random_case(rng)
    kind, truth, make = _pictured(case, rng)
    times = t.START_NS + np.cumsum(rng.choice([10**7, 10**8, 3 * 10**9], 3))
    rows = []
    for ns in map(int, times):
        place = case.topic.rsplit("/", 1)[0]
        rows.append((f"{place}/camera_info", ns, t.info_message(**case.info, ns=ns)))
        rows.append((case.topic, ns, make(ns)))
    with tempfile.TemporaryDirectory() as folder:
        storage = str(rng.choice(["mcap", "sqlite3"]))
        path = t.write_bag(Path(folder) / "bag", rows, storage)
        (file,) = [p for p in path.iterdir() if p.suffix in (".mcap", ".db3")]
        how = str(rng.choice(["whole", "alone", "cut", "no metadata", "no name"]))
        case.note.append(f"{storage} {how}")
        if how == "alone":
            path = file
        elif how == "cut":
            data = file.read_bytes()
            file.write_bytes(data[: int(rng.uniform(0.2, 0.99) * len(data))])
        elif how == "no metadata":
            (path / "metadata.yaml").unlink()
        elif how == "no name":
            path = Path(shutil.move(file, Path(folder) / "recording"))
        source = open_source(SourceConfig(str(path)))
        resolver = CameraResolver(image_topic=source.topic)  # type: ignore[attr-defined]
        result, seen = RIGHT, 0
        for image, camera in with_cameras(source, resolver):
            warnings = [*resolver.problems, *source.warnings]
            stamp_s = float(times[seen] * 1e-9)
            each = verdict(case, kind, truth, image, camera, warnings, stamp_s, rng)
            result = each if each == WRONG or result == RIGHT else result
            seen += 1
        if seen < len(times) and not source.warnings and result == RIGHT:
            case.note.append(f"{seen} of {len(times)} images")
            result = WRONG
        return result, case, kind


def one_video(rng: np.random.Generator) -> tuple[str, Case, str]:
    """A video file with any times."""
    size = tuple(int(v) for v in 2 * rng.integers(12, 40, 2))
    case = Case(PinholeCamera.from_fov(*size), {})
    gaps = rng.choice([0.02, 0.04, 0.5, 2.5], 5)
    times = np.concatenate([[0.0], np.cumsum(gaps)]).round(3)
    codec, suffix, options = [("libx264", ".mp4", {"preset": "ultrafast"}), ("ffv1", ".mkv", {}),
                              ("mjpeg", ".mov", {})][rng.integers(3)]  # fmt: skip
    case.note.append(f"{codec} {times.tolist()}")
    with tempfile.TemporaryDirectory() as folder:
        path = t.write_video(
            Path(folder) / f"v{suffix}", codec, times, size=size, ticks=1000, options=options,
            pixels="yuvj420p" if codec == "mjpeg" else "yuv420p",
        )  # fmt: skip
        cut = rng.random() < 0.2
        if cut:
            data = path.read_bytes()
            path.write_bytes(data[: int(rng.uniform(0.3, 0.95) * len(data))])
            case.note.append("cut")
        source = open_source(SourceConfig(str(path)))
        images = list(source)
    if len(images) < len(times) and not cut:
        case.note.append(f"{len(images)} of {len(times)} images")
        return WRONG, case, codec
    for k, image in enumerate(images):
        truth = t.moving(k, *size)
        if abs(image.stamp - times[k]) > _LATE_S or (not cut and not shows(image.rgb, truth, "")):
            case.note.append(f"image {k} at {image.stamp:.3f}")
            return (WARNED if source.warnings else WRONG), case, codec
    return RIGHT, case, codec


def one_picture(rng: np.random.Generator) -> tuple[str, Case, str]:
    """A picture file under any name."""
    row = t.PICTURES[rng.integers(len(t.PICTURES))]
    case = Case(PinholeCamera.from_fov(*row.size), {}, note=[row.name])
    with tempfile.TemporaryDirectory() as folder:
        suffix = str(rng.choice([row.suffix, "", ".jpg", ".png", ".mp4"]))
        path = Path(folder) / f"p{suffix}"
        case.note.append(path.name)
        row.write(path)
        source = open_source(SourceConfig(str(path)))
        images = list(source)
    if row.result == t.REFUSED:
        return WRONG, case, row.name
    truth = t.scene(*row.size)
    if row.result == t.WARNED:
        return (WARNED if source.warnings else WRONG), case, row.name
    free = "mono16" if row.tolerance < 0 else ""
    coarse = row.name.startswith("GIF") and images[0].rgb.shape == truth.shape
    good = len(images) == 1 and (coarse or shows(images[0].rgb, truth, free))
    return (RIGHT if good else WRONG), case, row.name


def run(cases: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Tries that many cases; the count of each verdict, and what was wrong or crashed."""
    counts: Counter[str] = Counter()
    bad: list[str] = []
    ways = [one_message] * 13 + [one_bag] * 4 + [one_video] + [one_picture] * 2
    for k in range(cases):
        rng = np.random.default_rng([seed, k])
        way = ways[rng.integers(len(ways))]
        try:
            result, case, _ = way(rng)
        except FaceReconError:
            counts[REFUSED] += 1
            continue
        counts[result] += 1
        if result == WRONG:
            bad.append(f"case {k} ({way.__name__}): {'; '.join(case.note)}")
    return counts, bad


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    totals, wrong = run(args.cases, args.seed)
    print(*wrong, sep="\n")
    print(dict(totals))
    raise SystemExit(bool(wrong))
