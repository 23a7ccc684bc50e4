"""Synthetic faces: the face model itself under a camera, with hair, clothes, glasses and light.

Their labels are known; nothing is annotated. `SyntheticFaces.sample` draws one person and
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
from face_recon_ros.core.crop import face_box_from_points, whole_crop
from face_recon_ros.core.crop_pose import (
    CAMERA_FROM_FRONTAL_FACE,
    CROP_FOCAL,
    coefficients_from_crop_pose,
    crop_from_camera_pose,
)
from face_recon_ros.core.illumination import GAMMA, MIN_SHADING, sh_basis
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.training.rasterizer import interpolate, rasterize, vertex_normals
from face_recon_ros.training.synthesis.expressions import STRONG, mood_of, sample_expression
from face_recon_ros.training.synthesis.lighting import lit, sample_light
from face_recon_ros.training.synthesis.people import Part, People
from face_recon_ros.training.synthesis.portraits import Portraits
from face_recon_ros.training.synthesis.skins import Skins

#: Side of a rendering over the side of the crop that is cut out of it: room for shifts and any
#: roll.
CONTEXT = 1.5
_HELD_OUT = 771
_PORTRAITS = 0.5  # share of people who look like photographed ones, where there are any


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
        intrinsics: (3,) of the camera: focal length, and right and down of the picture's middle
            the principal point; sides of the picture. None: not known.
    """

    rgba: NDArray[np.uint8]
    label: Label
    intrinsics: NDArray[np.float32] | None

    @property
    def camera(self) -> PinholeCamera | None:
        """That took it; None: not known."""
        return None if self.intrinsics is None else camera_of(self.intrinsics, len(self.rgba))


class Person(NamedTuple):
    """A person's identity (K_id,) and albedo (K_alb,), in standard deviations."""

    identity: NDArray[np.float32]
    albedo: NDArray[np.float32]


def draw_person(
    model: MorphableModel,
    random: np.random.Generator,
    population: NDArray[np.floating] | None = None,
) -> Person:
    """A random person, within 2.5 standard deviations.

    Args:
        model: face model.
        random: source of everything.
        population: (K_id,) farthest mean identity: each person is drawn around a part of it, from
            none to all; None: around the face model's mean.
    """
    draws = [random.standard_normal(k) for k in (model.k_identity, model.k_albedo)]
    identity, albedo = (np.clip(x, -2.5, 2.5) for x in draws)
    if population is not None:
        identity += random.random() * population
    return Person(identity.astype(np.float32), albedo.astype(np.float32))


def nominal_distance(model: MorphableModel, margin: float) -> float:
    """Distance, in metres, at which the mean face fills a crop as a detector's box has it."""
    skin = model.mean_shape[model.subsets[FACIAL_SKIN]]
    box = face_box_from_points(skin[:, 1:3])
    return float(CROP_FOCAL * (box[2] - box[0]) * margin)


