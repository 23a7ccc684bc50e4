"""A scripted room: people who walk, turn away, cross, leave and come back, all of it known.

Seeded, so that anyone can make the same room again. People are heads of the face model with hair
and clothes, or heads with the colours of a portrait. Each walks at a depth of its own, so people
cross before or behind each other. A person is rendered once for each attitude and then pasted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import face_box_from_points
from face_recon_ros.core.illumination import shade
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel, VertexNormals
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.types import Float32, Image
from face_recon_ros.evaluation.mot import TrueFace
from face_recon_ros.evaluation.room_script import RoomConfig, random_path
from face_recon_ros.evaluation.synthetic import facing, soft_light

Array = NDArray[np.float64]

_YAW_STEP_DEG = 5
_NOISE = 2.0  # grey levels
_HAIR = [(0.06, 0.05, 0.05), (0.2, 0.13, 0.08), (0.4, 0.28, 0.16), (0.7, 0.55, 0.35), (0.6,) * 3]
#: Height, half width, half depth of neck, shoulders and chest from the sellion, metres.
_BODY = [
    (-0.09, 0.055, 0.06),
    (-0.13, 0.07, 0.07),
    (-0.16, 0.14, 0.085),
    (-0.2, 0.2, 0.1),
    (-0.45, 0.22, 0.12),
]


@dataclass(frozen=True)
class Person:
    """Appearance of a person.

    Attributes:
        name: who.
        vertices: (V, 3) head and body, face frame, metres.
        triangles: (F, 3).
        colours: (V, 3) sRGB-encoded in [0, 1]: reflectance, or as lit where `lit`.
        skin: vertices of the facial skin.
        lit: colours are of a photograph and need no light.
    """

    name: str
    vertices: Float32
    triangles: NDArray[np.int32]
    colours: Float32
    skin: NDArray[np.intp]
    lit: bool = False


def random_person(model: MorphableModel, name: str, rng: np.random.Generator) -> Person:
    """A person of the face model, whole head, with hair and a pullover."""
    identity = rng.standard_normal(model.k_identity)
    head = model.express(model.neutral(identity), np.zeros(model.k_expression, np.float32))
    colours = model.albedo(1.2 * rng.standard_normal(model.k_albedo)).astype(np.float32)
    return dressed(model, name, head, colours, rng)


def dressed(
    model: MorphableModel,
    name: str,
    head: Float32,
    colours: Float32,
    rng: np.random.Generator,
    *,
    hair: Float32 | None = None,
) -> Person:
    """A head with hair on its scalp and a body below.

    Args:
        model: of the head, whole.
        name: who.
        head: (V, 3) face frame, metres.
        colours: (V, 3) sRGB-encoded.
        rng: of hair and clothes.
        hair: (3,) its colour; drawn without one. With one, colours are taken as lit.
    """
    scalp = np.zeros(model.n_vertices, bool)
    if "scalp" in model.region_names:
        scalp = model.regions == model.region_names.index("scalp")
    normals = VertexNormals(model.triangles, model.n_vertices)(head)
    head, colours = head.copy(), colours.copy()
    head[scalp] += normals[scalp] * np.float32(rng.uniform(0.006, 0.02))
    colours[scalp] = rng.choice(_HAIR) if hair is None else hair
    body, faces = _body()
    clothes = np.broadcast_to(rng.uniform(0.05, 0.9, 3), body.shape).astype(np.float32)
    return Person(
        name,
        np.concatenate([head, body]),
        np.concatenate([model.triangles, faces + len(head)]).astype(np.int32),
        np.concatenate([colours, clothes]),
        np.flatnonzero(model.subsets[FACIAL_SKIN]),
        lit=hair is not None,
    )


def _body() -> tuple[Float32, NDArray[np.int32]]:
    around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rings = [
        np.stack([-0.09 + d * np.cos(around), w * np.sin(around), np.full(24, z)], 1)
        for z, w, d in _BODY
    ]
    i = np.arange(24)
    quads = [
        (24 * k + i, 24 * k + (i + 1) % 24, 24 * (k + 1) + i, 24 * (k + 1) + (i + 1) % 24)
        for k in range(len(rings) - 1)
    ]
    faces = [np.stack(t, 1) for a, b, c, d in quads for t in ((a, c, b), (b, c, d))]
    return np.concatenate(rings).astype(np.float32), np.concatenate(faces).astype(np.int32)


# The picture -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sprite:
    """A person in one attitude, straight ahead. `origin`: the sellion's pixel."""

    picture: NDArray[np.float32]  # (H, W, 4), colour times cover, 0 to 255, and cover
    face: NDArray[np.uint8]  # (H, W) 255 where facial skin is seen
    origin: Array
    box: Array  # about the sellion, pixels
    turned: float


