"""Crops -> coefficients -> meshes with poses, all faces of an image in one batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera, same_camera
from face_recon_ros.core.crop import Crop, Picture
from face_recon_ros.core.crop_pose import (
    camera_from_face,
    coefficients_from_crop_pose,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.decoder_graph import GRAPH, NUMPY, choose_decoder
from face_recon_ros.core.decoding import LinearSize, MeshDecoder
from face_recon_ros.core.dense_points import DensePointStage, corrected, open_points
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.inference import FaceNetwork, Prediction, find_network
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import MorphableModel, load_morphable_model
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.occlusion import OcclusionSense
from face_recon_ros.core.orientation import (
    Orientation,
    Orientations,
    look_in_quarters,
    quarters_to_compare,
    turned_crop,
    turned_pixels,
)
from face_recon_ros.core.person import (
    Person,
    decode_people,
    due_for_a_look,
    identity_priors,
    learn_identities,
)
from face_recon_ros.core.pose_uncertainty import covariance_in_camera
from face_recon_ros.core.reconstructor_config import IMAGE, OFF, ReconstructorConfig
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.starts import Start, choose_waiting
from face_recon_ros.core.texture import View, look_at
from face_recon_ros.core.texture_sampler import TextureSampler
from face_recon_ros.core.types import Coefficients, Face, Float32, Mesh, Track

_REMEMBERED_PEOPLE = 32


class FaceReconstructor:
    """Crops -> coefficients -> meshes with poses, all faces of an image in one batch."""

    def __init__(
        self,
        network: FaceNetwork,
        model: MorphableModel,
        config: ReconstructorConfig | None = None,
        points: DensePointStage | None = None,
    ) -> None:
        """Composes networks and a face model.

        Args:
            network: trained for the face model.
            model: the mesh to make, at its level and cut to its part.
            config: the rest of the settings.
            points: corrects what the network answers; None: it stands.

        Raises:
            ModelError: network and face model do not belong together.
        """
        sizes = {
            "identity": model.k_identity,
            "expression": model.k_expression,
            "albedo": model.k_albedo,
        }
        if network.sizes != sizes or network.face_model != model.name:
            raise ModelError(
                f"a network for face model {model.name} with {sizes}",
                f"{network.path.name} for {network.face_model} with {network.sizes}",
                "use the face model the network was trained for",
            )
        self.config = config or ReconstructorConfig()
        self.network, self.points, self.model = network, points, model
        self._neutral = points.network.neutral if points else None
        self._decoder = MeshDecoder(model)
        self._graph = choose_decoder(
            self.config.decoder, model, provider=self.config.provider, threads=self.config.threads
        )
        self._sampler = TextureSampler(model) if self.config.colours == IMAGE else None
        self._occlusion = OcclusionSense(points.mean if points else None, model.mean_shape)
        self._size = LinearSize(model, self._decoder.skin)
        self._people: dict[str, Person] = {}
        self.orientations = Orientations(_REMEMBERED_PEOPLE)
        self._camera: PinholeCamera | None = None

    @property
    def decoder(self) -> str:
        """Which decoder is at work: `numpy`, or `graph` with its provider."""
        return NUMPY if self._graph is None else f"{GRAPH} {self._graph.session.provider}"

    @staticmethod
    def from_config(config: ReconstructorConfig) -> FaceReconstructor:
        """Loads what the configuration names."""
        face_model = find_model(config.face_model)
        model = load_morphable_model(face_model, level=config.level)
        path = find_network(config.network, config.provider)
        network = FaceNetwork(path, provider=config.provider, threads=config.threads)
        network.check_trained_for(face_model)
        coarse = (
            model if config.level == "coarse" else load_morphable_model(face_model, level="coarse")
        )
        points = open_points(
            config.points, coarse, face_model, provider=config.provider, threads=config.threads
        )
        return FaceReconstructor(network, model.subset(config.part), config, points)

    def warm_up(self) -> None:
        """Runs everything once, on noise, and forgets it."""
        side = 2 * self.network.size
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        camera = PinholeCamera.from_fov(side, side)
        tracks = [Track("noise", np.array([0.2, 0.2, 0.8, 0.8], np.float32) * side, 1.0, 0.0)]
        crops = self.crops(tracks)
        crops, _, answer = self.look(tracks, crops, self.extract(noise, crops), camera)
        answer = self.fit([Picture(noise)], tracks, crops, answer, camera)
        self.decode(tracks, crops, answer, camera, [Picture(noise)])
        self._people.clear()
        self.orientations, self._camera = Orientations(_REMEMBERED_PEOPLE), None

    def tune(self, config: ReconstructorConfig) -> None:
        """Smooths from the next image on by other settings; who people are is kept.

        Args:
            config: of which only `smooth_*` may differ from before.
        """
        if config != self.config:
            self.config = config
            self._smooth_anew()

    def _smooth_anew(self) -> None:
        for person in self._people.values():
            person.smooth(self.config)

    def crops(self, tracks: Iterable[Track]) -> list[Crop]:
        """The squares of the image the network wants to see, one per track."""
        return self.network.crop_spec.crops(t.box for t in tracks)

    def extract(self, rgb: NDArray[np.uint8], crops: list[Crop]) -> NDArray[np.uint8]:
        """(N, S, S, 3) uint8 pixels of N crops of an (H, W, 3) RGB image; N may be 0."""
        return self.network.crop_spec.extract(rgb, crops)

    def predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        """The network's answer for (N, S, S, 3) uint8 RGB crops."""
        return self.network.predict(pixels)

    def fit(
        self,
        pictures: Sequence[Picture],
        tracks: list[Track],
        crops: list[Crop],
        prediction: Prediction,
        camera: PinholeCamera | None = None,
        *,
        mirrored: bool = False,
    ) -> Prediction:
        """Looks at each face again and fits the face model to what is seen there.

        Args:
            pictures: N, that show the crops; mostly N times the same image.
            tracks: N.
            crops: N, in the same order.
            prediction: N rows of the network, in the same order.
            camera: that took the images; None: their perspective is not known.
            mirrored: see `DensePointStage.look`; for pictures that stand for themselves.

        Returns:
            N rows, corrected where they were usable; as they were where no points are found.
        """
        rows = np.flatnonzero(prediction.usable)
        if self.points is None or len(rows) == 0:
            return prediction
        people = [self._person(tracks[i]) for i in rows]
        prior = self.points.network.prior
        cameras = [NormalisedCamera.of(crops[i], camera) for i in rows]
        shown = [pictures[int(i)] for i in rows]
        look = self.points.look(shown, cameras, prediction.rows(rows), mirrored=mirrored)
        known = identity_priors(people, look.identity, prior)
        found = self.points.fit(look, *known)
        lost = rows[prediction.is_carried[rows] & ~found.settled]
        if self.config.aggregation.enabled:
            fit = replace(found.fit, converged=found.fit.converged & ~np.isin(rows, lost))
            said = self.points.answers
            who = learn_identities(people, look.identity, known, prior, fit, said)
            found = self.points.given(found, who)
        fitted = corrected(prediction, rows, found)
        if not len(lost):
            return fitted
        pictures, crops = [pictures[i] for i in lost], [crops[i] for i in lost]
        pixels = [
            picture.place_of(crop).extract(picture.rgb)
            for picture, crop in zip(pictures, crops, strict=True)
        ]
        answer = self._answer(np.stack(pixels))
        second = self.fit(pictures, [tracks[i] for i in lost], crops, answer, camera)
        return fitted.with_rows(lost, second)

    def _person(self, track: Track) -> Person:
        """Of a track, who is now the one last seen."""
        person = self._people.pop(track.id, None)
        person = person or Person(self.config, self._sampler, self._neutral)
        self._people[track.id] = person
        return person

    def identity_deviation(self, track: Track) -> NDArray[np.float64]:
        """(K_id,) standard deviations of what is known of the person on a track."""
        return self._person(track).identity_deviation(self.model.k_identity)

    def look(
        self,
        tracks: list[Track],
        crops: list[Crop],
        pixels: NDArray[np.uint8],
        camera: PinholeCamera | None = None,
        *,
        hurried: bool = False,
    ) -> tuple[list[Crop], NDArray[np.uint8], Prediction]:
        """Where the fit of each face starts, in a crop turned so that the face stands upright.

        Which way up a person is, is found out at first sight and now and then, then of one
        person after the other in a video, and remembered.

        Args:
            tracks: N, of one image.
            crops: N, upright, in the same order.
            pixels: (N, S, S, 3) uint8 RGB of the crops.
            camera: that took the image, the next one of a video, so that a track that was seen a
                moment ago may start from there; None: the network answers for each crop.
            hurried: of a video, people who are not new are compared by one more look an image.

        Returns:
            N crops as they were turned, their pixels, and N rows for them.
        """
        people = self.orientations.of([t.id for t in tracks])
        compared = quarters_to_compare(people, video=camera is not None, hurried=hurried)
        known = self._starts(tracks, crops, people, camera)
        starts = [
            None if person.quarter in quarters else start
            for start, person, quarters in zip(known, people, compared, strict=True)
        ]
        waiting = choose_waiting(starts, self.config.regressor_every)
        carried = [
            start.prediction if start and waits else None
            for start, waits in zip(starts, waiting, strict=True)
        ]
        rows = []
        presence = self.points.presence if self.points else None
        found = look_in_quarters(pixels, people, compared, carried, self._answer, presence)
        for i, row in enumerate(found):
            if row is None:  # turned over by what other images showed
                self._people.pop(tracks[i].id, None)
                row = self._answer(turned_pixels(pixels[i], people[i].quarter)[None])
            people[i].follow(row.coefficients.rotation[0])
            rows.append(row)
        turned = [turned_crop(c, p.quarter) for c, p in zip(crops, people, strict=True)]
        seen = [turned_pixels(c, p.quarter) for c, p in zip(pixels, people, strict=True)]
        prediction = Prediction.stacked(rows) if rows else self._answer(pixels)
        return turned, np.stack(seen) if seen else pixels, prediction

    def _starts(
        self,
        tracks: list[Track],
        crops: list[Crop],
        orientations: list[Orientation],
        camera: PinholeCamera | None,
    ) -> list[Start | None]:
        """Where the faces of N tracks are expected; None where nothing is known."""
        before, every = self._camera, self.config.regressor_every
        if before is None or camera is None or every == 1 or not same_camera(before, camera):
            return [None] * len(tracks)
        known = [self._people[t.id].last if t.id in self._people else None for t in tracks]
        return [
            None if last is None else last.start(track.stamp, turned_crop(crop, o.quarter), camera)
            for last, track, crop, o in zip(known, tracks, crops, orientations, strict=True)
        ]

    def _answer(self, pixels: NDArray[np.uint8]) -> Prediction:
        """The network's answer for (N, S, S, 3) crops, which it also starts to be known for."""
        answer = self.predict(pixels)
        waited = np.zeros(len(pixels), np.intp)
        return replace(answer, regressed=answer.coefficients, waited=waited)

    def decode(
        self,
        tracks: list[Track],
        crops: list[Crop],
        prediction: Prediction,
        camera: PinholeCamera,
        pictures: Sequence[Picture] = (),
    ) -> list[Face]:
        """Makes faces of the network's answers, each with what its track has shown before.

        Args:
            tracks: N, of one image.
            crops: N, in the same order.
            prediction: N rows, in the same order.
            camera: that took the image.
            pictures: N, in the same order, which colours are sampled from; without them meshes
                have the model's colours, or what their track has shown before.

        Returns:
            A face per usable row of the prediction.
        """
        if self._camera is None or not same_camera(self._camera, camera):
            self._camera = camera  # the same head is elsewhere now: no motion to be smoothed
            self._smooth_anew()
            for person in self._people.values():
                person.last = None
        usable = np.flatnonzero(prediction.usable)
        if len(usable) == 0:
            return []
        tracks, crops = [tracks[i] for i in usable], [crops[i] for i in usable]
        people = [self._person(track) for track in tracks]
        while len(self._people) > max(_REMEMBERED_PEOPLE, len(tracks)):
            del self._people[next(iter(self._people))]
        seen = [pictures[int(i)] for i in usable] if pictures else None
        return self._faces(people, tracks, crops, prediction.rows(usable), camera, seen)

    def face_boxes(self, crops: list[Crop], coefficients: Coefficients) -> Float32:
        """Where the network's meshes lie, before anything is aggregated or smoothed.

        Args:
            crops: N.
            coefficients: N rows, in the same order.

        Returns:
            (N, 4) face boxes, image pixels.
        """
        c = coefficients
        poses = [crop_from_face(r, t) for r, t in zip(c.rotation, c.translation, strict=True)]
        vertices = self._decoder.express(self._decoder.neutral(c.identity), c.expression)
        return self._decoder.boxes(vertices, poses, [NormalisedCamera.of(crop) for crop in crops])

    def _faces(
        self,
        people: list[Person],
        tracks: list[Track],
        crops: list[Crop],
        prediction: Prediction,
        camera: PinholeCamera,
        pictures: Sequence[Picture] | None,
    ) -> list[Face]:
        """The faces of N people whose answers are usable; all arguments have N rows."""
        c, n = prediction.coefficients, len(people)
        identity, albedo = list(c.identity), list(c.albedo)
        expression, translation = c.expression.copy(), c.translation.astype(np.float64)
        for i, (person, track) in enumerate(zip(people, tracks, strict=True)):
            confidence = float(prediction.identity_confidence[i])
            identity[i] = person.known_identity(c.identity[i], confidence)
            if self.config.colours != OFF:
                albedo[i] = person.albedo(c.albedo[i], confidence)
            expression[i] = person.expression(c.expression[i], track.stamp)
            # The frame's distance goes with the frame's own head size; keep the size in pixels.
            translation[i] *= self._size(identity[i]) / self._size(c.identity[i])
        rotation = c.rotation.astype(np.float64)
        crop_poses = [crop_from_face(r, t) for r, t in zip(rotation, translation, strict=True)]
        cameras = [NormalisedCamera.of(crop, camera) for crop in crops]
        placed = zip(crop_poses, crops, strict=True)
        poses = [camera_from_face(pose, crop, camera) for pose, crop in placed]
        first_poses = [
            nominal if seen.camera is None else seen.from_camera_pose(pose)
            for seen, nominal, pose in zip(cameras, crop_poses, poses, strict=True)
        ]
        for i, person in enumerate(people):
            person.saw(tracks[i], poses[i], prediction.rows(slice(i, i + 1)), crops[i], camera)
            if person.smooths_pose:
                poses[i] = person.pose(poses[i], tracks[i].stamp)
                crop_poses[i] = crop_from_camera_pose(poses[i], crops[i], camera)
                rotation[i], translation[i] = coefficients_from_crop_pose(crop_poses[i])
        steps = partial(decode_people, self._decoder, people, self.config.colours != OFF)
        vertices, normals, shaded = (self._graph or steps)(
            identity, expression, albedo, crop_poses, c.illumination
        )
        boxes = self._decoder.boxes(vertices, first_poses, cameras)
        colours: list[Float32 | None] = [None] * n
        views: list[View | None] = [None] * n
        presence = [None] * n if prediction.presence is None else prediction.presence.tolist()
        sigma = [None] * n if prediction.point_sigma is None else list(prediction.point_sigma)
        if self.config.colours != OFF:
            due = set() if pictures is None else due_for_a_look(people)
            for i, person in enumerate(people):
                if self._sampler is not None and pictures is not None and i in due:
                    shown = self._occlusion(sigma[i], presence[i])
                    face = crop_poses[i], vertices[i], normals[i].T, shaded[i], shown
                    views[i] = look_at(self._sampler, pictures[i], cameras[i], *face)
                colours[i] = person.colours(shaded[i], views[i])
        answers = replace(
            c,
            identity=np.asarray(identity, np.float32),
            expression=expression,
            albedo=np.asarray(albedo, np.float32),
            rotation=rotation.astype(np.float32),
            translation=translation.astype(np.float32),
        )
        covariance = _covariances(prediction, crop_poses, poses)
        return [
            Face(
                track,
                crops[i],
                answers[i],
                poses[i],
                Mesh(vertices[i], self.model.triangles, colours[i]),
                boxes[i],
                track.stamp,
                picture_covariance=covariance[i],
                presence=presence[i],
                point_sigma=sigma[i],
                view=views[i],
                camera=camera,
            )
            for i, track in enumerate(tracks)
        ]


def _covariances(
    prediction: Prediction, crop_poses: list[Rigid], poses: list[Rigid]
) -> list[NDArray[np.float64] | None]:
    """(6, 6) of N poses in the camera; None where there was no fit."""
    own = prediction.pose_covariance
    if own is None:
        return [None] * len(poses)
    rows = zip(own, crop_poses, poses, strict=True)
    return [covariance_in_camera(*row) for row in rows]