class SyntheticFaces:
    """Draws people and renders them."""

    def __init__(
        self,
        model: MorphableModel,
        *,
        margin: float,
        size: int = 144,
        skins: Skins | None = None,
        portraits: Portraits | None = None,
        turned_away: float = 0.0,
        population: NDArray[np.floating] | None = None,
        strong_expressions: float = STRONG,
    ) -> None:
        """Prepares what all samples share.

        Args:
            model: face model, coarse level, whole head.
            margin: side of the crop over the side of the face box.
            size: P, pixels per side of a rendering; covers `CONTEXT` crops.
            skins: photographic skin; None: the face model's.
            portraits: people of photographs, whom half of those that `sample` draws look like.
            turned_away: share of people who show the back of the head.
            population: of those whom `sample` draws, as for `draw_person`.
            strong_expressions: share of them, as for `sample_expression`.
        """
        self._model = model
        self._margin = margin
        self._size = size
        self._skin = model.subsets[FACIAL_SKIN]
        self._people = People(model, skins)
        self._portraits = portraits
        self._turned_away = turned_away
        self._population = population
        self._strong = strong_expressions
        self._strands = strand_bank(size=max(320, self._size + 64))

    def sample(
        self,
        random: np.random.Generator,
        person: Person | None = None,
        outfit: np.random.Generator | None = None,
    ) -> Rendering:
        """One person in front of one camera.

        Args:
            random: source of everything else.
            person: the person; None draws one.
            outfit: source of hair, brows, complexion and clothes; None: `random`. The same state
                dresses the same person alike, whatever the expression.
        """
        model = self._model
        worn = None
        if self._portraits and person is None and random.random() < _PORTRAITS:
            worn = self._portraits.draw(random)
        identity, albedo = person or draw_person(model, random, self._population)
        expression = sample_expression(
            model.expression_names, model.expression_prior, random, strong=self._strong
        )
        if worn:
            identity = identity if worn.identity is None else worn.identity
            expression = worn.mixed(expression, random)
        head = model.vertices(identity, expression)
        mood = mood_of(expression, model.expression_names)
        parts = self._people.dress(head, model.albedo(albedo), mood, outfit or random, worn)

        camera, camera_from_face = self._view(head, random)
        crop = whole_crop(self._size)
        in_crop = crop_from_camera_pose(camera_from_face, crop, camera)
        rotation, translation = coefficients_from_crop_pose(in_crop)
        illumination, sun, sun_colour = sample_light(random)

        rgba = self._render(
            parts, head, camera, camera_from_face, in_crop, illumination, sun, sun_colour, random
        )
        values = (identity, expression, albedo, rotation, translation, illumination)
        label = Label(*(np.asarray(v, np.float32) for v in values))
        return Rendering(rgba, label, _intrinsics(camera))

    def held_out(
        self,
        number: int,
        views: int,
        seed: int = 0,
        identity: NDArray[np.float32] | None = None,
    ) -> list[Rendering]:
        """Pictures of a person whom no training draws, dressed alike in all of them.

        Args:
            number: which person.
            views: how many pictures.
            seed: of who they are.
            identity: (K_id,) the person's shape; None draws one.
        """
        # training draws from (seed, index): a third number makes other people
        who = (seed, number, _HELD_OUT)
        person = draw_person(self._model, np.random.default_rng(who), self._population)
        if identity is not None:
            person = Person(identity, person.albedo)
        return [
            self.sample(np.random.default_rng((*who, view)), person, np.random.default_rng(who))
            for view in range(views)
        ]

    def _view(
        self, head: NDArray[np.float32], random: np.random.Generator
    ) -> tuple[PinholeCamera, Rigid]:
        """A head in a room and a camera on it, zoomed to hold `CONTEXT` crops."""
        yaw, pitch, roll = sample_attitude(random)
        if random.random() < self._turned_away:
            yaw = np.radians(random.uniform(110, 250))
        # turn the head: yaw about its up axis, then pitch, then roll about the viewing direction
        turn = (
            rotation_from_vector([roll, 0, 0])
            @ rotation_from_vector([0, pitch, 0])
            @ rotation_from_vector([0, 0, yaw])
        )
        off_axis = rotation_from_vector([*np.radians(random.uniform(-18, 18, 2)), 0])
        distance = sample_distance(random)
        attitude = off_axis @ CAMERA_FROM_FRONTAL_FACE @ turn
        camera_from_face = Rigid(attitude, off_axis @ np.array([0, 0, distance]))
        unit = PinholeCamera(self._size, self._size, np.eye(3))
        box = face_box_from_points(unit.project(camera_from_face.apply(head[self._skin])))
        focal = self._size / (CONTEXT * self._margin * (box[2] - box[0]))
        middle = (box[:2] + box[2:]) / 2 * focal
        principal = (self._size - 1) / 2 - middle
        matrix = np.array([[focal, 0, principal[0]], [0, focal, principal[1]], [0, 0, 1]])
        return PinholeCamera(self._size, self._size, matrix), camera_from_face

    def _render(
        self,
        parts: list[Part],
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
        # shading is in the nominal crop camera's frame, as the label is
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
        for paint in parts[0].paint:
            coordinates = np.zeros((len(vertices), 3), np.float32)
            coordinates[: len(head)] = paint.coordinates
            rgb *= paint.look_up(interpolate(fragments, triangles, coordinates))
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
        eyes = head[self._people.region["eyeball"]]
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


def camera_of(intrinsics: NDArray[np.floating], size: int) -> PinholeCamera:
    """Of a picture of `size` x `size` pixels, from `Rendering.intrinsics`."""
    focal, right, down = np.asarray(intrinsics, np.float64) * size
    middle = (size - 1) / 2
    matrix = [[focal, 0, middle + right], [0, focal, middle + down], [0, 0, 1]]
    return PinholeCamera(size, size, np.array(matrix))


def _intrinsics(camera: PinholeCamera) -> NDArray[np.float32]:
    """As `Rendering` has them, of a square picture."""
    focal, principal = camera.matrix[0, 0], camera.matrix[:2, 2]
    aside = principal - (camera.width - 1) / 2
    return np.asarray(np.array([focal, *aside]) / camera.width, np.float32)


def sample_distance(random: np.random.Generator) -> float:
    """Metres from camera to head: near and far alike."""
    return float(np.exp(random.uniform(np.log(0.35), np.log(6.0))))


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


def strand_bank(count: int = 12, size: int = 320) -> list[NDArray[np.float32]]:
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
