"""Batches for the dense-point network made in torch: `point_examples` on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE, CROP_FOCAL
from face_recon_ros.core.inference import FaceNetwork
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.rectification import CELLS, RECTIFIED_PX, Rectifier
from face_recon_ros.training.config import PointConfig
from face_recon_ros.training.data import people_mean
from face_recon_ros.training.geometry import rotation_from_vector
from face_recon_ros.training.network import CoefficientSizes, FaceRegressor
from face_recon_ros.training.onnx_weights import state_from_onnx
from face_recon_ros.training.point_examples import AWAY, CROP_PX, PICTURE_PX, PointBatch
from face_recon_ros.training.point_objective import placed, project
from face_recon_ros.training.synthesis.augment import Backgrounds
from face_recon_ros.training.torch_synthesis.drawing import Draw, look_up, pixel_grid
from face_recon_ros.training.torch_synthesis.faces import Foreground, TorchFaces
from face_recon_ros.training.torch_synthesis.pictures import TorchPictures
from face_recon_ros.training.torch_synthesis.view import View
from face_recon_ros.training.torch_synthesis.wardrobe import make_wardrobe

#: Of examples without a face, so many show nobody; the others a face beside the crop.
_EMPTY = 0.4
#: Steps of one run never share a seed with those of another (seeds below 2^20 steps apart).
_STEPS = 1 << 20


class TorchPointExamples:
    """Endless batches, made where they are used."""

    def __init__(
        self,
        config: PointConfig,
        model: MorphableModel,
        device: torch.device,
        *,
        first_step: int = 0,
        patches: list[NDArray[np.uint8]] | None = None,
    ) -> None:
        """Dresses people, which takes some seconds, and loads the regressor.

        Args:
            config: of the run.
            model: coarse level, whole head.
            device: where everything is done.
            first_step: of the run; step n is drawn from (seed, n), so that a run can go on.
            patches: photographs without labels, pieces of which are backgrounds.
        """
        self._config, self._device, self._step = config, device, first_step
        face_model = str(find_model(config.face_model))
        wardrobe = make_wardrobe(face_model, config.skins, config.people, config.seed, device)
        self._faces = TorchFaces(
            model,
            wardrobe,
            device,
            margin=config.crop_margin,
            size=PICTURE_PX,
            crop_px=CROP_PX,
            turned_away=config.turned_away,
            population=people_mean(config, model),
            strong_expressions=config.strong_expressions,
            no_face=(1 - _EMPTY) * config.no_face,
            expressions=5 * config.people,
            seed=config.seed,
        )
        backgrounds = Backgrounds(config.seed, patches).pictures
        self._pictures = TorchPictures(backgrounds, PICTURE_PX, device)
        self._regressor, self._crop_size = load_regressor(find_model(config.regressor), device)
        self._surface = torch.from_numpy(Rectifier(model).points.astype(np.float32)).to(device)

    def __iter__(self) -> Iterator[PointBatch]:
        while True:
            yield self.batch(self._config.seed * _STEPS + self._step)
            self._step += 1

    def pictures(self, seed: int) -> Tensor:
        """(B, PICTURE_PX, PICTURE_PX, 3) of a seed, whole numbers: to look at."""
        return self._draw(Draw(self._device, self._config.batch_size, seed))[1]

    @torch.no_grad()
    def _draw(self, draw: Draw) -> tuple[Foreground, Tensor, Tensor]:
        """People, the pictures of them, and (B,) whether each shows a person."""
        people = self._faces.sample(draw)
        with_person = ~draw.chance(_EMPTY * self._config.no_face)
        alpha = people.alpha * with_person[:, None, None, None]
        return people, self._pictures.compose(people.rgb, alpha, draw), with_person

    @torch.no_grad()
    def batch(self, seed: int) -> PointBatch:
        """The batch of a seed."""
        config = self._config
        draw = Draw(self._device, config.batch_size, seed)
        people, pictures, with_person = self._draw(draw)
        ray = functional.normalize(people.translation, dim=1)
        facing = -(people.rotation[:, :, 0] * ray).sum(1)
        present = with_person & ~people.view.framing.beside & (facing > float(np.cos(AWAY)))
        rotation, translation, identity, expression = self._answers(pictures)
        reach = translation[:, 2].clone()
        view, calibrated = people.view, ~draw.chance(config.uncalibrated)
        rotation, translation = _where(
            calibrated, view.from_crop_pose(rotation, translation), (rotation, translation)
        )
        nominal = people.rotation, people.translation
        true = _where(calibrated, view.in_normalised(), nominal)
        worse = present & draw.chance(config.worsen)
        much = draw.uniform(0.2, 1.5, 1) * worse[:, None]
        turn = rotation_from_vector(draw.normal(0.06, 3) * much)
        spread = torch.tensor([0.004, 0.004, 0.03], device=self._device)
        units = torch.stack([reach, reach, translation[:, 2]], 1)
        rotation = turn @ rotation
        translation = translation + draw.normal(1.0, 3) * spread * much * units
        return PointBatch(
            self._rectified(pictures, view, calibrated, rotation, translation),
            rotation,
            translation,
            reach,
            identity,
            expression,
            *true,
            people.identity,
            people.expression,
            present.float(),
        )

    def _answers(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The regressor's pose (crop_from_face), identity and expression for the crops."""
        size = self._crop_size
        grid = (pixel_grid(size, self._device) - (size - 1) / 2) * (CROP_PX / size)
        crops = _sample(pictures, (grid + (PICTURE_PX - 1) / 2).expand(len(pictures), -1, -1, -1))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.bfloat16):
            features = self._regressor.stages(crops)[-1]
        answer = self._regressor.answer(features.float())
        frontal = torch.as_tensor(CAMERA_FROM_FRONTAL_FACE, dtype=torch.float32)
        rotation = rotation_from_vector(answer.rotation) @ frontal.to(self._device)
        return rotation, answer.translation, answer.identity, answer.expression

    def _rectified(
        self,
        pictures: Tensor,
        view: View,
        calibrated: Tensor,
        rotation: Tensor,
        translation: Tensor,
    ) -> Tensor:
        """(B, RECTIFIED_PX, RECTIFIED_PX, 3) uint8, as `Rectifier.sample`."""
        b = len(pictures)
        x = placed(self._surface, rotation, translation)
        (seen,) = _where(calibrated, [view.project_normalised(x)], [CROP_FOCAL * project(x)])
        places = (seen * CROP_PX + (PICTURE_PX - 1) / 2).view(b, CELLS, CELLS, 2)
        places = functional.interpolate(
            places.permute(0, 3, 1, 2), (RECTIFIED_PX, RECTIFIED_PX), mode="bilinear"
        )
        return _sample(pictures, places.permute(0, 2, 3, 1)).to(torch.uint8)


def _where(rows: Tensor, one: Sequence[Tensor], other: Sequence[Tensor]) -> list[Tensor]:
    """(B, ...) tensors with (B,) rows of one, the rest of the other."""
    pairs = zip(one, other, strict=True)
    return [torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs]


def _sample(pictures: Tensor, places: Tensor) -> Tensor:
    """(B, H, W, 3) whole numbers out of each picture, black outside."""
    return look_up(pictures, places.clamp(-1e4, 1e4), black=True).round()


def load_regressor(path: Path, device: torch.device) -> tuple[FaceRegressor, int]:
    """An exported regressor in torch, in evaluation, and the side of its crops."""
    size = FaceNetwork(path, provider="cpu", threads=1).size
    some = np.random.default_rng(0).integers(0, 256, (8, size, size, 3)).astype(np.uint8)
    state = state_from_onnx(path, some)
    sizes = CoefficientSizes(**state["sizes"])
    network = FaceRegressor(state["config"]["backbone"], sizes, state["nominal_distance_m"])
    network.load_state_dict(state["average"])
    network.requires_grad_(False)
    return network.eval().to(device, memory_format=torch.channels_last), size
