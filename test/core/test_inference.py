"""The network behind its named outputs."""

import numpy as np
import onnx
import pytest
from fixtures import CROP_MARGIN, CROP_SIZE, FACE_MODEL_NAME, K_ALBEDO, K_IDENTITY

from face_recon_ros.core.errors import ConfigError, ImageError, ModelError
from face_recon_ros.core.inference import FaceNetwork, read_crop_spec
from face_recon_ros.core.models import (
    FACE_MODEL,
    NETWORK,
    REFERENCE_NETWORK,
    find_model,
    sha256_of,
)
from face_recon_ros.core.morphable_model import DECODING_KEYS, decoding_sha256, same_decoding
from face_recon_ros.core.onnx_session import choose_providers
from face_recon_ros.core.types import COEFFICIENT_NAMES


@pytest.fixture(scope="module")
def network(network_path):
    return FaceNetwork(network_path, threads=1)


def _crops(n):
    return np.random.default_rng(0).integers(0, 256, (n, CROP_SIZE, CROP_SIZE, 3), np.uint8)


def test_the_file_says_what_it_needs(network):
    assert (network.size, network.crop_margin) == (CROP_SIZE, CROP_MARGIN)
    assert network.face_model == FACE_MODEL_NAME
    assert network.sizes == {"identity": K_IDENTITY, "expression": 52, "albedo": K_ALBEDO}
    assert network.provider == "CPUExecutionProvider"


def test_a_batch_is_its_crops_one_by_one(network):
    crops = _crops(3)
    together = network.predict(crops)
    for i in range(3):
        alone = network.predict(crops[i : i + 1])
        for name in COEFFICIENT_NAMES:
            np.testing.assert_allclose(
                getattr(together.coefficients[i], name),
                getattr(alone.coefficients, name),
                rtol=1e-5,
                atol=1e-6,
            )
        assert together.identity_confidence[i] == pytest.approx(alone.identity_confidence[0])


def test_no_crop_is_no_answer(network):
    prediction = network.predict(_crops(0))
    assert len(prediction.coefficients) == 0
    assert prediction.coefficients.identity.shape == (0, K_IDENTITY)
    assert prediction.identity_confidence.shape == (0,)


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((1, CROP_SIZE, CROP_SIZE + 1, 3), np.uint8),
        np.zeros((1, CROP_SIZE, CROP_SIZE, 3), np.float32),
        np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(network, crops):
    with pytest.raises(ImageError):
        network.predict(crops)


def test_providers():
    assert choose_providers("auto")[-1] == "CPUExecutionProvider"
    assert choose_providers("cpu") == ["CPUExecutionProvider"]
    with pytest.raises(ConfigError, match="cuda"):
        choose_providers("openvino")


def test_a_lost_gpu_hands_over_to_the_cpu(network_path, gpu_build):
    expected = FaceNetwork(network_path, threads=1, provider="cpu").predict(_crops(2))
    gpu_build.works, gpu_build.runs = True, 1
    network = FaceNetwork(network_path, threads=1)
    for used in ("CUDAExecutionProvider", "CPUExecutionProvider", "CPUExecutionProvider"):
        answer = network.predict(_crops(2))
        np.testing.assert_array_equal(
            answer.coefficients.translation, expected.coefficients.translation
        )
        assert network.provider == used
    assert network.provider != network.wanted_provider


def test_a_network_that_fails_on_the_cpu_too_says_so(network_path, gpu_build):
    network = FaceNetwork(network_path, threads=1)
    gpu_build.broken = True
    with pytest.raises(ModelError, match="999"):
        network.predict(_crops(1))


def test_rows_that_are_no_answer_are_told_apart(network):
    prediction = network.predict(_crops(4))
    c = prediction.coefficients
    assert prediction.usable.tolist() == [True] * 4
    c.expression[0, 7] = np.nan
    c.translation[1, 2] = -0.1
    c.illumination[2, 3, 1] = np.inf
    assert prediction.usable.tolist() == [False, False, False, True]
    assert network.predict(_crops(0)).usable.shape == (0,)


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_files_that_are_no_network_are_refused(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        FaceNetwork(path)
    with pytest.raises(ModelError):
        FaceNetwork(tmp_path / "absent.onnx")


def _rewritten(network_path, tmp_path, edit):
    network = onnx.load(network_path)
    edit(network)
    path = tmp_path / "edited.onnx"
    onnx.save(network, path)
    return path


def test_a_network_of_another_kind_is_refused(network_path, tmp_path):
    def forget_format(network):
        del network.metadata_props[:]

    def forget_pose(network):
        kept = [o for o in network.graph.output if o.name != "rotation"]
        del network.graph.output[:]
        network.graph.output.extend(kept)

    for edit in (forget_format, forget_pose):
        with pytest.raises(ModelError, match="face-recon export"):
            FaceNetwork(_rewritten(network_path, tmp_path, edit))


@pytest.mark.parametrize("margin", [None, "wide", "0", "nan"])
def test_metadata_must_make_sense(network_path, tmp_path, margin):
    def edit(network):
        for prop in list(network.metadata_props):
            if prop.key == "crop_margin":
                if margin is None:
                    network.metadata_props.remove(prop)
                else:
                    prop.value = margin

    with pytest.raises(ModelError, match="crop_margin"):
        FaceNetwork(_rewritten(network_path, tmp_path, edit))


def test_a_network_of_another_face_model_is_refused(network_path, face_model_path, tmp_path):
    def trained_for(sha):
        def edit(network):
            entry = network.metadata_props.add()
            entry.key, entry.value = "face_model_sha256", sha

        return FaceNetwork(_rewritten(network_path, tmp_path, edit))

    FaceNetwork(network_path).check_trained_for(face_model_path)  # it does not say
    trained_for(sha256_of(face_model_path)).check_trained_for(face_model_path)
    trained_for(decoding_sha256(face_model_path)).check_trained_for(face_model_path)
    with pytest.raises(ModelError, match="0000000000000000"):
        trained_for("0" * 64).check_trained_for(face_model_path)


def test_a_network_goes_with_every_file_that_decodes_alike(
    network_path, face_model_path, tmp_path
):
    with np.load(face_model_path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    digest = decoding_sha256(face_model_path)
    other = tmp_path / "other.npz"
    parts = np.roll(arrays["subsets"], 1, axis=1)
    np.savez(other, **{**arrays, "subsets": parts, "name": np.str_("other")})
    assert sha256_of(other) != sha256_of(face_model_path)
    assert decoding_sha256(other) == digest
    assert same_decoding(digest, other)
    for key in DECODING_KEYS:
        if key in arrays:
            changed = arrays[key].copy()
            changed.flat[0] += 1
            np.savez(other, **{**arrays, key: changed})
            assert not same_decoding(digest, other), key


def test_networks_that_name_the_first_release_go_with_the_shipped_face_model():
    first = "e0d8c53b806164301e0096b835357f7856b38c97c2f4cf59cbb9582c493bf21c"
    assert same_decoding(first, find_model(FACE_MODEL))
    for name in (NETWORK, REFERENCE_NETWORK):
        FaceNetwork(find_model(name), provider="cpu").check_trained_for(find_model(FACE_MODEL))


def test_the_crops_a_network_wants_are_read_without_loading_it(network_path, tmp_path):
    for path in (network_path, find_model(NETWORK), find_model(REFERENCE_NETWORK)):
        assert read_crop_spec(path) == FaceNetwork(path, provider="cpu", threads=1).crop_spec
    for content in (b"", b"no network at all", network_path.read_bytes()[:50]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ModelError):
            read_crop_spec(tmp_path / "bad.onnx")
