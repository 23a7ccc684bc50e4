"""Laws of the pipeline, in the small world where faces are discs."""

import time
from dataclasses import replace

import numpy as np
import pytest
from fixtures import DiscDetector, draw_discs

from face_recon_ros.core.aggregation import AggregationConfig
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import crop_camera, crop_from_face
from face_recon_ros.core.detection import DetectorConfig
from face_recon_ros.core.errors import CameraError, ConfigError, ImageError, ModelError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.pipeline import STAGES, FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rigid import angle_between
from face_recon_ros.core.smoothing import OneEuroConfig
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Detections, Image, Track

W, H, FPS = 640, 480, 30.0
RED, GREEN = (230, 90, 60), (90, 230, 60)


@pytest.fixture
def make_pipeline(network_path, face_model_path):
    def make(tracker=None, detector=None, timer=time.perf_counter, **settings):
        config = ReconstructorConfig(
            network=str(network_path), face_model=str(face_model_path), **settings
        )
        finder = FaceFinder(detector or DiscDetector(), Tracker(tracker or TrackerConfig()))
        return FacePipeline(finder, FaceReconstructor.from_config(config), timer)

    return make


def image(*discs, k=0):
    return Image(draw_discs(W, H, *discs), k / FPS)


def projected_box(pipeline, face, camera):
    """Bounding box of the skin in the image, by way of the real camera."""
    skin = pipeline.reconstructor.model.subsets["facial_skin"]
    pixels = camera.project(face.camera_from_face.apply(face.mesh.vertices[skin]))
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def centre(box):
    return (np.asarray(box)[:2] + np.asarray(box)[2:]) / 2


@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_the_mesh_lies_on_the_face(make_pipeline, level):
    pipeline = make_pipeline(level=level)
    camera = PinholeCamera.from_fov(W, H)
    frame = pipeline.process(image((150, 120, 40, RED), (480, 300, 60, GREEN)), camera)
    assert len(frame.faces) == 2
    for face in frame.faces:
        x, radius = (150, 40) if centre(face.track.box)[0] < 300 else (480, 60)
        box = projected_box(pipeline, face, camera)
        assert abs(centre(box)[0] - x) < 0.05 * radius
        assert np.sqrt(np.prod(box[2:] - box[:2])) == pytest.approx(2 * radius, rel=0.1)
        assert face.mesh.vertices.dtype == face.mesh.colours.dtype == np.float32
        assert (
            len(face.mesh.vertices) == len(face.mesh.colours) == (289 if level == "fine" else 81)
        )


def test_face_box_by_crop_camera_and_by_real_camera_agree(make_pipeline):
    pipeline = make_pipeline()
    camera = PinholeCamera.from_fov(W, H)
    (face,) = pipeline.process(image((150, 120, 40, RED)), camera).faces
    assert np.abs(centre(face.box) - centre(projected_box(pipeline, face, camera))).max() < 1.0


def test_the_detector_rests_and_faces_are_found_in_every_frame(make_pipeline):
    detector = DiscDetector()
    pipeline = make_pipeline(TrackerConfig(detect_every=5), detector)
    ids = set()
    for k in range(50):
        frame = pipeline.process(image((150 + 4 * k, 200 + k, 40, RED), k=k))
        (face,) = frame.faces
        ids.add(face.track.id)
        box = face.box
        assert np.abs(centre(box) - [150 + 4 * k, 200 + k]).max() < 4
        assert ("detect" in frame.timings) == (frame.detections is not None)
    assert len(ids) == 1
    assert detector.calls == 11  # twice at the start, then every fifth frame


def test_faces_that_come_and_go(make_pipeline):
    pipeline = make_pipeline()
    counts = [
        len(pipeline.process(image(*([(200, 200, 40, RED)] if 10 <= k < 20 else []), k=k)).faces)
        for k in range(60)
    ]
    assert counts[:10] == [0] * 10
    assert counts[12:20] == [1] * 8
    assert counts[-1] == 0


def test_a_face_that_left_is_no_ghost_and_comes_back_under_its_id(make_pipeline):
    """The detector sees nothing any more, while the network finds its face wherever it looks."""

    class Blinking(DiscDetector):
        blind = False

        def detect(self, rgb):
            return Detections.empty() if self.blind else super().detect(rgb)

    detector = Blinking()
    pipeline = make_pipeline(detector=detector)
    picture, ids = image((200, 200, 40, RED)).rgb, {}
    for k in range(60):
        detector.blind = 30 <= k < 50
        frame = pipeline.process(Image(picture, k / FPS))
        assert [f.track.id for f in frame.faces] == [t.id for t in frame.tracks]
        ids[k] = [f.track.id for f in frame.faces]
    first_miss, doubt = 34, round(0.25 * FPS)
    assert all(ids[k] == ids[0] != [] for k in range(30 + doubt))
    assert all(not ids[k] for k in range(first_miss + doubt + 1, 50))
    assert all(ids[k] == ids[0] for k in range(51, 60))


