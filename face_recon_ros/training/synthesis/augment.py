"""From a foreground or a photograph to a training crop.

Crop jitter, backgrounds, occluders, and what cameras do to images.

Geometry is moved with its label in closed form; colours are changed so that the network must not
rely on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop_pose import CROP_FOCAL
from face_recon_ros.core.illumination import GAMMA
from face_recon_ros.core.mirror import expression_mirror, identity_mirror, mirror_matrix
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.rigid import rotation_between, rotation_from_vector, vector_from_rotation
from face_recon_ros.training.synthesis.faces import Label

_AXIS = np.array([0.0, 0.0, 1.0])
#: Of R, G, B in a grey picture; in near infrared skin is light and even, lips and redness vanish.
_LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)
_NEAR_INFRARED = np.array([1.25, -0.1, -0.05], np.float32)
#: Bands that are odd in x change sign in a mirror: x, xy, xz.
_MIRRORED_BANDS = np.array([1, 1, 1, -1, -1, 1, 1, -1, 1], np.float32)[:, None]


class Mirror:
    """What the mirror image of a face answers; `identity`, `expression`, `albedo`: (K, K)."""

    def __init__(self, model: MorphableModel) -> None:
        """Solves for mirrored coefficients by least squares over the symmetric vertices."""
        self.identity = identity_mirror(model)
        self.expression = expression_mirror(model)
        self.albedo = mirror_matrix(model, model.albedo_basis, np.ones(3))

    def __call__(self, label: Label) -> Label:
        """Label of the picture flipped left to right about its middle."""
        return Label(
            self.identity @ label.identity,
            self.expression @ label.expression,
            self.albedo @ label.albedo,
            label.rotation * np.array([1, -1, -1], np.float32),
            label.translation * np.array([-1, 1, 1], np.float32),
            label.illumination * _MIRRORED_BANDS,
        )


@dataclass(frozen=True)
class CropChange:
    """Another crop of the same picture.

    Attributes:
        shift: (2,) of the middle, right and down, in old crop sides.
        zoom: new side over old side.
        roll: radians; the picture turns clockwise by this in the new crop.
        flip: mirrored left to right (first of all).
    """

    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    roll: float = 0.0
    flip: bool = False

    def affine(self, old_size: int, new_size: int) -> NDArray[np.float64]:
        """(2, 3) map from pixels of the old crop to pixels of the new one."""
        scale = new_size / (self.zoom * old_size)
        c, s = scale * np.cos(self.roll), scale * np.sin(self.roll)
        linear = np.array([[c, -s], [s, c]])
        middle = (old_size - 1) / 2 + np.array(self.shift) * old_size
        offset = (new_size - 1) / 2 - linear @ middle
        out = np.concatenate([linear, offset[:, None]], 1)
        if self.flip:
            out = out @ np.array([[-1.0, 0, old_size - 1], [0, 1, 0], [0, 0, 1]])
        return np.asarray(out)

    def move_camera(self, intrinsics: NDArray[np.floating]) -> NDArray[np.float64]:
        """(3,) `Rendering.intrinsics` of the picture -> of the crop, whose camera rolls, too."""
        focal, right, down = np.asarray(intrinsics, np.float64)
        away = np.array([-right if self.flip else right, down]) - np.array(self.shift)
        c, s = np.cos(self.roll), np.sin(self.roll)
        principal = np.array([[c, -s], [s, c]]) @ away
        return np.asarray(np.array([focal, *principal]) / self.zoom)

    def move(self, label: Label, mirror: Mirror) -> Label:
        """The label of the new crop, in the terms of `core.crop_pose`."""
        if self.flip:
            label = mirror(label)
        old = label.translation.astype(np.float64)
        old_ray = old / old[2]
        pixel = CROP_FOCAL * old_ray[:2] - np.array(self.shift)
        c, s = np.cos(self.roll), np.sin(self.roll)
        pixel = np.array([[c, -s], [s, c]]) @ pixel / self.zoom
        ray = np.array([*(pixel / CROP_FOCAL), 1.0])
        # image scale around a ray of a pinhole camera: f (1 + r^2)^(3/4)
        stretch = ((ray @ ray) / (old_ray @ old_ray)) ** 0.75
        distance = np.linalg.norm(old) * self.zoom * stretch
        turn = (
            rotation_between(_AXIS, ray)
            @ rotation_from_vector([0, 0, self.roll])
            @ rotation_between(old_ray, _AXIS)
        )
        rotation = vector_from_rotation(turn @ rotation_from_vector(label.rotation))
        return label._replace(
            rotation=rotation.astype(np.float32),
            translation=(ray / np.linalg.norm(ray) * distance).astype(np.float32),
            illumination=_roll_light(label.illumination, self.roll),
        )


def _roll_light(illumination: NDArray[np.float32], roll: float) -> NDArray[np.float32]:
    """The light turns with the picture; exact, since SH bands rotate among themselves."""
    c, s = np.cos(roll), np.sin(roll)
    c2, s2 = np.cos(2 * roll), np.sin(2 * roll)
    out = illumination.astype(np.float64).copy()
    # bands: 1 y, 2 z, 3 x, 4 xy, 5 yz, 6 zz, 7 xz, 8 xx - yy; x' = c x - s y, y' = s x + c y
    out[3], out[1] = (
        c * illumination[3] - s * illumination[1],
        s * illumination[3] + c * illumination[1],
    )
    out[7], out[5] = (
        c * illumination[7] - s * illumination[5],
        s * illumination[7] + c * illumination[5],
    )
    out[8], out[4] = (
        c2 * illumination[8] - s2 * illumination[4],
        s2 * illumination[8] + c2 * illumination[4],
    )
    return out.astype(np.float32)


@dataclass(frozen=True)
class Jitter:
    """How crops scatter: as the detector's boxes do, and a little more.

    Attributes:
        shift: standard deviation, crop sides.
        zoom: standard deviation of the logarithm of the side.
        roll: standard deviation, radians.
        flip: probability.
    """

    shift: float = 0.04
    zoom: float = 0.07
    roll: float = 0.12
    flip: float = 0.5

    def draw(self, random: np.random.Generator, base_zoom: float = 1.0) -> CropChange:
        """One crop; `base_zoom` is the side of a centred crop over the side of the picture."""
        shift = (
            np.clip(random.normal(0, self.shift, 2), -3 * self.shift, 3 * self.shift) * base_zoom
        )
        zoom = base_zoom * float(np.exp(np.clip(random.normal(0, self.zoom), -0.3, 0.3)))
        roll = random.normal(0, self.roll)
        if random.random() < 0.1:
            roll = random.uniform(-0.6, 0.6)
        return CropChange(
            (float(shift[0]), float(shift[1])), zoom, float(roll), random.random() < self.flip
        )


class Example(NamedTuple):
    """One training crop.

    Attributes:
        image: (S, S, 3) uint8.
        label: its answer.
        colour_known: the label's albedo and light explain the colours (they were not bent on the
            way).
    """

    image: NDArray[np.uint8]
    label: Label
    colour_known: bool


class Backgrounds:
    """Procedural pictures, and patches of photographs: `pictures`, (128, 128, 3) uint8 each."""

    def __init__(
        self, seed: int, photographs: list[NDArray[np.uint8]] | None = None, count: int = 300
    ) -> None:
        """Draws `count` pictures; a third come from `photographs` (H, W, 3) if there are any."""
        random = np.random.default_rng(seed)
        self.pictures = []
        for i in range(count):
            if photographs and i % 3 == 0:
                self.pictures.append(
                    _patch(photographs[random.integers(len(photographs))], random)
                )
            else:
                self.pictures.append(_procedural(random))

    def draw(self, size: int, random: np.random.Generator) -> NDArray[np.float32]:
        """(size, size, 3) in [0, 1]."""
        picture = self.pictures[random.integers(len(self.pictures))]
        side = int(random.uniform(0.3, 1.0) * len(picture))
        i, j = random.integers(0, len(picture) - side + 1, 2)
        out = (
            cv2.resize(picture[i : i + side, j : j + side], (size, size)).astype(np.float32) / 255
        )
        if random.random() < 0.5:
            out = out[:, ::-1]
        return np.asarray(out * random.uniform(0.4, 1.2, 3).astype(np.float32))


def compose_example(
    rgba: NDArray[np.uint8],
    label: Label,
    change: CropChange,
    size: int,
    mirror: Mirror,
    backgrounds: Backgrounds,
    random: np.random.Generator,
    *,
    plain: bool = False,
) -> Example:
    """A training crop out of a rendered foreground; `plain`: as a good camera sees it."""
    affine = change.affine(len(rgba), size)
    layer = cv2.warpAffine(rgba, affine, (size, size), flags=cv2.INTER_LINEAR)
    alpha = layer[..., 3:].astype(np.float32) / 255
    if random.random() < 0.5:
        alpha = cv2.GaussianBlur(alpha, (3, 3), 0)[..., None]
    image = layer[..., :3].astype(np.float32) / 255
    inside = np.where(alpha > 0.02, image, 0)
    image = backgrounds.draw(size, random) * (1 - alpha) + inside * alpha
    if plain:
        return Example(_in_8_bits(image), change.move(label, mirror), True)
    if random.random() < 0.25:
        _occlude(image, backgrounds, random)
    image, gain, known = _colours(image, random)
    image = _sensor(image, random)
    if random.random() < 0.08:
        _image_border(image, random)
    label = change.move(label, mirror)
    label = label._replace(illumination=label.illumination * gain.astype(np.float32) ** GAMMA)
    return Example(image, label, known)


def photograph_example(
    photograph: NDArray[np.uint8],
    label: Label,
    change: CropChange,
    size: int,
    mirror: Mirror,
    backgrounds: Backgrounds,
    random: np.random.Generator,
    *,
    strong: bool = True,
) -> Example:
    """A training crop of a photograph; `label` is a teacher's answer for the whole of it."""
    affine = change.affine(len(photograph), size)
    image = cv2.warpAffine(photograph, affine, (size, size)).astype(np.float32) / 255
    known = True
    if strong:
        if random.random() < 0.3:
            _occlude(image, backgrounds, random)
        image, _, known = _colours(image, random)
        known = False
    return Example(
        _sensor(image, random) if strong else _in_8_bits(image),
        change.move(label, mirror),
        known,
    )


