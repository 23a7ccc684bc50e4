"""Synthetic faces: the face model itself under a camera, with hair, clothes, glasses and light.

Their labels cost nothing: nobody annotated anything. `SyntheticFaces.sample` draws one person and
returns a foreground (colour and coverage) with the answer the network should give. Backgrounds,
occluders,
crop jitter and image degradation come later (`augment`), so that one rendering serves several
times.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop, face_box_from_points
from face_recon_ros.core.illumination import GAMMA, MIN_SHADING, sh_basis
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.pose import (
    CAMERA_FROM_FRONTAL_FACE,
    CROP_FOCAL,
    coefficients_from_crop_pose,
    crop_from_camera_pose,
)
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.training.expressions import sample_expression
from face_recon_ros.training.rasterizer import interpolate, rasterize, vertex_normals

#: Side of a rendering over the side of the crop that is cut out of it: room for shifts and any
#: roll.
CONTEXT = 1.5

_REGIONS = ["face", "ear", "scalp", "neck", "lip_upper", "lip_lower", "brow", "eyelid"]
_REGIONS += ["nostril", "eyeball", "mouth_interior", "teeth", "tongue"]
_HAIR_COLOURS = np.array(
    [
        [0.07, 0.06, 0.06],
        [0.10, 0.08, 0.07],
        [0.22, 0.15, 0.10],
        [0.35, 0.24, 0.16],
        [0.50, 0.36, 0.22],
        [0.75, 0.62, 0.42],
        [0.85, 0.77, 0.62],
        [0.55, 0.25, 0.12],
        [0.60, 0.59, 0.58],
        [0.88, 0.87, 0.86],
    ]
)
_HAIR_ODDS = np.array([20, 18, 16, 12, 9, 7, 4, 4, 6, 4], float)
#: Share of the sky that reaches the inside of an open mouth.
_MOUTH_SKY = {"teeth": 0.3, "tongue": 0.5, "mouth_interior": 0.1}
_BODY_RINGS = np.array(  # height, half width, half depth of neck, shoulders and chest, metres
    [
        [-0.095, 0.058, 0.060],
        [-0.120, 0.070, 0.072],
        [-0.150, 0.115, 0.085],
        [-0.185, 0.180, 0.100],
        [-0.240, 0.215, 0.115],
        [-0.450, 0.230, 0.130],
    ]
)


class Label(NamedTuple):
    """The answer for one image; shapes of `core.types.Coefficients`, one row."""

    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    albedo: NDArray[np.float32]
    rotation: NDArray[np.float32]
    translation: NDArray[np.float32]
    illumination: NDArray[np.float32]


class Rendering(NamedTuple):
    """A foreground and its label.

    Attributes:
        rgba: (P, P, 4) uint8, colour (not premultiplied) and coverage.
        label: coefficients for the whole picture taken as a crop of side P.
    """

    rgba: NDArray[np.uint8]
    label: Label


class _Part(NamedTuple):
    """A piece of the scene, face frame, metres; colours are sRGB-encoded reflectance."""

    vertices: NDArray[np.float32]
    triangles: NDArray[np.int32]
    colours: NDArray[np.float32]
    strands: bool = False
    occlusion: NDArray[np.float32] | None = None


def nominal_distance(model: MorphableModel, margin: float) -> float:
    """Distance, in metres, at which the mean face fills a crop as a detector's box has it."""
    skin = model.mean_shape[model.subsets[FACIAL_SKIN]]
    box = face_box_from_points(skin[:, 1:3])
    return float(CROP_FOCAL * (box[2] - box[0]) * margin)


def ambient_occlusion(model: MorphableModel, directions: int = 96) -> NDArray[np.float32]:
    """Share of the sky above it that each vertex of the mean head sees, (V,) in [0, 1]."""
    i = np.arange(directions) + 0.5
    z = 1 - 2 * i / directions
    azimuth = np.pi * (1 + 5**0.5) * i
    rays = np.stack(
        [np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth), z], 1
    )
    normals = vertex_normals(model.mean_shape, model.triangles)
    seen = np.zeros(model.n_vertices)
    total = np.full(model.n_vertices, 1e-9)
    for ray in rays.astype(np.float32):
        facing = np.maximum(normals @ ray, 0)
        seen += facing * lit(model.mean_shape, model.triangles, ray)
        total += facing
    return np.clip(seen / total, 0, 1).astype(np.float32)