def test_identity_is_aggregated_and_decoded_once(make_pipeline):
    pipeline = make_pipeline()
    rng = np.random.default_rng(0)
    seen = []
    for k in range(60):
        colour = tuple(int(c) for c in rng.uniform(100, 250, 3))
        seen.append(pipeline.process(image((200, 200, 40, colour), k=k)).faces[0].coefficients)
    identity = np.array([c.identity[0, 1] for c in seen])
    assert identity[-20:].std() < 0.3 * identity[:10].std()
    jaw = pipeline.reconstructor.model.expression_names.index("jawOpen")
    assert np.array([c.expression[0, jaw] for c in seen])[-20:].std() > 0.1  # stays of the frame


def test_aggregation_keeps_the_size_in_pixels(make_pipeline):
    """A head the mean says is larger is as much further away."""
    pipeline = make_pipeline(aggregation=AggregationConfig(min_change=0.0))
    reconstructor = pipeline.reconstructor
    tracks = pipeline.process(image((320, 240, 50, RED))).tracks
    crops = reconstructor.crops(tracks)
    prediction = reconstructor.predict(
        reconstructor.extract(image((320, 240, 50, RED)).rgb, crops)
    )
    camera = PinholeCamera.from_fov(W, H)
    (before,) = reconstructor.decode(tracks, crops, prediction, camera)
    identity = prediction.coefficients.identity.copy()
    identity[0, 0] += 1.0  # 5 % larger, and seen 5 % further away: the same in the picture
    larger = replace(
        prediction,
        coefficients=replace(
            prediction.coefficients,
            identity=identity,
            translation=prediction.coefficients.translation * np.float32(1.05),
        ),
    )
    (after,) = reconstructor.decode(tracks, crops, larger, camera)
    boxes = [f.box for f in (before, after)]
    sides = [b[2] - b[0] for b in boxes]
    assert sides[1] == pytest.approx(sides[0], rel=0.003)


def test_coefficients_and_pose_tell_the_same(make_pipeline):
    """Also with smoothing: the coefficients of a Face are those its pose was made of."""
    on = OneEuroConfig(min_cutoff_hz=1.0, beta=0.1)
    pipeline = make_pipeline(smooth_rotation=on, smooth_translation=on)
    camera = PinholeCamera.from_fov(W, H)
    for k in range(10):
        (face,) = pipeline.process(image((200 + 5 * k, 200, 40, RED), k=k), camera).faces
    c, crop = face.coefficients, face.crop
    nominal = crop_from_face(c.rotation[0], c.translation[0])
    seen = crop.to_image(crop_camera(crop.size).project(nominal.translation))
    np.testing.assert_allclose(camera.project(face.camera_from_face.translation), seen, atol=1e-2)
    assert angle_between(nominal.rotation, face.camera_from_face.rotation) < 0.4


def test_smoothing_lags_and_off_does_not(make_pipeline):
    def last(**settings):
        pipeline = make_pipeline(**settings)
        for k in range(20):
            (face,) = pipeline.process(image((200 + 8 * k, 200, 40, RED), k=k)).faces
        return face.camera_from_face.translation[0]

    slow = OneEuroConfig(min_cutoff_hz=0.5, beta=0.0)
    assert last(smooth_translation=slow) < last() - 0.01


def test_one_batch_or_one_by_one_is_the_same(make_pipeline):
    both = make_pipeline().process(image((150, 120, 40, RED), (480, 300, 60, GREEN)))
    alone = make_pipeline().process(image((150, 120, 40, RED)))
    face = min(both.faces, key=lambda f: f.track.box[0])
    np.testing.assert_allclose(face.mesh.vertices, alone.faces[0].mesh.vertices, atol=1e-6)


def test_colours_only_where_asked(make_pipeline):
    (face,) = make_pipeline(colours="off").process(image((150, 120, 40, RED))).faces
    assert face.mesh.colours is None
    with pytest.raises(ConfigError, match="image, model, off"):
        make_pipeline(colours="all")