def _colours(
    image: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float64], bool]:
    """Exposure and white balance (the label can follow), and what bends colours (it cannot)."""
    cast = 0.3 if random.random() < 0.08 else 0.06  # stage light, sunset, a wrong white balance
    gain = np.exp(random.normal(0, 0.18) + random.normal(0, cast, 3))
    image = image * gain.astype(np.float32)
    known = True
    if random.random() < 0.12:
        image = image * (1 - random.uniform(0.2, 0.75) * _shade(len(image), random)[..., None])
        known = False
    if random.random() < 0.35:
        image = np.clip(image, 0, 1) ** np.float32(np.exp(random.normal(0, 0.25)))
        known = False
    if random.random() < 0.3:
        image = (image - 0.5) * np.float32(random.uniform(0.5, 1.4)) + np.float32(
            0.5 + random.normal(0, 0.07)
        )
        known = False
    if random.random() < 0.3:
        full = random.random() < 0.6
        grey = image @ (_NEAR_INFRARED if full and random.random() < 0.3 else _LUMINANCE)
        amount = np.float32(1.0 if full else random.uniform(-0.5, 1))
        image = image + amount * (grey[..., None] - image)
        known = False
    return image, gain, known


def _shade(size: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(size, size) in [0, 1]: the shadow of a roof, a brim, a branch, sharper than vertices."""
    mask = np.zeros((size, size), np.float32)
    middle, angle = random.uniform(0.1, 0.9, 2) * size, random.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    width = 2 if random.random() < 0.6 else random.uniform(0.05, 0.4)  # a roof's, a branch's
    corners = np.array([[-2, 0], [2, 0], [2, width], [-2, width]]) * size
    polygon = middle + corners[:, :1] * along + corners[:, 1:] * across
    cv2.fillConvexPoly(mask, np.rint(polygon).astype(np.int32), 1.0, cv2.LINE_AA)
    softness = size / 96 * np.exp(random.uniform(np.log(0.4), np.log(5.0)))
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), softness), np.float32)


def _sensor(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, low resolution, noise, JPEG."""
    size = len(image)
    if random.random() < 0.2:
        small = max(12, int(size * random.uniform(0.35, 0.9)))
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if random.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), size / 64 * random.uniform(0.3, 1.2))
    if random.random() < 0.08:  # motion
        length = int(random.integers(3, 7))
        kernel = np.zeros((length, length), np.float32)
        if random.random() < 0.5:
            kernel[length // 2] = 1 / length
        else:
            kernel[:, length // 2] = 1 / length
        image = cv2.filter2D(image, -1, kernel)
    if random.random() < 0.35:
        noise = random.standard_normal(image.shape, np.float32)
        image = image + noise * np.float32(abs(random.normal(0, 0.025)))
    out = _in_8_bits(image)
    if random.random() < 0.4:
        quality = int(random.integers(25, 95))
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])
        out = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.asarray(out, np.uint8)