def lit(
    vertices: NDArray[np.float32], triangles: NDArray[np.int32], towards_light: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Which vertices a distant light reaches, by a shadow map.

    Args:
        vertices: (V, 3) metres.
        triangles: (F, 3).
        towards_light: (3,) unit vector.

    Returns:
        (V,) 0 or 1.
    """
    resolution, bias = 128, 0.006
    helper = np.array([1.0, 0, 0]) if abs(towards_light[0]) < 0.8 else np.array([0, 1.0, 0])
    across = np.cross(towards_light, helper)
    across /= np.linalg.norm(across)
    frame = np.stack([across, np.cross(towards_light, across), -towards_light]).astype(np.float32)
    p = vertices @ frame.T
    low, high = p.min(0), p.max(0)
    px = (p[:, :2] - low[:2]) / (high[:2] - low[:2]).max() * (resolution - 1)
    depth = p[:, 2] - low[2] + 1.0
    nearest = rasterize(px, depth, triangles, resolution, resolution).depth
    column, row = np.rint(px).astype(int).T
    return (depth <= nearest[row, column] + bias).astype(np.float32)


def directional_light(towards_light: NDArray[np.floating]) -> NDArray[np.float64]:
    """(9,) SH coefficients of a unit distant light (Ramamoorthi and Hanrahan 2001)."""
    band = np.array([1 / 4] + [1 / 6] * 3 + [1 / 16] * 5)  # a_l / (2 l + 1) of max(0, cos)
    return band * sh_basis(np.asarray(towards_light, np.float64))


class SyntheticFaces:
    """Draws people and renders them."""

    def __init__(self, model: MorphableModel, *, margin: float, size: int = 144) -> None:
        """Prepares what all samples share.

        Args:
            model: face model, coarse level, whole head.
            margin: side of the crop over the side of the face box.
            size: P, pixels per side of a rendering; covers `CONTEXT` crops.
        """
        self._model = model
        self._margin = margin
        self._size = size
        self._skin = model.subsets[FACIAL_SKIN]
        region = {name: model.regions == i for i, name in enumerate(model.region_names)}
        none = np.zeros(model.n_vertices, bool)  # not every model has every region
        self._region = {name: region.get(name, none) for name in _REGIONS}
        self._occlusion = ambient_occlusion(model)
        for name, sky in _MOUTH_SKY.items():  # the mean's mouth is closed, and would be black
            self._occlusion[self._region[name]] = sky
        shape = model.mean_shape
        teeth = self._region["teeth"]
        above = shape[:, 2] > np.median(shape[teeth, 2]) if teeth.any() else none
        self._teeth = {"upper": teeth & above, "lower": teeth & ~above}
        self._to_brow = _distance(shape, self._region["brow"])
        self._to_eyeball = _distance(shape, self._region["eyeball"])
        self._to_eyeball[~self._region["eyelid"]] = np.inf
        self._to_bag, self._to_fold = self._creases(shape)
        self._strands = _strand_bank(size=max(320, self._size + 64))

    def _creases(self, shape: NDArray[np.float32]) -> list[NDArray[np.float64]]:
        """(V,) metres to the edge of the bags under the eyes, and to the nasolabial folds."""
        region = self._region
        y, z = np.abs(shape[:, 1]), shape[:, 2]
        out = [np.full(len(shape), np.inf) for _ in range(2)]
        soft = (region["face"] | region["eyelid"]) & (shape[:, 0] > -0.06)
        eyes, wings = shape[region["eyeball"]], shape[region["nostril"]]
        lips = shape[region["lip_upper"] | region["lip_lower"]]
        if len(eyes) and len(wings) and len(lips):
            eye_y, eye_z = np.abs(eyes[:, 1]).mean(), eyes[:, 2].mean()
            a = np.linspace(-1, 1, 15)
            bag = np.stack([eye_y + 0.014 * a, eye_z - 0.013 + 0.006 * a * a], 1)
            start = [np.abs(wings[:, 1]).max() + 0.005, wings[:, 2].mean() + 0.006]
            end = [np.abs(lips[:, 1]).max() + 0.009, lips[:, 2].mean() - 0.006]
            fold = np.linspace(start, end, 15)
            points = np.stack([y, z], 1)[soft]
            for distance, line in zip(out, (bag, fold), strict=True):
                distance[soft] = np.linalg.norm(points[:, None] - line, axis=2).min(1)
        return out

    def sample(self, random: np.random.Generator) -> Rendering:
        """One person in front of one camera."""
        model = self._model
        identity = np.clip(random.standard_normal(model.k_identity), -2.5, 2.5).astype(np.float32)
        albedo = np.clip(random.standard_normal(model.k_albedo), -2.5, 2.5).astype(np.float32)
        expression = sample_expression(model.expression_names, model.expression_prior, random)
        head = model.vertices(identity, expression)
        parts = self._parts(head, model.albedo(albedo), random)

        camera, camera_from_face = self._view(head, random)
        crop = Crop(np.full(2, (self._size - 1) / 2), float(self._size), self._size)
        in_crop = crop_from_camera_pose(camera_from_face, crop, camera)
        rotation, translation = coefficients_from_crop_pose(in_crop)
        illumination, sun, sun_colour = sample_light(random)

        rgba = self._render(
            parts, head, camera, camera_from_face, in_crop, illumination, sun, sun_colour, random
        )
        values = (identity, expression, albedo, rotation, translation, illumination)
        return Rendering(rgba, Label(*(np.asarray(v, np.float32) for v in values)))

    def _view(
        self, head: NDArray[np.float32], random: np.random.Generator
    ) -> tuple[PinholeCamera, Rigid]:
        """A head in a room and a camera on it, zoomed to hold `CONTEXT` crops."""
        yaw, pitch, roll = sample_attitude(random)
        # turn the head: yaw about its up axis, then pitch, then roll about the viewing direction
        turn = (
            rotation_from_vector([roll, 0, 0])
            @ rotation_from_vector([0, pitch, 0])
            @ rotation_from_vector([0, 0, yaw])
        )
        off_axis = rotation_from_vector([*np.radians(random.uniform(-18, 18, 2)), 0])
        distance = float(np.clip(np.exp(random.normal(np.log(1.2), 0.55)), 0.35, 6.0))
        attitude = off_axis @ CAMERA_FROM_FRONTAL_FACE @ turn
        camera_from_face = Rigid(attitude, off_axis @ np.array([0, 0, distance]))
        unit = PinholeCamera(self._size, self._size, np.eye(3))
        box = face_box_from_points(unit.project(camera_from_face.apply(head[self._skin])))
        focal = self._size / (CONTEXT * self._margin * (box[2] - box[0]))
        middle = (box[:2] + box[2:]) / 2 * focal
        principal = (self._size - 1) / 2 - middle
        matrix = np.array([[focal, 0, principal[0]], [0, focal, principal[1]], [0, 0, 1]])
        return PinholeCamera(self._size, self._size, matrix), camera_from_face

    def _parts(
        self, head: NDArray[np.float32], skin: NDArray[np.float32], random: np.random.Generator
    ) -> list[_Part]:
        model, region = self._model, self._region
        colour = _HAIR_COLOURS[random.choice(len(_HAIR_ODDS), p=_HAIR_ODDS / _HAIR_ODDS.sum())]
        colour = np.clip(colour * random.uniform(0.7, 1.3) + random.normal(0, 0.015, 3), 0.02, 1)
        if random.random() < 0.02:
            colour = random.uniform(0, 1, 3)
        skin, head = skin.copy(), head.copy()
        bald = random.random() < 0.10
        scalp = region["scalp"]
        if not bald:
            skin[scalp] = colour
        stubble = random.uniform(0, 0.35) if bald else 0.0
        skin[scalp] = skin[scalp] * (1 - stubble) + stubble * colour
        around = skin[region["face"]].mean(0)
        self._draw_features(skin, colour, random)
        if random.random() < 0.35:  # lipstick
            paint = np.array(
                [random.uniform(0.4, 0.8), random.uniform(0.05, 0.4), random.uniform(0.1, 0.45)]
            )
            for lip in ("lip_upper", "lip_lower"):
                skin[region[lip]] += random.uniform(0.2, 0.8) * (paint - skin[region[lip]])
        if random.random() < 0.2:  # eye shadow
            k = region["eyelid"]
            skin[k] *= random.uniform(0.35, 1.0)
        for inner in ("mouth_interior", "tongue"):
            skin[region[inner]] *= random.uniform(0.25, 0.8)
        normals = vertex_normals(head, model.triangles)
        parts = []
        beard_weight = self._beard(head, random)
        if beard_weight is not None:
            strength = random.uniform(0.2, 0.95)
            skin += (strength * beard_weight)[:, None] * (colour - skin)
            if random.random() < 0.5:
                parts.append(
                    _shell(
                        head,
                        normals,
                        model.triangles,
                        beard_weight > 0.5,
                        random.uniform(0.001, 0.014) * beard_weight,
                        colour,
                    )
                )
        under_chin = random.uniform(0.35, 1.0)  # of the sky: chest and clothes take the rest
        sky = np.where(region["neck"], under_chin, 1) * self._occlusion
        parts.insert(0, _Part(head, model.triangles, np.clip(skin, 0, 1), False, sky))
        if region["teeth"].any():
            parts += self._smile(head, random)
        if not bald:
            parts += self._hair(head, normals, colour, random)
        if random.random() < 0.10:
            parts += self._hat(head, normals, random)
        parts.append(
            _body(
                skin[region["neck"]].mean(0) if region["neck"].any() else around,
                under_chin,
                random,
            )
        )
        return parts

    def _draw_features(
        self,
        skin: NDArray[np.float32],
        hair: NDArray[np.float64],
        random: np.random.Generator,
    ) -> None:
        """Brows from bleached to bushy, lashes, the colours of the eye, and creases; in place."""
        region = self._region
        around = skin[region["face"]].mean(0)
        bleached = random.random() < 0.2
        brow = around if bleached else hair * random.uniform(0.4, 1.0)
        width = random.uniform(0.0015, 0.0045)
        weight = random.uniform(0.2, 0.95) * np.exp(-((self._to_brow / width) ** 2))
        skin += weight[:, None] * (brow - skin)
        lashes = np.exp(-((self._to_eyeball / random.uniform(0.001, 0.0025)) ** 2))
        skin *= 1 - random.uniform(0, 0.9) * lashes[:, None]
        for crease, deepest in ((self._to_bag, 0.35), (self._to_fold, 0.35)):
            depth = deepest * random.random() ** 2
            skin *= 1 - depth * np.exp(-((crease / random.uniform(0.002, 0.004)) ** 2))[:, None]
        eyes = region["eyeball"]
        iris = eyes & (skin.mean(1) < 0.4)
        skin[eyes & ~iris] *= random.uniform(0.5, 1.05)
        skin[iris] *= random.uniform(0.2, 1.2)

    def _beard(
        self, head: NDArray[np.float32], random: np.random.Generator
    ) -> NDArray[np.float32] | None:
        if random.random() > 0.28:
            return None
        region = self._region
        lips = head[region["lip_upper"] | region["lip_lower"]]
        if not len(lips):
            return None
        mouth = lips.mean(0)
        half = np.abs(lips[:, 1]).max() + 1e-6
        y, z = np.abs(head[:, 1]), head[:, 2]
        wobble = 0.004 * np.sin(head[:, 1] * 160 + random.uniform(0, 6)) * random.random()
        kind = random.choice(["full", "goatee", "moustache"], p=[0.55, 0.2, 0.25])
        moustache = _ramp(mouth[2] + 0.017 - z, 0.004) * _ramp(z - mouth[2], 0.003)
        moustache = moustache * _ramp(half * 1.15 - y, 0.004)
        chin = _ramp(mouth[2] - 0.006 - z + wobble, 0.006)
        if kind == "moustache":
            weight = moustache
        elif kind == "goatee":
            weight = np.maximum(chin * _ramp(half * 1.1 - y, 0.005), moustache)
        else:
            cheek = _ramp(y - half * 1.25, 0.008) * _ramp(mouth[2] + 0.03 - z + wobble, 0.012)
            weight = np.maximum(np.maximum(chin, cheek), moustache * (random.random() < 0.8))
        allowed = region["face"] | region["neck"]
        below = _ramp(z - (mouth[2] - 0.075), 0.01)
        return np.asarray(np.clip(weight * below, 0, 1) * allowed, np.float32)

    def _smile(self, head: NDArray[np.float32], random: np.random.Generator) -> list[_Part]:
        """Two rows of teeth behind the lips; the face model's own sit too far back to show."""
        ivory = np.array([0.92, 0.87, 0.78]) * random.uniform(0.6, 1.05)
        ivory = np.clip(ivory + random.normal(0, 0.02, 3), 0, 1)
        forward, angle = random.uniform(0.006, 0.011), np.linspace(-1.25, 1.25, 24)
        overlap = {"upper": random.uniform(0.001, 0.005), "lower": random.uniform(-0.003, 0.001)}
        parts = []
        for row, height in (("upper", -0.009), ("lower", 0.008)):
            gum = head[self._teeth[row]]
            edge = gum[:, 2].min() - overlap["upper"] if row == "upper" else gum[:, 2].max()
            edge += overlap["lower"] * (row == "lower")
            front, half = gum[:, 0].max() + forward, np.abs(gum[:, 1]).max()
            x = front - 0.045 * (1 - np.cos(angle)) - (0.002 if row == "lower" else 0.0)
            y = gum[:, 1].mean() + half * np.sin(angle) / np.sin(1.25)
            z = np.array([[edge], [edge - height]]) + 0.003 * (1 - np.cos(angle)) * np.sign(
                -height
            )
            grid = np.stack([np.broadcast_to(x, z.shape), np.broadcast_to(y, z.shape), z], 2)
            sky = np.tile(np.cos(angle).clip(0.2) * random.uniform(0.6, 1.0), 2)
            parts.append(_grid_part(grid, ivory)._replace(occlusion=sky.astype(np.float32)))
        return parts

    def _hair(
        self,
        head: NDArray[np.float32],
        normals: NDArray[np.float32],
        colour: NDArray[np.float64],
        random: np.random.Generator,
    ) -> list[_Part]:
        region = self._region
        x, y, z = head.T
        hairline = random.uniform(0.045, 0.095)
        if random.random() < 0.3:
            hairline = random.uniform(0.012, 0.045)  # a fringe
        wave = random.uniform(0, 0.01) * np.sin(y * random.uniform(20, 200) + random.uniform(0, 6))
        tilt = random.uniform(-0.3, 0.3) * y  # parted to a side
        temple = random.uniform(0.045, 0.08)  # how far forward the hair comes at the temples
        side = (np.abs(y) > 0.045) & (x < -temple) & (z > random.uniform(-0.02, 0.03))
        over_ears = region["ear"] & (random.random() < 0.35)
        covered = region["scalp"] | over_ears
        covered |= region["face"] & ((z + wave + tilt > hairline) | side)
        amount = np.exp(random.uniform(np.log(0.003), np.log(0.035)))
        lumps = (
            1
            + 0.4 * np.sin(head @ random.normal(0, 40, 3) + 1)
            + 0.3 * np.sin(head @ random.normal(0, 90, 3))
        )
        taper = np.clip((z - 0.0) / 0.08, 0.25, 1.0)
        thickness = amount * np.clip(lumps, 0.3, 2) * taper
        parts = [_shell(head, normals, self._model.triangles, covered, thickness, colour)]
        if random.random() < 0.42 and region["scalp"].any():
            parts.append(_curtain(head[region["scalp"]], amount, colour, random))
        return parts

    def _hat(
        self, head: NDArray[np.float32], normals: NDArray[np.float32], random: np.random.Generator
    ) -> list[_Part]:
        colour = random.uniform(0, 1, 3) * random.uniform(0.2, 1)
        z = head[:, 2]
        edge = random.uniform(0.025, 0.07) + random.uniform(-0.3, 0.3) * (head[:, 0] + 0.1)
        region = self._region
        covered = (region["scalp"] | region["face"] | region["ear"]) & (z > edge)
        shell = _shell(
            head,
            normals,
            self._model.triangles,
            covered,
            np.full(len(head), random.uniform(0.006, 0.03)),
            colour,
        )
        parts = [shell._replace(strands=False)]
        if random.random() < 0.6 and covered.any():  # a brim
            rim = head[covered & (z < z[covered].min() + 0.03)]
            front, width = rim[:, 0].max(), np.abs(rim[:, 1]).max()
            all_round = random.random() < 0.4
            angle = np.linspace(-np.pi if all_round else -1.3, np.pi if all_round else 1.3, 40)
            centre = -0.09
            reach = random.uniform(0.03, 0.09)
            droop = random.uniform(-0.02, 0.02)
            ring = [
                np.stack(
                    [
                        centre + (front - centre + r) * np.cos(angle),
                        (width + 0.006 + r) * np.sin(angle),
                        np.full(40, float(rim[:, 2].min()) + 0.01 + droop * r / reach),
                    ],
                    1,
                )
                for r in np.linspace(0, reach, 4)
            ]
            parts.append(_grid_part(np.stack(ring), colour))
        return parts

    def _render(
        self,
        parts: list[_Part],
        head: NDArray[np.float32],
        camera: PinholeCamera,
        camera_from_face: Rigid,
        crop_from_face: Rigid,
        illumination: NDArray[np.float64],
        sun: NDArray[np.float64],
        sun_colour: NDArray[np.float64],
        random: np.random.Generator,
    ) -> NDArray[np.uint8]:
        starts = np.cumsum([0] + [len(p.vertices) for p in parts])
        vertices = np.concatenate([p.vertices for p in parts]).astype(np.float32)
        triangles = np.concatenate(
            [p.triangles + s for p, s in zip(parts, starts, strict=False)]
        ).astype(np.int32)
        colours = np.concatenate([p.colours for p in parts])
        occlusion = np.concatenate(
            [np.ones(len(p.vertices)) if p.occlusion is None else p.occlusion for p in parts]
        )
        in_camera = camera_from_face.apply(vertices)
        normals = vertex_normals(in_camera, triangles)
        away = (normals * in_camera).sum(1) > 0
        away[: len(head)] = False
        normals[away] *= -1
        # shading is told in the nominal crop camera's frame, as the label is
        crop_from_camera = (crop_from_face.rotation @ camera_from_face.rotation.T).astype(
            np.float32
        )
        n = normals @ crop_from_camera.T
        shading = sh_basis(n) @ illumination
        sun_in_camera = (crop_from_camera.T @ sun).astype(np.float32)
        if random.random() < 0.6:
            shadow = 1 - lit(in_camera, triangles, sun_in_camera)
            direct = np.maximum(n @ sun, 0)[:, None] * sun_colour
            shading = shading - random.uniform(0.3, 0.95) * shadow[:, None] * direct
        shading = (
            np.maximum(shading, MIN_SHADING) * (occlusion ** random.uniform(0.2, 1.1))[:, None]
        )
        colours = colours * np.maximum(shading, MIN_SHADING) ** (1 / GAMMA)
        half = sun - (crop_from_camera @ in_camera.T).T / np.linalg.norm(
            in_camera, axis=1, keepdims=True
        )
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        gloss = random.uniform(0, 0.25) * np.maximum((n * half).sum(1), 0) ** random.uniform(6, 40)
        colours = colours + gloss[:, None] * sun_colour * occlusion[:, None]

        p = camera.project(in_camera).astype(np.float32)
        fragments = rasterize(p, in_camera[:, 2], triangles, self._size, self._size)
        rgb = interpolate(fragments, triangles, colours.astype(np.float32))
        faces = np.cumsum([len(q.triangles) for q in parts])
        part_of_pixel = np.searchsorted(faces, fragments.triangle, side="right")
        strands = np.array([q.strands for q in parts])[np.minimum(part_of_pixel, len(parts) - 1)]
        strands &= fragments.triangle >= 0
        noise = self._texture(random)
        rgb *= 1 + strands[..., None] * random.uniform(0.1, 0.6) * noise[0][..., None]
        rgb *= 1 + random.uniform(0, 0.06) * noise[1][..., None]
        alpha = (fragments.triangle >= 0).astype(np.float32)
        if random.random() < 0.22:
            self._glasses(rgb, alpha, fragments.depth, head, camera, camera_from_face, random)
        rgba = np.concatenate([np.clip(rgb, 0, 1), alpha[..., None]], 2)
        return np.asarray(rgba * 255 + 0.5, np.uint8)

    def _texture(self, random: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        size = self._size
        bank = self._strands[random.integers(len(self._strands))]
        i, j = random.integers(0, bank.shape[0] - size, 2)
        skin = cv2.resize(
            random.standard_normal((size // 3, size // 3)).astype(np.float32), (size, size)
        )
        return bank[i : i + size, j : j + size], skin

    def _glasses(
        self,
        rgb: NDArray[np.float32],
        alpha: NDArray[np.float32],
        depth: NDArray[np.float32],
        head: NDArray[np.float32],
        camera: PinholeCamera,
        camera_from_face: Rigid,
        random: np.random.Generator,
    ) -> None:
        eyes = head[self._region["eyeball"]]
        if eyes[:, 1].min(initial=0.0) >= 0 or eyes[:, 1].max(initial=0.0) <= 0:
            return  # no pair of eyes to wear them
        half_w, half_h = random.uniform(0.021, 0.031), random.uniform(0.014, 0.026)
        power = random.uniform(2, 5)
        angle = np.linspace(0, 2 * np.pi, 28)
        front = eyes[:, 0].max() + random.uniform(0.012, 0.02)
        drop = random.uniform(-0.008, 0.004)
        lens, curves = [], []
        for side in (-1, 1):
            centre = eyes[eyes[:, 1] * side > 0].mean(0)
            c, s = np.cos(angle), np.sin(angle)
            r = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)
            rim = np.stack(
                [
                    front - 0.012 * (r * c) ** 2,
                    centre[1] + side * half_w * r * c,
                    centre[2] + drop + half_h * r * s,
                ],
                1,
            )
            lens.append(rim)
            curves.append(rim)
            hinge = rim[0]
            ear = np.array([-0.095, side * 0.078, centre[2] + 0.004])
            curves.append(hinge + np.linspace(0, 1, 12)[:, None] * (ear - hinge))
        left, right = lens[1][14], lens[0][14]
        curves.append(right + np.linspace(0, 1, 5)[:, None] * (left - right))
        width = max(1, round(random.uniform(0.4, 2.6) * self._size / 144))
        frame = random.uniform(0, 1, 3) * random.choice([0.15, 0.4, 1.0])
        tint = random.uniform(0.75, 1.0) if random.random() < 0.3 else random.uniform(0, 0.2)
        glass = np.array(random.uniform(0, 0.25, 3)) if tint > 0.5 else random.uniform(0, 1, 3)
        size = self._size

        def place(points: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
            q = camera_from_face.apply(points)
            px = camera.project(q)
            ij = np.clip(np.rint(px), 0, size - 1).astype(int)
            return px, q[:, 2] < depth[ij[:, 1], ij[:, 0]] + 0.008

        for rim in lens:
            px, visible = place(rim)
            if visible.mean() > 0.6:
                mask = np.zeros((size, size), np.float32)
                cv2.fillPoly(mask, [np.rint(px).astype(np.int32)], 1.0)
                mask = mask * alpha
                m = (mask * tint)[..., None]
                rgb += m * (glass.astype(np.float32) - rgb)
                if random.random() < 0.25:  # a reflection
                    shine = np.linspace(0, 1, size, dtype=np.float32) ** 2 * random.uniform(
                        0.1, 0.7
                    )
                    rgb += mask[..., None] * np.roll(shine, random.integers(size))[None, :, None]
        for curve in curves:
            px, visible = place(curve)
            px = np.rint(px * 16).astype(np.int32)
            for a in range(len(px) - 1):
                if visible[a] and visible[a + 1]:
                    ends = tuple(map(int, px[a])), tuple(map(int, px[a + 1]))
                    cv2.line(rgb, *ends, frame.tolist(), width, cv2.LINE_AA, 4)
                    cv2.line(alpha, *ends, 1.0, width, cv2.LINE_8, 4)


def sample_attitude(random: np.random.Generator) -> tuple[float, float, float]:
    """Yaw, pitch, roll in radians: mostly frontal, up to +-90, +-40 and +-45 degrees."""
    kind = random.random()
    if kind < 0.5:
        yaw = np.clip(random.normal(0, 22), -60, 60)
    elif kind < 0.85:
        yaw = random.uniform(-60, 60)
    else:
        yaw = random.uniform(-92, 92)
    pitch = np.clip(random.normal(0, 14), -42, 42)
    roll = random.normal(0, 9) if random.random() < 0.8 else random.uniform(-45, 45)
    return tuple(np.radians([yaw, pitch, roll]))


def sample_light(
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Ambient light, a sun or lamp, and sometimes a second one.

    Returns:
        (9, 3) illumination in the crop camera frame, (3,) unit vector to the strongest light,
        (3,) its colour.
    """
    exposure = np.exp(random.normal(-0.1, 0.35))
    share = random.uniform(0.1, 0.9)
    warm = random.normal(0, 0.12)

    def tint() -> NDArray[np.float64]:
        return np.exp(np.array([warm, 0, -warm]) + random.normal(0, 0.04, 3))

    sky = np.zeros((9, 3))
    sky[0] = exposure * (1 - share) * tint()
    gradient = random.normal(0, 0.15, (3, 1)) + np.array([[-0.12], [0.0], [0.0]])  # brighter above
    sky[1:4] = gradient * sky[0]

    def lamp() -> NDArray[np.float64]:
        v = random.standard_normal(3) * [1.0, 0.8, 0.8] + [0, -0.5, -0.7]  # above and in front
        return np.asarray(v / np.linalg.norm(v))

    sun = lamp()
    sun_colour = exposure * share * 2.0 * tint()
    out = sky + directional_light(sun)[:, None] * sun_colour
    if random.random() < 0.4:
        out += directional_light(lamp())[:, None] * (exposure * random.uniform(0, 0.8) * tint())
    return out, sun, sun_colour


def _distance(points: NDArray[np.floating], of: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(V,) metres from each point to the nearest chosen one; infinite where none is chosen."""
    if not of.any():
        return np.full(len(points), np.inf)
    return np.asarray(np.linalg.norm(points[:, None] - points[of], axis=2).min(1), np.float64)


def _ramp(x: NDArray[np.floating], width: float) -> NDArray[np.floating]:
    return np.asarray(np.clip(x / width + 0.5, 0, 1))


def _shell(
    head: NDArray[np.float32],
    normals: NDArray[np.float32],
    triangles: NDArray[np.int32],
    covered: NDArray[np.bool_],
    thickness: NDArray[np.floating],
    colour: NDArray[np.float64],
) -> _Part:
    """A layer over part of the head."""
    keep = covered[triangles].all(1)
    vertices = head + normals * (thickness * covered)[:, None].astype(np.float32)
    colours = np.tile(colour, (len(head), 1))
    return _Part(vertices.astype(np.float32), triangles[keep], colours, True)


def _curtain(
    scalp: NDArray[np.float32],
    amount: float,
    colour: NDArray[np.float64],
    random: np.random.Generator,
) -> _Part:
    """Long hair: an open cylinder that hangs from the scalp."""
    n_angle, n_height = 60, 16
    opening = np.radians(random.uniform(55, 115))
    opening_other = np.clip(opening + random.normal(0, 0.2), 0.9, 2.1)
    angle = np.linspace(opening, 2 * np.pi - opening_other, n_angle)
    top = random.uniform(0.02, 0.07)
    bottom = random.uniform(-0.30, -0.06)
    height = np.linspace(top, bottom, n_height)[:, None]
    down = (top - height) / (top - bottom)
    centre_x = (scalp[:, 0].min() + scalp[:, 0].max()) / 2
    half_x = (scalp[:, 0].max() - scalp[:, 0].min()) / 2 + amount * 0.5
    half_y = np.abs(scalp[:, 1]).max() + 0.006 + amount
    waves = 0.004 * np.sin(angle * random.uniform(5, 25) + down * random.uniform(0, 12))
    flare = 1 + random.uniform(-0.15, 0.35) * down
    sway = random.normal(0, 0.01) * down
    x = centre_x + (half_x * flare + waves) * np.cos(angle)
    y = (half_y * flare + waves) * np.sin(angle) + sway
    z = height + 0.006 * np.sin(angle * 9 + random.uniform(0, 6)) * down
    part = _grid_part(np.stack([x, y, np.broadcast_to(z, x.shape)], 2), colour)
    return part._replace(strands=True)


def _body(skin: NDArray[np.floating], under_chin: float, random: np.random.Generator) -> _Part:
    """Neck, shoulders and chest, turned a little against the head."""
    angle = np.linspace(0, 2 * np.pi, 41)
    wide = random.uniform(0.85, 1.2)
    rings = _BODY_RINGS
    x = -0.09 + rings[:, 2:] * np.cos(angle)
    y = rings[:, 1:2] * wide * np.sin(angle)
    grid = np.stack([x, y, np.broadcast_to(rings[:, :1], x.shape)], 2)
    part = _grid_part(grid, random.uniform(0, 1, 3) * random.choice([0.15, 0.5, 1.0]))
    bare = random.integers(1, 4) * 41  # rings that show skin
    colours = part.colours.copy()
    colours[:bare] = skin
    turn = rotation_from_vector([0, 0, random.normal(0, 0.35)]) @ rotation_from_vector(
        [random.normal(0, 0.15), random.normal(0, 0.2), 0]
    )
    pivot = np.array([-0.09, 0, -0.10])
    vertices = (part.vertices - pivot) @ turn.T + pivot
    sky = np.repeat(np.interp(rings[:, 0], [-0.185, -0.12], [1.0, under_chin]), 41)
    return part._replace(
        vertices=vertices.astype(np.float32), colours=colours, occlusion=sky.astype(np.float32)
    )


def _grid_part(grid: NDArray[np.floating], colour: NDArray[np.floating]) -> _Part:
    """(A, B, 3) points -> a surface through them."""
    rows, columns = grid.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.concatenate(
        [np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    )
    return _Part(
        grid.reshape(-1, 3).astype(np.float32),
        triangles.astype(np.int32),
        np.tile(np.asarray(colour, np.float64), (rows * columns, 1)),
    )


def _strand_bank(count: int = 12, size: int = 320) -> list[NDArray[np.float32]]:
    """Streaky noise in several directions, for hair."""
    random = np.random.default_rng(0)
    out = []
    for i in range(count):
        noise = random.standard_normal((size, size)).astype(np.float32)
        length = 25
        kernel = np.zeros((length, length), np.float32)
        middle, tilt = length // 2, np.pi * i / count
        dx, dy = np.cos(tilt) * middle, np.sin(tilt) * middle
        cv2.line(
            kernel,
            (round(middle - dx), round(middle - dy)),
            (round(middle + dx), round(middle + dy)),
            1.0,
        )
        streaks = cv2.filter2D(noise, -1, kernel / kernel.sum())
        streaks = streaks / streaks.std() + 0.6 * cv2.resize(
            random.standard_normal((12, 12)).astype(np.float32), (size, size)
        )
        out.append(np.clip(streaks, -1.5, 1.5))
    return out