@dataclass(frozen=True)
class RoomFace(TrueFace):
    """A face of the room.

    Attributes:
        camera_from_face: the head.
        visible: share of the face's pixels that are in the picture and not covered.
        yaw: to the ray from the camera, radians; 0 looks into it.
    """

    camera_from_face: Rigid = field(default_factory=Rigid.identity)
    visible: float = 1.0
    yaw: float = 0.0


@dataclass(frozen=True)
class RoomFrame:
    """An image of the room and the faces that are to be seen in it."""

    image: Image
    faces: list[RoomFace]


class Room:
    """The images of a room, in order; iterate as often as you like."""

    def __init__(
        self, config: RoomConfig, model: MorphableModel, people: Sequence[Person] = ()
    ) -> None:
        """Casts the people and writes the script.

        Args:
            config: what happens.
            model: face model, whole head; coarse is fine.
            people: who is in the room, first come first; the rest are random.
        """
        self.config = config
        rng = np.random.default_rng(config.seed)
        n = config.people
        cast = list(people)[:n]
        cast += [random_person(model, f"person_{i}", rng) for i in range(len(cast), n)]
        self.people = cast
        depths = rng.permutation(np.linspace(*config.depths_m, max(n, 1)))[:n]
        starts = rng.permutation(np.linspace(-1, 1, n)) if n > 1 else np.zeros(n)
        self.paths = [
            random_path(config, float(z), float(start), rng)
            for z, start in zip(depths, starts, strict=True)
        ]
        guess = PinholeCamera.from_fov(config.width, config.height, config.fov_deg)
        self.camera = PinholeCamera(config.width, config.height, guess.matrix)
        self.background = _background(config, rng)
        self._noise = rng.normal(0, _NOISE, (config.height, config.width + 64, 1)).astype(
            np.float32
        )
        self._sprites: dict[tuple[int, int], _Sprite] = {}
        self._normals = [VertexNormals(p.triangles, len(p.vertices)) for p in cast]

    def __len__(self) -> int:
        return round(self.config.seconds * self.config.rate_hz)

    def __iter__(self) -> Iterator[RoomFrame]:
        for k in range(len(self)):
            yield self.frame(k)

    def frame(self, index: int) -> RoomFrame:
        """The frame of a number, rendered."""
        t = index / self.config.rate_hz
        canvas = self.background.copy()
        owner = np.full(canvas.shape[:2], -1, np.int16)
        placed = []
        for i in sorted(range(len(self.people)), key=lambda i: -self.paths[i].z):
            x, yaw = self.paths[i].at(t)
            sprite = self._sprite(i, yaw)
            placed.append((i, x, sprite, self._paste(canvas, owner, i, x, sprite)))
        roll = (index * 17) % 64
        canvas += self._noise[:, roll : roll + canvas.shape[1]]
        rgb = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
        faces = [
            face
            for i, x, sprite, mask in placed
            if (face := self._face(i, x, sprite, mask, owner)) is not None
        ]
        return RoomFrame(Image(rgb, t), faces)

    def _sprite(self, i: int, yaw: float) -> _Sprite:
        step = round(np.degrees(yaw) / _YAW_STEP_DEG) % (360 // _YAW_STEP_DEG)
        if (i, step) not in self._sprites:
            self._sprites[i, step] = self._render(i, np.radians(step * _YAW_STEP_DEG))
        return self._sprites[i, step]

    def _render(self, i: int, yaw: float) -> _Sprite:
        person, z = self.people[i], self.paths[i].z
        fine = 1 if z < 2 else 2
        focal = self.camera.focal_px
        half, up, down = (int(np.ceil(focal / z * m)) for m in (0.27, 0.19, 0.47))
        width, height = 2 * half, up + down
        matrix = np.array([[focal, 0, half], [0, focal, up], [0, 0, 1.0]])
        camera = PinholeCamera(width, height, matrix)
        large = camera.resized(fine * width, fine * height)
        pose = facing([0.0, 0.0, z], yaw=yaw)
        points = pose.apply(person.vertices)
        colours = person.colours
        if not person.lit:
            normals = self._normals[i](person.vertices) @ pose.rotation.T.astype(np.float32)
            colours = shade(colours, normals, soft_light()).astype(np.float32)
        fragments = rasterize(
            large.project(points), points[:, 2], person.triangles, large.height, large.width
        )
        cover = (fragments.triangle >= 0)[..., None].astype(np.float32)
        colour = interpolate(fragments, person.triangles, 255 * colours)
        picture = np.concatenate([colour, cover], axis=-1)
        skin = np.zeros(len(person.vertices), bool)
        skin[person.skin] = True
        is_skin = skin[person.triangles].all(axis=1)
        face = (is_skin[fragments.triangle] & (fragments.triangle >= 0)).astype(np.uint8) * 255
        size = (width, height)
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)
        face = np.asarray(cv2.resize(face, size, interpolation=cv2.INTER_AREA), np.uint8)
        box = face_box_from_points(camera.project(points[person.skin]))
        origin = np.array([half, up], np.float64)
        turned = float((yaw + np.pi) % (2 * np.pi) - np.pi)
        return _Sprite(picture, face, origin, box - np.tile(origin, 2), turned)

    def _paste(
        self, canvas: NDArray[np.float32], owner: NDArray[np.int16], i: int, x: float, s: _Sprite
    ) -> tuple[NDArray[np.bool_], tuple[slice, slice]]:
        """Draws a person; returns what of the face is visible without occluders, and where."""
        height, width = canvas.shape[:2]
        middle = self.camera.project(np.array([[x, self.paths[i].y, self.paths[i].z]]))[0]
        corner = middle - s.origin
        whole = np.floor(corner).astype(int)
        shift = np.float64([[1, 0, corner[0] - whole[0]], [0, 1, corner[1] - whole[1]]])
        size = (s.picture.shape[1] + 1, s.picture.shape[0] + 1)
        x0, y0 = np.clip(whole, 0, [width, height])
        x1, y1 = np.clip(whole + size, 0, [width, height])
        where = (slice(y0, y1), slice(x0, x1))
        inner = (slice(y0 - whole[1], y1 - whole[1]), slice(x0 - whole[0], x1 - whole[0]))
        if x1 <= x0 or y1 <= y0:
            return np.zeros((0, 0), bool), where
        layer = cv2.warpAffine(s.picture, shift, size)[inner]
        canvas[where] = canvas[where] * (1.0 - layer[..., 3:]) + layer[..., :3]
        owner[where][layer[..., 3] > 0.5] = i
        return cv2.warpAffine(s.face, shift, size)[inner] > 127, where

    def _face(
        self,
        i: int,
        x: float,
        sprite: _Sprite,
        placed: tuple[NDArray[np.bool_], tuple[slice, slice]],
        owner: NDArray[np.int16],
    ) -> RoomFace | None:
        """The truth about a person's face; None where there is none to be seen."""
        mask, where = placed
        config, path = self.config, self.paths[i]
        whole = np.count_nonzero(sprite.face > 127)
        visible = np.count_nonzero(mask & (owner[where] == i)) / max(whole, 1) if mask.size else 0
        yaw_deg = abs(np.degrees(sprite.turned))
        if yaw_deg > config.no_face_yaw_deg or visible < 0.1:
            return None
        place = np.array([x, path.y, path.z])
        middle = self.camera.project(place[None])[0]
        box = sprite.box + np.tile(middle, 2)
        clear = (
            yaw_deg <= config.clear_yaw_deg
            and visible >= config.clear_share
            and box[2] - box[0] >= config.clear_side_px
        )
        bearing = float(np.arctan2(x, path.z))
        pose = facing(place, yaw=sprite.turned - bearing)
        return RoomFace(self.people[i].name, box, clear, pose, float(visible), sprite.turned)


def _background(config: RoomConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    """(H, W, 3) wall, floor, window, shelves and pictures without faces, 0 to 255."""
    height, width = config.height, config.width
    wall = rng.uniform(140, 210, 3)
    picture = np.ones((height, width, 3), np.float32) * wall.astype(np.float32)
    picture *= np.linspace(0.8, 1.05, width, dtype=np.float32)[None, :, None]
    floor = int(0.72 * height)
    picture[floor:] = rng.uniform(60, 130, 3)
    for _ in range(14):
        w, h = rng.uniform(0.04, 0.2, 2) * width
        x, y = rng.uniform(-0.05, 0.95) * width, rng.uniform(0.0, 0.75) * height
        corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]).astype(np.int32)
        cv2.fillPoly(picture, [corners], rng.uniform(30, 230, 3).tolist())
        cv2.polylines(picture, [corners], True, rng.uniform(20, 90, 3).tolist(), 3)
    texture = rng.normal(0, 8, (height // 4, width // 4, 1)).astype(np.float32)
    return picture + cv2.resize(texture, (width, height))[..., None]