def _in_8_bits(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5, np.uint8)


def _image_border(image: NDArray[np.uint8], random: np.random.Generator) -> None:
    """The crop reaches over the border of the picture."""
    width = int(random.uniform(0.02, 0.45) * len(image))
    side = random.integers(4)
    view = (
        image[:width],
        image[len(image) - width :],
        image[:, :width],
        image[:, len(image) - width :],
    )
    view[side][...] = 0


def _occlude(
    image: NDArray[np.float32], backgrounds: Backgrounds, random: np.random.Generator
) -> None:
    """Something in front: a hand, a cup, a branch."""
    size = len(image)
    mask = np.zeros((size, size), np.float32)
    x, y = random.uniform(-0.1, 1.1, 2) * size
    kind = random.choice(["hand", "ellipse", "polygon"])
    if kind == "hand":
        angle = random.uniform(0, 2 * np.pi)
        length, thick = (
            random.uniform(0.2, 0.4) * size,
            max(2, int(random.uniform(0.05, 0.09) * size)),
        )
        for k in range(int(random.integers(2, 5))):
            a = angle + (k - 1.5) * random.uniform(0.08, 0.25)
            end = (int(x + length * np.cos(a)), int(y + length * np.sin(a)))
            cv2.line(mask, (int(x), int(y)), end, 1.0, thick, cv2.LINE_AA)
        cv2.circle(mask, (int(x), int(y)), int(thick * 1.7), 1.0, -1, cv2.LINE_AA)
        skin = np.array([0.8, 0.6, 0.5]) * random.uniform(0.3, 1.2)
        fill = np.ones((size, size, 3), np.float32) * skin.astype(np.float32)
        fill *= 1 + 0.1 * (backgrounds.draw(size, random) - 0.5)
    elif kind == "ellipse":
        axes = tuple(int(a) for a in random.uniform(0.06, 0.28, 2) * size)
        cv2.ellipse(
            mask,
            (int(x), int(y)),
            axes,
            float(random.uniform(0, 180)),
            0,
            360,
            1.0,
            -1,
            cv2.LINE_AA,
        )
        fill = backgrounds.draw(size, random)
    else:
        points = np.array([x, y]) + random.normal(0, 0.16 * size, (5, 2))
        cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 1.0, cv2.LINE_AA)
        fill = backgrounds.draw(size, random)
    image += mask[..., None] * (fill - image)