def test_colours_are_the_pictures_where_it_shows_the_face(make_pipeline):
    """A red and a green person; the model's colours are neither."""
    picture = image((150, 120, 40, RED), (480, 300, 60, GREEN))
    faces = make_pipeline(colours="image").process(picture).faces
    for face, colour in zip(
        sorted(faces, key=lambda f: f.track.box[0]), (RED, GREEN), strict=True
    ):
        middle = np.median(face.mesh.colours, axis=0)
        np.testing.assert_allclose(middle, np.array(colour) / 255, atol=0.06)
    plain = make_pipeline(colours="model").process(picture).faces
    for face in plain:
        assert np.abs(np.median(face.mesh.colours, axis=0) - np.array(GREEN) / 255).max() > 0.1


@pytest.mark.parametrize("refine", [0, 1, 2])
def test_stills_stand_for_themselves(make_pipeline, refine):
    pipeline = make_pipeline()
    first, second = (
        pipeline.process_still(image((x, 200, 40, RED)), refine=refine) for x in (200, 210)
    )
    assert first.faces[0].track.id != second.faces[0].track.id
    assert ("refine" in first.timings) == (refine > 0)


def test_refinement_finds_the_face_a_bad_box_missed(make_pipeline):
    """A box off by a third of its size: one pass puts the next crop right."""

    class Sloppy(DiscDetector):
        def detect(self, rgb):
            found = super().detect(rgb)
            return replace(found, boxes=found.boxes + np.float32([20, 0, 20, 0]))

    pipeline = make_pipeline(detector=Sloppy())
    boxes = [
        pipeline.process_still(image((300, 200, 40, RED)), refine=n).tracks[0].box for n in (0, 1)
    ]
    assert abs(centre(boxes[0])[0] - 300) > 15
    assert abs(centre(boxes[1])[0] - 300) < 4


def test_grey_pictures(make_pipeline):
    grey = draw_discs(W, H, (200, 200, 40, (200, 200, 200)))
    rgb_face = make_pipeline().process(Image(grey, 0.0)).faces[0]
    grey_face = make_pipeline().process(Image(grey[..., 0], 0.0)).faces[0]
    np.testing.assert_array_equal(rgb_face.mesh.vertices, grey_face.mesh.vertices)


def test_no_face_is_an_empty_frame(make_pipeline):
    frame = make_pipeline().process(image())
    assert frame.faces == [] == frame.tracks
    assert frame.timings["total"] >= frame.timings["infer"] >= 0
    assert make_pipeline().process_still(image()).faces == []


def test_nobody_for_minutes_costs_the_detector_alone(make_pipeline, monkeypatch):
    pipeline = make_pipeline(detector=(detector := DiscDetector()))
    network = pipeline.reconstructor.network
    with monkeypatch.context() as none_runs:
        none_runs.setattr(network, "session", None)
        for k in range(60):
            assert not pipeline.process(Image(np.zeros((H, W, 3), np.uint8), 5.0 * k)).faces
    assert detector.calls == 60
    assert len(pipeline.process(Image(image((200, 200, 40, RED)).rgb, 300.0)).faces) == 1


def test_stages_add_up(make_pipeline):
    ticks = iter(range(1000))
    pipeline = make_pipeline(timer=lambda: float(next(ticks)))
    timings = pipeline.process(image((200, 200, 40, RED))).timings
    total = timings.pop("total")
    assert sum(timings.values()) == total and set(timings) < set(STAGES)


@pytest.mark.parametrize("bad", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.float32)])
def test_unusable_images_are_refused(make_pipeline, bad):
    with pytest.raises(ImageError):
        make_pipeline().process(Image(bad, 0.0))


def test_a_camera_of_another_size_is_refused(make_pipeline):
    with pytest.raises(CameraError, match="640 x 480"):
        make_pipeline().process(image(), PinholeCamera.from_fov(320, 240))


def test_network_and_face_model_must_belong_together(make_pipeline, face_model_path):
    network = make_pipeline().reconstructor.network
    model = load_morphable_model(face_model_path)
    for other in (
        replace(model, albedo_basis=model.albedo_basis[:, :2]),
        replace(model, name="dome v2"),
    ):
        with pytest.raises(ModelError, match="trained for"):
            FaceReconstructor(network, other)


def test_crops_are_squares_of_the_networks_margin(make_pipeline):
    reconstructor = make_pipeline().reconstructor
    tracks = make_pipeline().process(image((200, 200, 40, RED))).tracks
    (crop,) = reconstructor.crops(tracks)
    assert isinstance(crop, Crop)
    side = tracks[0].box[2] - tracks[0].box[0]
    assert crop.side_px == pytest.approx(reconstructor.network.crop_margin * side)
    assert reconstructor.extract(image().rgb, []).shape == (0, 64, 64, 3)


