"""People around the face model: hair, beard, teeth, make-up, hats and clothes.

None of it is in the label: it is what a photograph shows beside the face model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.training.rasterizer import vertex_normals
from face_recon_ros.training.synthesis.complexion import NEEDED, Complexion, Paint
from face_recon_ros.training.synthesis.expressions import Mood
from face_recon_ros.training.synthesis.lighting import ambient_occlusion
from face_recon_ros.training.synthesis.portraits import Portrait
from face_recon_ros.training.synthesis.skins import Skins

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
#: Hair is darker than this share of the skin's lightness; brows end this far above the lids, and
#: temples begin this far behind the sellion.
_DARK, _BROWS_M, _TEMPLE_M = 0.85, 0.025, -0.04
#: Lips this far apart let all light in to the teeth. Shut ones meet in a dark line: this share.
WIDE_OPEN_M, SHUT = 0.006, 0.15
#: Share of people with photographic skin, where there is any.
_PHOTOGRAPHIC = 0.7
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


class Part(NamedTuple):
    """A piece of the scene, face frame, metres; colours are sRGB-encoded reflectance.

    Attributes:
        vertices: (N, 3).
        triangles: (M, 3).
        colours: (N, 3).
        strands: whether it is hair.
        occlusion: (N,) share of the sky that is seen; None: all.
        paint: what is wrapped around it.
        on: (V,) the part of the head that it hangs from; None: its vertices are the head's.
    """

    vertices: NDArray[np.float32]
    triangles: NDArray[np.int32]
    colours: NDArray[np.float32]
    strands: bool = False
    occlusion: NDArray[np.float32] | None = None
    paint: tuple[Paint, ...] = ()
    on: NDArray[np.bool_] | None = None


class People:
    """Dresses heads.

    Attributes:
        region: name -> (V,) which vertices; empty where the model has no such region.
        parting: vertices of the upper and the lower lip between which light reaches the teeth.
        teeth: `upper` and `lower` -> (V,) which vertices.
        complexion: what draws on the skin; None where the model lacks regions.
    """

    def __init__(self, model: MorphableModel, skins: Skins | None = None) -> None:
        """Finds out where on the head things go.

        Args:
            model: face model, coarse level, whole head.
            skins: photographic skin, which most people then have; None: the model's own.
        """
        self._model = model
        self._skins = skins
        found = {name: model.regions == i for i, name in enumerate(model.region_names)}
        none = np.zeros(model.n_vertices, bool)  # not every model has every region
        self.region = {name: found.get(name, none) for name in _REGIONS}
        self._occlusion = ambient_occlusion(model)
        for name, sky in _MOUTH_SKY.items():  # the mean's mouth is closed, and would be black
            self._occlusion[self.region[name]] = sky
        shape = model.mean_shape
        teeth = self.region["teeth"]
        above = shape[:, 2] > np.median(shape[teeth, 2]) if teeth.any() else none
        middle = np.abs(shape[:, 1]) < 0.004
        self.parting = [  # of the lips
            int(np.where(middle & self.region[lip], sign * shape[:, 2], -np.inf).argmax())
            for lip, sign in (("lip_upper", -1), ("lip_lower", 1))
        ]
        self.teeth = {"upper": teeth & above, "lower": teeth & ~above}
        known = all(self.region[name].any() for name in NEEDED)
        self.complexion = Complexion(model) if known else None
        self.brow_hair = self._brows()

    def _brows(self) -> NDArray[np.bool_]:
        """(V,) the model's own brows: what is dark above the lids, in the brows' region or not."""
        region, light = self.region, self._model.mean_albedo.mean(1)
        if not region["eyelid"].any():
            return region["brow"]
        x, _, z = self._model.mean_shape.T
        above = z - z[region["eyelid"]].max()
        dark = light < _DARK * np.median(light[region["face"]])
        there = (above > 0) & (above < _BROWS_M) & (x > _TEMPLE_M)
        return region["brow"] | (region["face"] & dark & there)

    def dress(
        self,
        head: NDArray[np.float32],
        skin: NDArray[np.float32],
        mood: Mood,
        random: np.random.Generator,
        worn: Portrait | None = None,
    ) -> list[Part]:
        """The head, first, and what it wears.

        Args:
            head: (V, 3) metres, face frame.
            skin: (V, 3) albedo, sRGB-encoded.
            mood: what folds the skin.
            random: source of randomness.
            worn: whose skin it has; None: one drawn at random.
        """
        model, region = self._model, self.region
        if random.random() < 0.06:  # nothing but the face model: a bust, a mannequin, a rendering
            bare = np.clip(skin, 0, 1)
            return [Part(head, model.triangles, bare, False, self._occlusion)]
        colour = _HAIR_COLOURS[random.choice(len(_HAIR_ODDS), p=_HAIR_ODDS / _HAIR_ODDS.sum())]
        colour = np.clip(colour * random.uniform(0.7, 1.3) + random.normal(0, 0.015, 3), 0.02, 1)
        if random.random() < 0.02:
            colour = random.uniform(0, 1, 3)
        skin, paint = skin.copy(), ()
        if worn is not None:
            skin, paint = worn.colours.copy(), (worn.detail,)
        elif self._skins is not None and random.random() < _PHOTOGRAPHIC:
            skin, detail = self._skins.draw(skin, random)
            paint = (detail,)
        bald = random.random() < 0.10
        scalp = region["scalp"]
        if not bald:
            skin[scalp] = colour
        stubble = random.uniform(0, 0.35) if bald else 0.0
        skin[scalp] = skin[scalp] * (1 - stubble) + stubble * colour
        around = skin[region["face"]].mean(0)
        if self.complexion is not None and not (worn and worn.plain):
            hair = colour * random.uniform(0.4, 1.0) if random.random() < 0.85 else around
            if random.random() < 0.1:
                hair = around  # only the skin's own brows
            elif not paint:
                skin[self.brow_hair] = around
            paint += (self.complexion.draw(hair / around, mood, random),)
        self._colour_eyes(skin, random)
        self._make_up(skin, around, random)
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
        parts.insert(0, Part(head, model.triangles, np.clip(skin, 0, 1), False, sky, paint))
        if region["teeth"].any():
            parts += self._smile(head, random)
        if not bald:
            parts += self._hair(head, normals, colour, random)
        if random.random() < 0.14:
            parts += self._hat(head, normals, random)
        neck = region["neck"]
        body = _body(skin[neck].mean(0) if neck.any() else around, under_chin, random)
        parts.append(body._replace(on=neck))
        return parts

    def _make_up(
        self, skin: NDArray[np.float32], around: NDArray[np.float32], random: np.random.Generator
    ) -> None:
        """Lips, lipstick, eye shadow and the inside of the mouth, in place."""
        region = self.region
        if random.random() < 0.6:  # lips hardly redder than skin
            pale = random.uniform(0, 0.8)
            for lip in ("lip_upper", "lip_lower"):
                skin[region[lip]] += pale * random.uniform(0.6, 1) * (around - skin[region[lip]])
        if random.random() < 0.3:  # lipstick
            rouge = np.array(
                [random.uniform(0.4, 0.8), random.uniform(0.05, 0.4), random.uniform(0.1, 0.45)]
            )
            for lip in ("lip_upper", "lip_lower"):
                skin[region[lip]] += random.uniform(0.2, 0.8) * (rouge - skin[region[lip]])
        if random.random() < 0.2:  # eye shadow
            k = region["eyelid"]
            skin[k] *= random.uniform(0.35, 1.0)
        for inner in ("mouth_interior", "tongue"):
            skin[region[inner]] *= random.uniform(0.25, 0.8)

    def _colour_eyes(self, skin: NDArray[np.float32], random: np.random.Generator) -> None:
        """White that is not white, and any iris; in place."""
        eyes = self.region["eyeball"]
        iris = eyes & (skin.mean(1) < 0.4)
        skin[eyes & ~iris] *= random.uniform(0.5, 1.05)
        skin[iris] *= random.uniform(0.2, 1.2)

    def _beard(
        self, head: NDArray[np.float32], random: np.random.Generator
    ) -> NDArray[np.float32] | None:
        if random.random() > 0.28:
            return None
        region = self.region
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

    def light_on_teeth(self, head: NDArray[np.float32]) -> float:
        """Share of the light that the lips of a (V, 3) head let in."""
        above, below = head[self.parting, 2]
        return float(np.clip((above - below) / WIDE_OPEN_M, SHUT, 1.0))

    def _smile(self, head: NDArray[np.float32], random: np.random.Generator) -> list[Part]:
        """Two rows of teeth behind the lips; the face model's own sit too far back to show."""
        ivory = np.array([0.92, 0.87, 0.78]) * random.uniform(0.6, 1.05)
        ivory = np.clip(ivory + random.normal(0, 0.02, 3), 0, 1)
        light = self.light_on_teeth(head)
        forward, angle = random.uniform(0.006, 0.011), np.linspace(-1.25, 1.25, 24)
        upper, lower = (head[self.teeth[row]] for row in ("upper", "lower"))
        upper_edge = upper[:, 2].min() - random.uniform(0.001, 0.005)
        lower_edge = lower[:, 2].max() + random.uniform(-0.003, 0.001)
        parts = []
        for row, gum, edge, height, behind in (
            ("upper", upper, upper_edge, -0.009, 0.0),
            ("lower", lower, lower_edge, 0.008, 0.002),
        ):
            front, half = gum[:, 0].max() + forward, np.abs(gum[:, 1]).max()
            round_off = 1 - np.cos(angle)
            x = front - 0.045 * round_off - behind
            y = gum[:, 1].mean() + half * np.sin(angle) / np.sin(1.25)
            z = np.array([[edge], [edge - height]]) - 0.003 * round_off * np.sign(height)
            grid = np.stack([np.broadcast_to(x, z.shape), np.broadcast_to(y, z.shape), z], 2)
            sky = np.tile(np.cos(angle).clip(0.2) * random.uniform(0.6, 1.0), 2) * light
            part = _grid_part(grid, ivory)._replace(occlusion=sky.astype(np.float32))
            parts.append(part._replace(on=self.teeth[row]))
        return parts

    def _hair(
        self,
        head: NDArray[np.float32],
        normals: NDArray[np.float32],
        colour: NDArray[np.float64],
        random: np.random.Generator,
    ) -> list[Part]:
        region = self.region
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
            curtain = _curtain(head[region["scalp"]], amount, colour, random)
            parts.append(curtain._replace(on=region["scalp"]))
        return parts

    def _hat(
        self, head: NDArray[np.float32], normals: NDArray[np.float32], random: np.random.Generator
    ) -> list[Part]:
        colour = random.uniform(0, 1, 3) * random.uniform(0.2, 1)
        z = head[:, 2]
        edge = random.uniform(0.025, 0.07) + random.uniform(-0.3, 0.3) * (head[:, 0] + 0.1)
        region = self.region
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
            parts.append(_grid_part(np.stack(ring), colour)._replace(on=covered))
        return parts


