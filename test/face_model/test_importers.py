"""Importers on small files of each foreign format; a pickle is never executed."""

import pickle

import numpy as np
import pytest
from scipy.io import savemat

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.face_model import importers
from face_recon_ros.face_model.build import write_model

N_SIDE = 14


@pytest.fixture(scope="module")
def patch():
    """A bump of a face: (V, 3) x left, y up, z out, half a face wide 1; triangles; marks."""
    side = np.linspace(-1, 1, N_SIDE)
    x, y = (a.ravel() for a in np.meshgrid(side, side, indexing="ij"))
    z = np.exp(-2 * (x**2 + y**2))
    index = np.arange(N_SIDE**2).reshape(N_SIDE, N_SIDE)
    a, b, c, d = (
        i.ravel() for i in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])
    )
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    marks = np.random.default_rng(0).permutation(N_SIDE**2)[:68]
    marks[30] = np.argmax(z)  # the tip of the nose stands out
    return np.stack([x, y, z], 1), triangles, marks


def loaded(arrays, path):
    write_model(arrays, path)
    return load_morphable_model(path)


def to_face(points):
    return points[:, [2, 0, 1]]


@pytest.fixture
def bfm(patch, tmp_path):
    points, triangles, marks = patch
    rng = np.random.default_rng(1)
    n = len(points)
    data = {
        "meanshape": points.reshape(1, -1),  # decimetres
        "idBase": rng.normal(size=(3 * n, 80)),
        "exBase": rng.normal(size=(3 * n, 64)),
        "meantex": rng.uniform(0, 255, (1, 3 * n)),
        "texBase": rng.normal(size=(3 * n, 80)),
        "tri": triangles + 1,
        "keypoints": marks[None] + 1,
        "skinmask": (np.arange(n) % 3 > 0)[None].astype(float),
    }
    path = tmp_path / "BFM_model_front.mat"
    savemat(path, data)
    return path, data


def test_bfm09(bfm, patch, tmp_path):
    path, data = bfm
    points, _, marks = patch
    model = loaded(importers.import_bfm09(path), tmp_path / "bfm.npz")
    assert (model.k_identity, model.k_expression, model.k_albedo) == (80, 64, 80)
    assert model.expression_prior == "normal"
    assert (model.landmarks_68 == marks).all()
    expected = to_face(points) * 0.1
    np.testing.assert_allclose(model.mean_shape, expected - expected[marks[27]], atol=1e-7)
    np.testing.assert_allclose(model.mean_shape[model.sellion], 0.0, atol=1e-9)
    a = np.random.default_rng(2).normal(size=80)
    moved = (points.ravel() + data["idBase"] @ a).reshape(-1, 3)  # in the source's own terms
    got = model.neutral(a) - model.mean_shape
    np.testing.assert_allclose(got, to_face(moved - points) * 0.1, atol=5e-3)
    np.testing.assert_allclose(model.mean_albedo.ravel(), data["meantex"].ravel() / 255, atol=1e-3)
    assert (model.subsets["facial_skin"] == (data["skinmask"].ravel() > 0)).all()


def test_bfm09_triangles_face_outward_whichever_way_they_came(bfm, patch, tmp_path):
    path, data = bfm
    _, triangles, _ = patch
    flipped = tmp_path / "flipped.mat"
    savemat(flipped, {**data, "tri": triangles[:, [0, 2, 1]] + 1})
    one = importers.import_bfm09(path)["triangles"]
    two = importers.import_bfm09(flipped)["triangles"]
    corners = importers.import_bfm09(path)["mean_shape"][one]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normal[:, 0] > 0).all()
    assert {tuple(np.roll(t, -t.argmin())) for t in one} == {
        tuple(np.roll(t, -t.argmin())) for t in two
    }