def test_only_the_face_without_a_usable_answer_is_dropped(make_pipeline):
    pipeline = make_pipeline()
    picture = image((150, 120, 40, RED), (480, 300, 60, GREEN)).rgb
    pipeline.process(Image(picture, 0.0))
    predict = pipeline.reconstructor.predict

    def spoilt(pixels):
        prediction = predict(pixels)
        prediction.coefficients.rotation[0] = np.nan
        return prediction

    pipeline.reconstructor.predict = spoilt
    frame = pipeline.process(Image(picture, 1 / FPS))
    assert len(frame.faces) == len(frame.tracks) == frame.unusable == 1
    assert frame.faces[0].track.id == frame.tracks[0].id
    still = pipeline.process_still(Image(picture, 2 / FPS))
    assert len(still.faces) == len(still.tracks) == still.unusable == 1
    pipeline.reconstructor.predict = predict
    frame = pipeline.process(Image(picture, 3 / FPS))
    assert (len(frame.faces), frame.unusable) == (2, 0)


def test_smoothing_and_the_detectors_score_change_under_way(make_pipeline, monkeypatch):
    pipeline = make_pipeline()
    sway = [
        pipeline.process(image((200 + 6 * (k % 2), 200, 40, RED), k=k)).faces[0] for k in range(20)
    ]
    steady = OneEuroConfig(min_cutoff_hz=0.05, beta=0.0)
    config = replace(pipeline.reconstructor.config, smooth_translation=steady)
    pipeline.reconstructor.tune(config)
    calm = [
        pipeline.process(image((200 + 6 * (k % 2), 200, 40, RED), k=k)).faces[0]
        for k in range(20, 60)
    ]
    spread = [np.std([f.camera_from_face.translation[0] for f in s[-10:]]) for s in (sway, calm)]
    assert spread[1] < 0.1 * spread[0]
    assert len({f.track.id for f in [*sway, *calm]}) == 1

    made = []
    monkeypatch.setattr(
        "face_recon_ros.core.finder.make_detector", lambda c: made.append(c) or DiscDetector()
    )
    for score in (0.5, 0.8, 0.8):
        pipeline.finder.tune(DetectorConfig(min_score=score))
    assert [c.min_score for c in made] == [0.5, 0.8]
    assert pipeline.process(image((200, 200, 40, RED), k=60)).faces[0].track.id == calm[0].track.id


def test_another_camera_starts_the_filters_anew(make_pipeline):
    """A CameraInfo that comes late, or changes, moves every face: that is no motion of theirs."""
    steady = OneEuroConfig(min_cutoff_hz=0.05, beta=0.0)
    pipeline = make_pipeline(smooth_translation=steady)
    guess, tele = PinholeCamera.from_fov(W, H), PinholeCamera.from_fov(W, H, 30.0)
    picture = image((200, 200, 40, RED)).rgb
    before = [pipeline.process(Image(picture, k / FPS), guess).faces[0] for k in range(10)][-1]
    after = pipeline.process(Image(picture, 10 / FPS), tele).faces[0]
    alone = make_pipeline().process(Image(picture, 0.0), tele).faces[0]
    assert after.track.id == before.track.id
    np.testing.assert_allclose(
        after.camera_from_face.translation, alone.camera_from_face.translation, rtol=0.02
    )


def test_a_graph_in_place_of_the_steps_makes_the_same_faces(make_pipeline):
    steps = make_pipeline().reconstructor
    assert steps.decoder == "numpy"
    graph = FaceReconstructor(
        steps.network, steps.model, replace(steps.config, decoder="graph", provider="cpu")
    )
    assert graph.decoder == "graph CPUExecutionProvider"
    crops = np.random.default_rng(0).integers(
        0, 255, (2, steps.network.size, steps.network.size, 3), np.uint8
    )
    tracks = [Track(f"t{k}", np.array([10.0, 10, 60, 60], np.float32), 1.0, 0.0) for k in range(2)]
    camera = PinholeCamera.from_fov(320, 240)
    answers = []
    for reconstructor in (steps, graph):
        places = reconstructor.crops(tracks)
        prediction = reconstructor.predict(crops)
        answers.append(reconstructor.decode(tracks, places, prediction, camera))
        assert reconstructor.decode([], [], reconstructor.predict(crops[:0]), camera) == []
    for one, two in zip(*answers, strict=True):
        np.testing.assert_allclose(one.mesh.vertices, two.mesh.vertices, atol=1e-5)
        np.testing.assert_allclose(one.mesh.colours, two.mesh.colours, atol=4e-3)
        np.testing.assert_allclose(one.box, two.box, atol=1e-2)
