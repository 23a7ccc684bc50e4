"""Model files that are not what they should be: each is refused, with what is wrong with it."""

import contextlib
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.inference import FaceNetwork
from face_recon_ros.core.models import NETWORK, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.onnx_file import external_tensors


def external(name, location="/etc/passwd"):
    """A tensor whose values lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def saved(path, *, initializer=(), nodes=()):
    graph = helper.make_graph(list(nodes), "g", [], [], initializer=list(initializer))
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def within_if(tensor):
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    branch = helper.make_graph([constant], "b", [], [])
    return helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)


def test_shipped_and_sound_networks_keep_their_weights(network_path):
    assert external_tensors(find_model(NETWORK).read_bytes()) == []
    assert find_model(network_path) == network_path


def test_a_network_saved_with_external_data_is_refused(network_path, tmp_path):
    path = tmp_path / "net.onnx"
    model = onnx.load(network_path)
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(ModelError, match="in other files"):
        find_model(path)


@pytest.mark.parametrize(
    "content",
    [
        {"initializer": [external("w")]},
        {"nodes": [helper.make_node("Constant", [], ["w"], value=external("w"))]},
        {"nodes": [within_if(external("w"))]},
    ],
    ids=["initializer", "constant", "branch of an If"],
)
def test_external_data_is_found_wherever_it_is(content, tmp_path):
    path = saved(tmp_path / "net.onnx", **content)
    assert set(external_tensors(path.read_bytes())) == {"w"}
    with pytest.raises(ModelError, match="'w' first"):
        find_model(path)


def test_numbers_written_longer_than_needed_hide_nothing():
    tensor = b"\x42\x01w" + b"\xf0\x80\x00" + b"\x81\x80\x00"  # data_location: EXTERNAL
    graph = b"\x2a" + bytes([0x80 | len(tensor), 0]) + tensor
    assert external_tensors(b"\xba\x00" + bytes([len(graph)]) + graph) == ["w"]


@given(st.lists(st.sampled_from(["in", "out"]), max_size=5))
def test_exactly_those_outside_are_named(places):
    tensors = [
        external(f"t{i}") if p == "out" else numpy_helper.from_array(np.ones(2), f"t{i}")
        for i, p in enumerate(places)
    ]
    model = helper.make_model(helper.make_graph([], "g", [], [], initializer=tensors))
    names = [f"t{i}" for i, place in enumerate(places) if place == "out"]
    assert external_tensors(model.SerializeToString()) == names


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    with contextlib.suppress(ValueError):
        assert isinstance(external_tensors(content), list)


def wrapped(field, content):
    size = len(content)
    varint = bytes([0x80 | (size & 0x7F), 0x80 | (size >> 7 & 0x7F), size >> 14])
    return bytes([field << 3 | 2]) + varint + content


def test_a_bomb_of_messages_within_messages_is_refused():
    content = b""
    for _ in range(400):  # an If within a branch of an If within ...
        for field in (6, 5, 1):
            content = wrapped(field, content)
    with pytest.raises(ValueError, match="too deep"):
        external_tensors(wrapped(7, content))


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Writes the first part of a file."""
    folder = tmp_path_factory.mktemp("cut")

    def write(path, share):
        data = path.read_bytes()
        out = folder / path.name
        out.write_bytes(data[: int(share * len(data))])
        return out

    return write


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.999))
def test_a_network_that_was_cut_off_is_refused(cut, network_path, share):
    with pytest.raises(ModelError):
        FaceNetwork(find_model(cut(network_path, share)), threads=1)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.999))
def test_a_face_model_that_was_cut_off_is_refused(cut, face_model_path, share):
    with pytest.raises(ModelError):
        load_morphable_model(find_model(cut(face_model_path, share)))


@pytest.mark.parametrize("name", ["model.pkl", "net.pth", "net.pt", "model.npy", "net.onnx.exe"])
def test_formats_that_may_hold_code_are_refused(name, network_path, tmp_path):
    path = tmp_path / name
    shutil.copy(network_path, path)
    with pytest.raises(ModelError, match=r"\.npz, \.onnx, \.tflite"):
        find_model(path)


def test_arrays_that_are_pickles_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").write_text, ("x",))

    path = tmp_path / "model.npz"
    np.savez(path, name=np.array([Trap()], object), format_version=np.int32(1))
    with pytest.raises(ModelError, match="plain"):
        load_morphable_model(find_model(path))
    assert not (tmp_path / "sprung").exists()