def _patch(
    photograph: NDArray[np.uint8], random: np.random.Generator, size: int = 128
) -> NDArray[np.uint8]:
    """A piece of a photograph, enlarged so that people cannot be recognised, sometimes tinted."""
    height, width = photograph.shape[:2]
    side = int(random.uniform(0.12, 0.4) * min(height, width))
    i, j = int(random.integers(0, height - side)), int(random.integers(0, width - side))
    out = cv2.resize(
        photograph[i : i + side, j : j + side], (size, size), interpolation=cv2.INTER_CUBIC
    )
    tint = random.uniform(0.3, 1.3, 3) if random.random() < 0.6 else np.ones(3)
    return np.asarray(np.clip(out * tint, 0, 255), np.uint8)


def _procedural(random: np.random.Generator, size: int = 128) -> NDArray[np.uint8]:
    """Gradients, clouds, stripes and shapes."""
    a, b = random.uniform(0, 1, (2, 3))
    t = np.linspace(0, 1, size)
    axis = t[:, None, None] if random.random() < 0.5 else t[None, :, None]
    image = np.broadcast_to(a + (b - a) * axis * random.random(), (size, size, 3)).astype(
        np.float32
    )
    image = image.copy()
    for cells in (3, 6, 12, 32, 64):
        if random.random() < 0.6:
            grey = random.random() < 0.5
            noise = random.standard_normal((cells, cells, 1 if grey else 3)).astype(np.float32)
            layer = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC).reshape(
                size, size, -1
            )
            image += random.uniform(0, 0.25) * layer
    for _ in range(int(random.integers(0, 9))):
        colour = random.uniform(0, 1, 3).tolist()
        p, q = (tuple(map(int, v)) for v in random.integers(0, size, (2, 2)))
        kind = random.integers(4)
        if kind == 0:
            cv2.rectangle(image, p, q, colour, -1)
        elif kind == 1:
            cv2.circle(image, p, int(random.integers(4, 40)), colour, -1)
        elif kind == 2:
            cv2.line(image, p, q, colour, int(random.integers(1, 12)))
        else:
            step = int(random.integers(4, 24))
            image[:, p[0] % step :: step] = colour
    if random.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.5, 4))
    return np.asarray(np.clip(image, 0, 1) * 255, np.uint8)
