"""Examples for the dense-point network: what a regressor makes of a crop, and what is true.

The network corrects a regressor, so it is trained on a regressor's own answers, made worse at
times. Labels are where the face model's points really lie: the renderings' own geometry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop, Picture
from face_recon_ros.core.crop_pose import crop_from_face
from face_recon_ros.core.inference import FaceNetwork, Prediction
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.rectification import RECTIFIED_PX, FaceFrame, Rectifier
from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.training.photographs import PhotographCache
from face_recon_ros.training.synthesis.augment import (
    Backgrounds,
    CropChange,
    Jitter,
    Mirror,
    compose_example,
)
from face_recon_ros.training.synthesis.faces import CONTEXT, Label, Rendering, camera_of
from face_recon_ros.training.synthesis.render_cache import RenderCache

#: Side of a composed picture, of the crop in it (the rest is context), and of the rendering.
PICTURE_PX, CROP_PX = 160, 128
#: A head turned by more than this to the line of sight shows no face; radians.
AWAY = np.radians(105)


class PointBatch(NamedTuple):
    """B examples; poses in `core.normalised_camera` of the regressor's crop.

    Attributes:
        image: (B, RECTIFIED_PX, RECTIFIED_PX, 3) uint8.
        start_rotation: (B, 3, 3) camera_from_face of the regressor.
        start_translation: (B, 3) metres.
        reach: (B,) see `core.point_fit.FitState`.
        start_identity: (B, K_id).
        start_expression: (B, K_exp).
        rotation: (B, 3, 3) true.
        translation: (B, 3) true.
        identity: (B, K_id) true.
        expression: (B, K_exp) true.
        present: (B,) 1 where a face is shown.
    """

    image: Tensor
    start_rotation: Tensor
    start_translation: Tensor
    reach: Tensor
    start_identity: Tensor
    start_expression: Tensor
    rotation: Tensor
    translation: Tensor
    identity: Tensor
    expression: Tensor
    present: Tensor

    @property
    def coefficients(self) -> Tensor:
        """(B, K_id + K_exp) the regressor's answer, as the network is told it.

        A batch of numpy arrays (`point_calibration.held_out`) has it, too.
        """
        told = (self.start_identity, self.start_expression)
        return torch.cat([torch.as_tensor(part) for part in told], 1)


class ExampleMaker:
    """Makes examples of renderings, as a detector and the regressor would have cut them out."""

    def __init__(
        self,
        model: MorphableModel,
        regressor: str,
        seed: int,
        patches: list[NDArray[np.uint8]] | None = None,
    ) -> None:
        """Opens the regressor and draws backgrounds.

        Args:
            model: coarse level, whole head.
            regressor: path of an exported network.
            seed: of the backgrounds.
            patches: photographs without labels, pieces of which are backgrounds.
        """
        self._mirror = Mirror(model)
        self._backgrounds = Backgrounds(seed, patches)
        self._network = FaceNetwork(regressor, provider="cpu", threads=1)
        self._rectifier = Rectifier(model)
        middle = np.full(2, (PICTURE_PX - 1) / 2)
        self._crop = Crop(middle, float(CROP_PX), self._network.size)
        self._jitter = Jitter()

    def __call__(
        self,
        shown: Sequence[Rendering],
        random: np.random.Generator,
        *,
        no_face: float = 0.0,
        worsen: float = 0.0,
        plain: float = 0.0,
        uncalibrated: float = 0.0,
        flips: bool = True,
    ) -> PointBatch:
        """A batch.

        Args:
            shown: B foregrounds that cover `CONTEXT` crops.
            random: source of everything.
            no_face: share of examples without a face, or beside it.
            worsen: share of starts that are moved away from the regressor's answer.
            plain: share of pictures as a good camera sees them, with nothing before the face.
            uncalibrated: share of pictures whose camera is not known.
            flips: whether half of the pictures, and their labels, are mirrored.
        """
        drawn = [self._draw(r, random, no_face, random.random() < plain, flips) for r in shown]
        pixels = np.stack([self._crop.extract(d.picture) for d in drawn])
        known = random.random(len(drawn)) >= uncalibrated
        return self._batch(drawn, known, self._network.predict(pixels), random, worsen)

    def _draw(
        self,
        rendering: Rendering,
        random: np.random.Generator,
        no_face: float,
        plain: bool,
        flips: bool,
    ) -> _Drawn:
        base = PICTURE_PX / CROP_PX / CONTEXT
        change = self._jitter.draw(random, base)
        if not flips:
            change = replace(change, flip=False)
        is_face, rgba = True, rendering.rgba
        if random.random() < no_face:
            is_face = False
            kind = random.random()
            if kind < 0.4:  # no person
                rgba = np.zeros_like(rgba)
            else:  # a face beside the crop, or far too near or small
                angle, away = random.uniform(0, 2 * np.pi), random.uniform(0.6, 1.1) / CONTEXT
                shift = (away * np.cos(angle), away * np.sin(angle))
                zoom = random.choice([1.0, random.uniform(0.25, 0.45), random.uniform(2.4, 4)])
                if zoom != 1.0:
                    shift = (shift[0] * 0.4, shift[1] * 0.4)
                change = CropChange(
                    (float(shift[0]), float(shift[1])),
                    base * float(zoom),
                    change.roll,
                    change.flip,
                )
        out = compose_example(
            rgba,
            rendering.label,
            change,
            PICTURE_PX,
            self._mirror,
            self._backgrounds,
            random,
            plain=plain,
        )
        label = CropChange(zoom=CROP_PX / PICTURE_PX).move(out.label, self._mirror)
        pose = crop_from_face(label.rotation, label.translation)
        ray = pose.translation / np.linalg.norm(pose.translation)
        turned = np.arccos(np.clip(-(pose.rotation[:, 0] @ ray), -1, 1))
        camera = None
        if rendering.intrinsics is not None:
            camera = camera_of(change.move_camera(rendering.intrinsics), PICTURE_PX)
        return _Drawn(out.image, label, camera, is_face and bool(turned < AWAY))

    def _batch(
        self,
        drawn: Sequence[_Drawn],
        known: NDArray[np.bool_],
        prediction: Prediction,
        random: np.random.Generator,
        worsen: float,
    ) -> PointBatch:
        c, n = prediction.coefficients, len(drawn)
        cameras = [
            NormalisedCamera.of(self._crop, d.camera if k else None)
            for d, k in zip(drawn, known, strict=True)
        ]
        start = [
            camera.from_crop_pose(crop_from_face(r, t))
            for camera, r, t in zip(cameras, c.rotation, c.translation, strict=True)
        ]
        rotation = np.stack([p.rotation for p in start])
        translation = np.stack([p.translation for p in start])
        reach = c.translation[:, 2].copy()
        present = np.array([d.present for d in drawn])
        worse = random.random(n) < worsen
        for i in np.flatnonzero(worse & present):
            much = random.uniform(0.2, 1.5)
            turn = rotation_from_vector(random.normal(0, 0.06 * much, 3))
            rotation[i] = turn @ rotation[i]
            moved = random.normal(0, [0.004, 0.004, 0.03]) * much
            translation[i] += moved * [reach[i], reach[i], translation[i, 2]]
        frame = FaceFrame.of(rotation, translation)
        images = np.empty((n, RECTIFIED_PX, RECTIFIED_PX, 3), np.uint8)
        for i, (d, camera) in enumerate(zip(drawn, cameras, strict=True)):
            images[i] = self._rectifier.sample(Picture(d.picture), camera, frame, i)
        true = [
            camera.from_crop_pose(crop_from_face(d.label.rotation, d.label.translation))
            for camera, d in zip(cameras, drawn, strict=True)
        ]
        values = (
            rotation,
            translation,
            reach,
            c.identity,
            c.expression,
            [p.rotation for p in true],
            [p.translation for p in true],
            [d.label.identity for d in drawn],
            [d.label.expression for d in drawn],
            present,
        )
        return PointBatch(
            torch.from_numpy(images),
            *(torch.from_numpy(np.asarray(v, np.float32)) for v in values),
        )


class _Drawn(NamedTuple):
    """A picture before the regressor has seen it.

    Attributes:
        picture: (PICTURE_PX, PICTURE_PX, 3) uint8.
        label: for the crop in its middle.
        camera: of the picture; None: not known.
        present: whether it shows a face.
    """

    picture: NDArray[np.uint8]
    label: Label
    camera: PinholeCamera | None
    present: bool


class PointExamples(IterableDataset):
    """Endless batches."""

    def __init__(
        self,
        pool: RenderCache,
        model: MorphableModel,
        regressor: str,
        seed: int,
        *,
        batch_size: int = 32,
        no_face: float = 0.1,
        worsen: float = 0.35,
        plain: float = 0.0,
        uncalibrated: float = 0.0,
        patches: list[NDArray[np.uint8]] | None = None,
        photographs: str | Path = "",
        photograph_share: float = 0.0,
    ) -> None:
        """Says what to draw from.

        Args:
            pool: of renderings that cover `CONTEXT` crops.
            model: coarse level, whole head.
            regressor: path of an exported network.
            seed: of everything random.
            batch_size: examples per batch.
            no_face: as for `ExampleMaker`.
            worsen: likewise.
            plain: likewise.
            uncalibrated: likewise.
            patches: likewise.
            photographs: folder of a `PhotographCache` with labels.
            photograph_share: share of examples that show them.
        """
        self._pool, self._model, self._regressor = pool, model, regressor
        self._seed, self._patches = seed, patches
        self._batch_size, self._plain = batch_size, plain
        self._no_face, self._worsen, self._uncalibrated = no_face, worsen, uncalibrated
        self._photographs, self._photograph_share = photographs, photograph_share

    def __iter__(self) -> Iterator[PointBatch]:
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        random = np.random.default_rng((self._seed, info.id if info else 0))
        make = ExampleMaker(self._model, self._regressor, self._seed, self._patches)
        photographs = PhotographCache(self._photographs) if self._photograph_share else None
        while True:
            shown = []
            for _ in range(self._batch_size):
                if photographs is not None and random.random() < self._photograph_share:
                    shown.append(_whole(*photographs.draw(random)[:2]))
                else:
                    shown.append(self._pool.read(random))
            yield make(
                shown,
                random,
                no_face=self._no_face,
                worsen=self._worsen,
                plain=self._plain,
                uncalibrated=self._uncalibrated,
            )


def _whole(picture: NDArray[np.uint8], label: Label) -> Rendering:
    """A photograph is all foreground."""
    opaque = np.full(picture.shape[:2], 255, np.uint8)
    return Rendering(np.dstack([picture, opaque]), label, None)