def test_bfm09_refuses_what_it_is_not(bfm, tmp_path):
    _, data = bfm
    for missing in ("idBase", "keypoints"):
        other = tmp_path / "other.mat"
        savemat(other, {k: v for k, v in data.items() if k != missing})
        with pytest.raises(ModelError, match=missing):
            importers.import_bfm09(other)
    with pytest.raises(ModelError, match="BFM_model_front"):
        importers.import_bfm09(tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("no matrix")
    with pytest.raises(ModelError, match="BFM_model_front"):
        importers.import_bfm09(tmp_path / "text.mat")


@pytest.fixture
def fixed_landmarks(patch):
    """The transfer of landmarks is tested on its own; here they are given."""
    return lambda mean, triangles: patch[2]


def flame_arrays(points, triangles):
    rng = np.random.default_rng(3)
    return {
        "v_template": points * 0.08,
        "shapedirs": rng.normal(size=(len(points), 3, 400)) * 1e-3,
        "f": triangles.astype(np.uint32),
    }


def check_flame(model, arrays):
    assert (model.k_identity, model.k_expression) == (300, 100)
    expected = to_face(arrays["v_template"])
    np.testing.assert_allclose(
        model.mean_shape - model.mean_shape[0], expected - expected[0], atol=1e-7
    )
    e = np.zeros(100)
    e[7] = 2.0
    moved = model.vertices(np.zeros(300), e) - model.mean_shape
    np.testing.assert_allclose(moved, to_face(2 * arrays["shapedirs"][:, :, 307]), atol=5e-6)


def test_flame_npz(patch, tmp_path, fixed_landmarks):
    arrays = flame_arrays(*patch[:2])
    np.savez(tmp_path / "flame.npz", **arrays)
    check_flame(
        loaded(
            importers.import_flame(tmp_path / "flame.npz", fixed_landmarks), tmp_path / "m.npz"
        ),
        arrays,
    )


class _Chumpy:
    """Pickles as `chumpy.ch.Ch`, which is not installed."""

    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize("wrapped", [False, True])
def test_flame_pickle_with_chumpy_arrays(patch, tmp_path, fixed_landmarks, wrapped):
    arrays = flame_arrays(*patch[:2])
    content = dict(arrays)
    if wrapped:
        content["shapedirs"] = _Chumpy(arrays["shapedirs"])
    raw = pickle.dumps(content, protocol=0)  # FLAME's own is Python 2's: protocols 0 to 2
    raw = raw.replace(_Chumpy.__module__.encode() + b"\n_Chumpy", b"chumpy.ch\nCh")
    (tmp_path / "generic_model.pkl").write_bytes(raw)
    check_flame(
        loaded(
            importers.import_flame(tmp_path / "generic_model.pkl", fixed_landmarks),
            tmp_path / "m.npz",
        ),
        arrays,
    )


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_is_not_executed(patch, tmp_path, fixed_landmarks):
    trace = tmp_path / "trace"
    content = {**flame_arrays(*patch[:2]), "weights": _Evil(trace)}
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError, match="wants to load"):
        importers.import_flame(tmp_path / "evil.pkl", fixed_landmarks)
    assert not trace.exists()


def write_obj(path, points, quads):
    lines = [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in points]
    lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in q) for q in quads]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def ict(patch, tmp_path):
    points, _, _ = patch
    index = np.arange(N_SIDE**2).reshape(N_SIDE, N_SIDE)
    quads = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1)
    folder = tmp_path / "FaceXModel"
    folder.mkdir()
    neutral = points * 8.0  # centimetres
    write_obj(folder / "generic_neutral_mesh.obj", neutral, quads.reshape(-1, 4))
    for k in range(3):
        write_obj(
            folder / f"identity{k:03d}.obj",
            neutral + np.array([k + 1, 0, 0]),
            quads.reshape(-1, 4),
        )
    for name in ("browDown_L", "browDown_R", "jawOpen"):
        write_obj(folder / f"{name}.obj", neutral - [0, 1, 0], quads.reshape(-1, 4))
    return folder


def test_ict(ict, tmp_path, fixed_landmarks):
    model = loaded(importers.import_ict(ict, fixed_landmarks), tmp_path / "ict.npz")
    assert model.expression_names == ("browDownLeft", "browDownRight", "jawOpen")
    assert model.expression_prior == "unit_interval"
    assert model.licence == "MIT"
    moved = model.neutral([0, 0, 1.0]) - model.mean_shape  # 3 cm to the subject's left: +y
    np.testing.assert_allclose(moved, np.broadcast_to([0, 0.03, 0], moved.shape), atol=2e-5)
    down = model.vertices(np.zeros(3), [0, 0, 1.0]) - model.mean_shape
    np.testing.assert_allclose(down, np.broadcast_to([0, 0, -0.01], down.shape), atol=2e-5)


def test_ict_refuses_incomplete_folders(ict, tmp_path, fixed_landmarks):
    with pytest.raises(ModelError, match="generic_neutral_mesh"):
        importers.import_ict(tmp_path, fixed_landmarks)
    (ict / "identity001.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(ModelError, match="identity001"):
        importers.import_ict(ict, fixed_landmarks)
    for path in ict.glob("identity*.obj"):
        path.unlink()
    with pytest.raises(ModelError, match="identity"):
        importers.import_ict(ict, fixed_landmarks)
