"""Examples made in torch: labels, effects and starts as numpy, OpenCV, ONNX Runtime have them."""

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

from face_recon_ros.core.camera import PinholeCamera  # noqa: E402
from face_recon_ros.core.crop import Crop, Picture, whole_crop  # noqa: E402
from face_recon_ros.core.crop_pose import (  # noqa: E402
    CROP_FOCAL,
    coefficients_from_crop_pose,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.errors import ConfigError  # noqa: E402
from face_recon_ros.core.inference import FaceNetwork  # noqa: E402
from face_recon_ros.core.models import FACE_MODEL, find_model  # noqa: E402
from face_recon_ros.core.morphable_model import FACIAL_SKIN, load_morphable_model  # noqa: E402
from face_recon_ros.core.normalised_camera import NormalisedCamera  # noqa: E402
from face_recon_ros.core.rectification import FaceFrame, Rectifier  # noqa: E402
from face_recon_ros.core.rigid import Rigid  # noqa: E402
from face_recon_ros.training import train_points as train_points_module  # noqa: E402
from face_recon_ros.training.config import PointConfig, config_from_dict  # noqa: E402
from face_recon_ros.training.point_examples import CROP_PX, PICTURE_PX  # noqa: E402
from face_recon_ros.training.point_objective import placed, project  # noqa: E402
from face_recon_ros.training.synthesis import lighting  # noqa: E402
from face_recon_ros.training.synthesis.augment import CropChange, Mirror  # noqa: E402
from face_recon_ros.training.synthesis.faces import Label, camera_of  # noqa: E402
from face_recon_ros.training.torch_synthesis import faces, pictures  # noqa: E402
from face_recon_ros.training.torch_synthesis.drawing import Draw, look_up  # noqa: E402
from face_recon_ros.training.torch_synthesis.point_source import TorchPointExamples  # noqa: E402
from face_recon_ros.training.torch_synthesis.view import draw_view  # noqa: E402
from face_recon_ros.training.train_points import train_points  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


def settings(**more):
    values = {"device": "cpu", "people": 3, "batch_size": 4, "points": 60, "seed": 1}
    return config_from_dict(values | more, PointConfig)


@pytest.fixture(scope="module", params=DEVICES)
def examples(request, model):
    device = torch.device(request.param)
    return TorchPointExamples(settings(device=request.param), model, device)


def test_batches_are_what_the_network_is_trained_on(model, examples):
    batch = examples.batch(7)
    assert batch.image.shape == (4, 96, 96, 3)
    assert batch.image.dtype == torch.uint8
    assert batch.start_identity.shape == (4, model.k_identity)
    assert batch.expression.shape == (4, model.k_expression)
    for rotation in (batch.rotation, batch.start_rotation):
        eye = torch.eye(3, device=rotation.device).expand(4, -1, -1)
        torch.testing.assert_close(rotation @ rotation.mT, eye, atol=1e-4, rtol=0)
    for value in batch:
        assert torch.isfinite(value.float()).all()
    seen = batch.image[batch.present > 0.5].float()
    assert (seen.std((1, 2, 3)) > 1).all()
    again = examples.batch(7)
    for a, b in zip(batch, again, strict=True):  # a GPU adds in any order
        assert (a.float() - b.float()).abs().mean() < 0.01
    assert not torch.equal(batch.image, examples.batch(8).image)


def test_labels_are_where_the_pictures_show_faces(model, examples):
    """Each face's skin, projected by its label, lies where the picture is not empty."""
    people = examples._faces.sample(Draw(examples._device, 4, 3))
    decoder = examples._faces._decoder
    shape = decoder.express(decoder.neutral(people.identity), people.expression)
    skin = np.flatnonzero(model.subsets[FACIAL_SKIN])
    in_crop = placed(shape[:, skin], people.rotation, people.translation)
    seen = CROP_FOCAL * project(in_crop)
    places = (seen * CROP_PX + (PICTURE_PX - 1) / 2)[:, :, None]
    inside = ((places > 1) & (places < PICTURE_PX - 2)).all(3)
    alpha = look_up(people.alpha, places)[..., 0]
    assert alpha[inside & ~people.view.framing.beside[:, None, None]].mean() > 0.97
    assert 0.2 < float(people.alpha.mean()) < 0.95


def test_views_label_as_numpy_does(model):
    """A camera, a crop of its picture, shifted, zoomed, rolled and flipped."""
    skin = model.mean_shape[model.subsets[FACIAL_SKIN]]
    heads = torch.from_numpy(skin).expand(6, -1, -1)
    view = draw_view(heads, 1.3, 0.0, 0.3, Draw(CPU, 6, 2))
    rotation, translation = view.crop_from_face()
    itself, carried = view.in_normalised(), view.from_crop_pose(rotation, translation)
    size, mirror = 100, Mirror(model)
    zero = [np.zeros(k, np.float32) for k in (model.k_identity, model.k_expression)]
    for k in range(6):
        f = view.framing
        zoom, shift = float(f.zoom[k]), f.shift[k].numpy()
        # the picture before framing: a crop of `size` pixels around the face box
        focal = float(view.focal[k]) * zoom * size
        middle = view.middle[k].numpy() - shift * size / focal
        principal = (size - 1) / 2 - middle * focal
        matrix = np.array([[focal, 0, principal[0]], [0, focal, principal[1]], [0, 0, 1]])
        pose = Rigid(view.rotation[k].double().numpy(), view.translation[k].double().numpy())
        camera = PinholeCamera(size, size, matrix)
        answer = coefficients_from_crop_pose(crop_from_camera_pose(pose, whole_crop(size), camera))
        label = Label(*zero, np.zeros(model.k_albedo), *answer, np.zeros((9, 3)))
        change = CropChange(tuple(shift), zoom, float(f.roll[k]))
        label = change.move(label, mirror)
        aside = (principal - (size - 1) / 2) / size
        intrinsics = change.move_camera(np.array([focal / size, *aside]))
        if f.flip[k]:
            label = mirror(label)
            intrinsics = CropChange(flip=True).move_camera(intrinsics)
        expected = crop_from_face(label.rotation, label.translation)
        np.testing.assert_allclose(rotation[k].numpy(), expected.rotation, atol=2e-4)
        np.testing.assert_allclose(
            translation[k].numpy(), expected.translation, rtol=2e-4, atol=1e-5
        )
        normalised = NormalisedCamera.of(whole_crop(size), camera_of(intrinsics, size))
        pose = normalised.from_crop_pose(expected)
        for r, t in (itself, carried):
            np.testing.assert_allclose(r[k].numpy(), pose.rotation, atol=5e-4)
            np.testing.assert_allclose(t[k].numpy(), pose.translation, rtol=5e-4, atol=1e-4)
    heads_seen = torch.where(f.flip[:, None, None], heads * torch.tensor([1.0, -1, 1]), heads)
    there = view.project_normalised(placed(heads_seen, *itself))
    torch.testing.assert_close(
        there, view.project(placed(heads, view.rotation, view.translation)), atol=1e-4, rtol=1e-4
    )
    px = view.project(heads @ view.rotation.mT + view.translation[:, None])
    rays = view.rays(px)
    again = view.project(rays)
    torch.testing.assert_close(again, px, atol=1e-4, rtol=1e-4)


def test_starts_are_the_regressors_and_faces_are_rectified_as_at_inference(model, examples):
    """Torch against ONNX Runtime and OpenCV, on the very pictures."""
    people = examples._faces.sample(Draw(examples._device, 2, 5))
    shown = examples._pictures.compose(people.rgb, people.alpha, Draw(examples._device, 2, 6))
    rotation, translation, identity, expression = examples._answers(shown)
    network = FaceNetwork(find_model("face_net.onnx"), provider="cpu", threads=1)
    crop = Crop(np.full(2, (PICTURE_PX - 1) / 2), float(CROP_PX), network.size)
    rgb = shown.cpu().numpy().astype(np.uint8)
    answer = network.predict(np.stack([crop.extract(p) for p in rgb])).coefficients
    np.testing.assert_allclose(identity.cpu(), answer.identity, atol=0.05)
    np.testing.assert_allclose(expression.cpu(), answer.expression, atol=0.01)
    np.testing.assert_allclose(translation.cpu(), answer.translation, rtol=0.01, atol=1e-3)
    expected = [crop_from_face(r, [0, 0, 1]).rotation for r in answer.rotation]
    np.testing.assert_allclose(rotation.cpu(), expected, atol=5e-3)
    known = torch.zeros(2, dtype=torch.bool, device=rotation.device)
    ours = examples._rectified(shown, people.view, known, rotation, translation).cpu().numpy()
    frame = FaceFrame.of(rotation.cpu().numpy(), translation.cpu().numpy())
    for k in range(2):
        camera = NormalisedCamera.of(crop)
        theirs = Rectifier(model).sample(Picture(rgb[k]), camera, frame, k)
        assert np.abs(ours[k].astype(int) - theirs).mean() < 0.5


def test_outfits_move_with_the_head(model, examples):
    """The head's triangles stay first; teeth are lit by what the lips let in, nothing else is."""
    wardrobe, device = examples._faces._wardrobe, examples._device
    n = len(wardrobe)
    who, light = torch.arange(n, device=device), torch.ones(n, device=device)
    mean = torch.from_numpy(model.mean_shape).to(device).expand(n, -1, -1)
    worn, moved = wardrobe.wear(who, mean, light), wardrobe.wear(who, mean + 0.01, light / 2)
    torch.testing.assert_close(moved.vertices, worn.vertices + 0.01)
    assert worn.vertices.shape[1] > model.n_vertices
    assert int(worn.triangles.max()) < worn.vertices.shape[1]
    first = worn.triangles[0, : len(model.triangles)].cpu().numpy()
    assert (first == model.triangles).all()
    ratio = (moved.occlusion / worn.occlusion)[worn.occlusion > 0].unique()
    assert set(ratio.tolist()) == {0.5, 1.0}


def test_light_and_cast_shadows_are_numpys(model):
    towards = np.array([[0.3, -0.8, -0.5], [0.9, 0.1, -0.4]], np.float32)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    ours = faces.directional_light(torch.from_numpy(towards))
    shown = faces.lit(
        torch.from_numpy(model.mean_shape).expand(2, -1, -1),
        torch.from_numpy(model.triangles.astype(np.int64)).expand(2, -1, -1),
        torch.from_numpy(towards),
    )
    for k in range(2):
        np.testing.assert_allclose(ours[k], lighting.directional_light(towards[k]), atol=1e-6)
        theirs = lighting.lit(model.mean_shape, model.triangles, towards[k])
        assert (shown[k].numpy() == theirs).mean() > 0.97


def test_jpeg_is_opencvs():
    random = np.random.default_rng(0)
    rough = random.uniform(0, 255, (3, 20, 20, 3)).astype(np.float32)
    images = np.stack([cv2.resize(r, (160, 160), interpolation=cv2.INTER_CUBIC) for r in rough])
    images = images.clip(0, 255).round()
    qualities = [30.0, 60.0, 90.0]
    ours = pictures.jpeg(torch.from_numpy(images), torch.tensor(qualities)).numpy()
    for mine, image, quality in zip(ours, images, qualities, strict=True):
        options = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
        _, data = cv2.imencode(".jpg", image[..., ::-1].astype(np.uint8), options)
        theirs = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
        harm = np.abs(theirs - image).mean()
        assert np.abs(mine - theirs).mean() < 0.25 * harm + 1.0


def test_lenses_keep_the_mean_and_blur():
    """Every row of every matrix sums to one; the strongest blur leaves little of a stripe."""
    made = pictures.TorchPictures([np.zeros((128, 128, 3), np.uint8)], 160, CPU)
    stripes = torch.tensor([0.0, 1.0]).repeat(80)
    for bank in made._lenses:
        torch.testing.assert_close(bank.sum(2), torch.ones(bank.shape[:2]))
        left = (bank @ stripes).std(1) / stripes.std()
        assert left.max() < 1.001
        assert left.min() < 0.1


def test_look_up_is_bilinear():
    picture = np.random.default_rng(0).uniform(0, 1, (2, 7, 9, 3)).astype(np.float32)
    places = np.random.default_rng(1).uniform(-3, 11, (2, 5, 4, 2)).astype(np.float32)
    for black, border in ((True, cv2.BORDER_CONSTANT), (False, cv2.BORDER_REPLICATE)):
        ours = look_up(torch.from_numpy(picture), torch.from_numpy(places), black=black)
        for k in range(2):
            x, y = np.ascontiguousarray(places[k].transpose(2, 0, 1))
            theirs = cv2.remap(picture[k], x, y, cv2.INTER_LINEAR, borderMode=border)
            np.testing.assert_allclose(ours[k], theirs, atol=0.05)


def test_a_run_on_a_device_resumes(tmp_path, examples, monkeypatch):
    """Each step has examples of its own, also after a restart."""
    began = []

    def ready(*_, first_step, **__):
        began.append(first_step)
        examples._step = first_step
        return examples

    monkeypatch.setattr(train_points_module, "TorchPointExamples", ready)
    device = str(examples._device)
    shape = {"out": str(tmp_path / "run"), "device": device, "width": 8, "hidden": 16}
    checkpoint = train_points(settings(**shape, steps=2, fit_after=1, bfloat16=True))
    longer = settings(**shape, steps=3, fit_after=1, bfloat16=True)
    assert train_points(longer, resume=True) == checkpoint
    assert began == [0, 2]
    assert torch.load(checkpoint, weights_only=True)["step"] == 3


def test_a_device_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        train_points(settings(out=str(tmp_path), device="nowhere"))
