"""Synthetic faces in batches: `synthesis.faces` on any device, straight into the final picture."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from face_recon_ros.core.illumination import GAMMA, MIN_SHADING
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.training.batched_rasterizer import BatchFragments, barycentric, rasterize_batch
from face_recon_ros.training.decoder import FaceDecoder, sh_basis
from face_recon_ros.training.synthesis.augment import Mirror
from face_recon_ros.training.synthesis.expressions import STRONG, mood_of, sample_expression
from face_recon_ros.training.synthesis.faces import strand_bank
from face_recon_ros.training.synthesis.people import SHUT, WIDE_OPEN_M
from face_recon_ros.training.torch_synthesis.drawing import Draw, look_up, pixel_grid
from face_recon_ros.training.torch_synthesis.glasses import draw_glasses
from face_recon_ros.training.torch_synthesis.view import Framing, View, draw_view
from face_recon_ros.training.torch_synthesis.wardrobe import Wardrobe, Worn

#: Pixels of a shadow map, per side, and metres by which a surface does not shade itself.
_SHADOW_PX, _BIAS_M = 128, 0.006
#: Pictures are rendered this much larger than they will be, for smooth edges.
_OVERSAMPLING = 1.2


class Foreground(NamedTuple):
    """B people and what is true of them, in the final crop, mirrored where the picture is.

    Attributes:
        rgb: (B, S, S, 3) in [0, 1], zero where there is nobody.
        alpha: (B, S, S, 1) coverage.
        rotation: (B, 3, 3) crop_from_face in the nominal crop camera.
        translation: (B, 3) metres.
        identity: (B, K_id).
        expression: (B, K_exp).
        view: of the cameras.
    """

    rgb: Tensor
    alpha: Tensor
    rotation: Tensor
    translation: Tensor
    identity: Tensor
    expression: Tensor
    view: View


class Light(NamedTuple):
    """What lights B scenes, camera frame.

    Attributes:
        sh: (B, 9, 3) illumination.
        sun: (B, 3) unit vector to the strongest light.
        sun_colour: (B, 3).
    """

    sh: Tensor
    sun: Tensor
    sun_colour: Tensor


class TorchFaces:
    """Draws people and renders them."""

    def __init__(
        self,
        model: MorphableModel,
        wardrobe: Wardrobe,
        device: torch.device,
        *,
        margin: float,
        size: int,
        crop_px: int,
        turned_away: float = 0.0,
        no_face: float = 0.0,
        population: NDArray[np.floating] | None = None,
        strong_expressions: float = STRONG,
        expressions: int = 20000,
        seed: int = 0,
    ) -> None:
        """Prepares what all samples share.

        Args:
            model: face model, coarse level, whole head.
            wardrobe: what people look like.
            device: where everything is done.
            margin: side of the crop over the side of the face box.
            size: S, pixels per side of a picture.
            crop_px: side of the crop in its middle.
            turned_away: share of people who show the back of the head.
            no_face: share of crops that are not where the face is.
            population: as for `synthesis.faces.draw_person`.
            strong_expressions: share of them, as for `synthesis.expressions.sample_expression`.
            expressions: how many are drawn once, to be drawn from.
            seed: of these.
        """
        self._model, self._wardrobe = model, wardrobe
        self._margin, self._size, self._crop_px = margin, size, crop_px
        self._turned_away, self._no_face = turned_away, no_face
        self._decoder = FaceDecoder(model).to(device)
        random, names = np.random.default_rng(seed), model.expression_names
        draw = partial(sample_expression, names, model.expression_prior, random)
        bank = [draw(strong=strong_expressions) for _ in range(expressions)]

        def put(array: object, dtype: type = np.float32) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, dtype)).to(device)

        self._population = put(np.zeros(model.k_identity) if population is None else population)
        self._expressions = put(np.stack(bank))
        self._moods = put(np.stack([mood_of(e, names) for e in bank]))
        mirror = Mirror(model)
        self._mirror = put(mirror.identity.T), put(mirror.expression.T)
        people = wardrobe.people
        self._parting = put(people.parting, np.int64)
        self._skin = put(np.flatnonzero(model.subsets[FACIAL_SKIN]), np.int64)
        eyes = people.region["eyeball"]
        self._eyes = [
            put(np.flatnonzero(eyes & (side * model.mean_shape[:, 1] > 0)), np.int64)
            for side in (-1, 1)
        ]
        self._strands = put(np.stack(strand_bank()))[..., None]

    @torch.no_grad()
    def sample(self, draw: Draw) -> Foreground:
        """People in front of cameras, one for each of the batch."""
        identity = draw.normal(1.0, self._model.k_identity).clamp(-2.5, 2.5)
        identity = identity + draw.uniform(0.0, 1.0, 1) * self._population
        which = draw.index(len(self._expressions))
        expression = self._expressions[which]
        head = self._decoder.express(self._decoder.neutral(identity), expression)
        above, below = head[:, self._parting, 2].unbind(1)
        light = ((above - below) / WIDE_OPEN_M).clamp(SHUT, 1.0)
        who = self._wardrobe.choose(self._moods[which], draw)
        worn = self._wardrobe.wear(who, head, light)
        view = draw_view(head[:, self._skin], self._margin, self._turned_away, self._no_face, draw)
        rgb, alpha = self._render(worn, who, head, view, draw)
        rotation, translation = view.crop_from_face()
        flip = view.framing.flip[:, None]
        to_identity, to_expression = self._mirror
        return Foreground(
            rgb,
            alpha,
            rotation,
            translation,
            torch.where(flip, identity @ to_identity, identity),
            torch.where(flip, expression @ to_expression, expression),
            view,
        )

    def _render(
        self, worn: Worn, who: Tensor, head: Tensor, view: View, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        in_camera = worn.vertices @ view.rotation.mT + view.translation[:, None]
        turned = torch.cat([self._decoder.normals(head), worn.normals], 1) @ view.rotation.mT
        away = (turned * in_camera).sum(2) > 0
        away[:, : head.shape[1]] = False
        normals = torch.where(away[..., None], -turned, turned)
        colours = shaded(worn, in_camera, normals, draw)

        size = round(self._size * _OVERSAMPLING)
        px_per_side = self._crop_px * size / self._size
        px = view.project(in_camera) * px_per_side + (size - 1) / 2
        depth = in_camera[..., 2]
        fragments = rasterize_batch(px, depth, worn.triangles, size)
        rgb, strands = self._interpolate(fragments, worn, who, px, depth, colours)
        rgb = rgb * (1 + strands * draw.uniform(0.1, 0.6, 1, 1, 1) * self._streaks(size, draw))
        blotches = draw.normal(1.0, 1, size // 4, size // 4)
        blotches = functional.interpolate(blotches, size=(size, size), mode="bilinear")
        rgb = rgb * (1 + draw.uniform(0, 0.06, 1, 1, 1) * blotches.permute(0, 2, 3, 1))
        alpha = (fragments.triangle >= 0)[..., None].float()
        some, few = draw.some(0.22)
        if len(some) and all(len(eye) for eye in self._eyes):
            eyes = torch.stack([head[:, eye].mean(1) for eye in self._eyes], 1)
            front = torch.cat([head[:, eye, 0] for eye in self._eyes], 1).amax(1)
            near = fragments.inverse_depth[some]
            rgb[some], alpha[some] = draw_glasses(
                rgb[some],
                alpha[some],
                near,
                eyes[some],
                front[some],
                _rows(view, some),
                px_per_side,
                few,
            )
        return self._reduced(rgb.clamp(0, 1), alpha)

    def _interpolate(
        self,
        fragments: BatchFragments,
        worn: Worn,
        who: Tensor,
        px: Tensor,
        depth: Tensor,
        colours: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(B, S, S, 3) painted colours and (B, S, S, 1) where there is hair."""
        b, size, _ = fragments.triangle.shape
        covered = fragments.triangle >= 0
        flat = fragments.triangle.clamp(min=0).flatten(1)[..., None].expand(-1, -1, 3)
        corners = worn.triangles.gather(1, flat).view(b, size, size, 3)
        weights = barycentric(px, depth, corners, size) * covered[..., None]
        (maps, wrapped), (skins, wrapped_skin) = self._wardrobe.complexions, self._wardrobe.skins
        wrapping = torch.cat([wrapped, wrapped_skin], 1).expand(b, -1, -1)
        others = px.new_zeros(b, px.shape[1] - wrapping.shape[1], 6)
        wrapping = torch.cat([wrapping, others], 1)
        values = torch.cat([colours, worn.strands[..., None], wrapping], 2)
        batch = torch.arange(b, device=px.device)[:, None, None]
        out = values[batch, corners[..., 0]] * weights[..., :1]
        for k in (1, 2):
            out = out.addcmul_(values[batch, corners[..., k]], weights[..., k : k + 1])
        rgb, strands, wrap, wrap_skin = out.split([3, 1, 3, 3], 3)
        for bank, index, at in (
            (maps, who, wrap),
            (skins, self._wardrobe.skin[who], wrap_skin),
        ):
            rgb = rgb * (1 + at[..., 2:] * (look_up(bank[index], at[..., :2]) - 1))
        return rgb, strands

    def _streaks(self, size: int, draw: Draw) -> Tensor:
        """(B, S, S, 1) noise in lines, for hair."""
        room = max(self._strands.shape[1] - size, 1)
        places = pixel_grid(size, draw.device) + room * draw.uniform(0, 1, 1, 1, 2)
        return look_up(self._strands[draw.index(len(self._strands))], places)

    def _reduced(self, rgb: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Averaged to the final size; colours of covered pixels alone count."""
        picture = torch.cat([rgb * alpha, alpha], 3).permute(0, 3, 1, 2)
        picture = functional.interpolate(
            picture, size=(self._size, self._size), mode="bilinear", antialias=True
        ).permute(0, 2, 3, 1)
        alpha = picture[..., 3:]
        return picture[..., :3] / alpha.clamp(min=1e-3), alpha


def shaded(worn: Worn, in_camera: Tensor, normals: Tensor, draw: Draw) -> Tensor:
    """(B, V, 3) colours of vertices in some light, with cast shadows and gloss."""
    light = draw_light(draw)
    shading = sh_basis(normals) @ light.sh
    some, few = draw.some(0.6)
    if len(some):
        shadow = 1 - lit(in_camera[some], worn.triangles[some], light.sun[some])
        facing = (normals[some] @ light.sun[some, :, None]).clamp(min=0)
        direct = facing * light.sun_colour[some, None]
        shading[some] -= few.uniform(0.3, 0.95, 1, 1) * shadow[..., None] * direct
    sky = worn.occlusion.clamp(min=0) ** draw.uniform(0.2, 1.1, 1)
    shading = shading.clamp(min=MIN_SHADING) * sky[..., None]
    colours = worn.colours * shading.clamp(min=MIN_SHADING) ** (1 / GAMMA)
    half = light.sun[:, None] - functional.normalize(in_camera, dim=2)
    mirrored = (normals * functional.normalize(half, dim=2)).sum(2).clamp(min=0)
    gloss = draw.uniform(0, 0.25, 1) * mirrored ** draw.uniform(6, 40, 1)
    return colours + (gloss * worn.occlusion)[..., None] * light.sun_colour[:, None]


def draw_light(draw: Draw) -> Light:
    """Ambient light, a sun or lamp, and sometimes a second one, as `lighting.sample_light`."""
    exposure = torch.exp(draw.normal(0.35, 1) - 0.1)
    share = draw.uniform(0.1, 0.9, 1)
    warm = draw.normal(0.12, 1) * torch.tensor([1.0, 0.0, -1.0], device=draw.device)

    def tint() -> Tensor:
        return torch.exp(warm + draw.normal(0.04, 3))

    def lamp() -> Tensor:  # above and in front
        spread = torch.tensor([1.0, 0.8, 0.8], device=draw.device)
        return functional.normalize(
            draw.normal(1.0, 3) * spread - torch.tensor([0, 0.5, 0.7], device=draw.device), dim=1
        )

    sky = exposure * (1 - share) * tint()
    above = torch.tensor([-0.12, 0.0, 0.0], device=draw.device)
    gradient = draw.normal(0.15, 3) + above
    sh = torch.cat([sky[:, None], gradient[..., None] * sky[:, None]], 1)
    sh = functional.pad(sh, (0, 0, 0, 5))
    sun, second = lamp(), lamp()
    sun_colour = exposure * share * 2.0 * tint()
    second_colour = exposure * draw.uniform(0, 0.8, 1) * tint() * draw.chance(0.4, 1)
    for towards, colour in ((sun, sun_colour), (second, second_colour)):
        sh = sh + directional_light(towards)[..., None] * colour[:, None]
    return Light(sh, sun, sun_colour)


def directional_light(towards_light: Tensor) -> Tensor:
    """(B, 3) -> (B, 9), as `lighting.directional_light`."""
    band = torch.tensor([1 / 4] + [1 / 6] * 3 + [1 / 16] * 5, device=towards_light.device)
    return band * sh_basis(towards_light)


def lit(vertices: Tensor, triangles: Tensor, towards_light: Tensor) -> Tensor:
    """(B, V) 1 where a distant light reaches a vertex, by shadow maps, as `lighting.lit`."""
    b = len(vertices)
    axes = torch.eye(3, device=vertices.device)
    helper = torch.where(towards_light[:, :1].abs() < 0.8, axes[0], axes[1])
    across = functional.normalize(torch.linalg.cross(towards_light, helper), dim=1)
    down = torch.linalg.cross(towards_light, across)
    p = vertices @ torch.stack([across, down, -towards_light], 2)
    low, high = p.amin(1, keepdim=True), p.amax(1, keepdim=True)
    side = (high - low)[..., :2].amax(2, keepdim=True)
    px = (p - low)[..., :2] / side * (_SHADOW_PX - 1)
    depth = (p - low)[..., 2] + 1.0
    near = rasterize_batch(px, depth, triangles, _SHADOW_PX).inverse_depth.view(b, -1)
    column, row = px.round().long().unbind(2)
    seen = near.gather(1, row * _SHADOW_PX + column)
    return ((depth - _BIAS_M) * seen <= 1).float()


def _rows(view: View, some: Tensor) -> View:
    *camera, framing = view
    return View(*(v[some] for v in camera), Framing(*(v[some] for v in framing)))