def _ramp(x: NDArray[np.floating], width: float) -> NDArray[np.floating]:
    return np.asarray(np.clip(x / width + 0.5, 0, 1))


def _shell(
    head: NDArray[np.float32],
    normals: NDArray[np.float32],
    triangles: NDArray[np.int32],
    covered: NDArray[np.bool_],
    thickness: NDArray[np.floating],
    colour: NDArray[np.float64],
) -> Part:
    """A layer over part of the head."""
    keep = covered[triangles].all(1)
    vertices = head + normals * (thickness * covered)[:, None].astype(np.float32)
    colours = np.tile(colour, (len(head), 1))
    return Part(vertices.astype(np.float32), triangles[keep], colours, True)


def _curtain(
    scalp: NDArray[np.float32],
    amount: float,
    colour: NDArray[np.float64],
    random: np.random.Generator,
) -> Part:
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


def _body(skin: NDArray[np.floating], under_chin: float, random: np.random.Generator) -> Part:
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


def _grid_part(grid: NDArray[np.floating], colour: NDArray[np.floating]) -> Part:
    """(A, B, 3) points -> a surface through them."""
    rows, columns = grid.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.concatenate(
        [np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    )
    return Part(
        grid.reshape(-1, 3).astype(np.float32),
        triangles.astype(np.int32),
        np.tile(np.asarray(colour, np.float64), (rows * columns, 1)),
    )
