"""Textures of people, their coordinates, and the messages of both."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import PointCloud2

from face_recon_ros.core.errors import ImageError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.texture_atlas import TextureAtlas
from face_recon_ros.nodes import conversions, textures
from face_recon_ros.nodes.runtime import LATCHED_QOS
from face_recon_ros.nodes.textures import (
    TextureOutputs,
    coordinates_from_msg,
    coordinates_to_msg,
)

HEADER = conversions.header_of(1.0, "")


@pytest.mark.parametrize("n", [0, 1, 7])
def test_coordinates_round_trip(n):
    uvs = np.random.default_rng(n).uniform(size=(n, 3, 2)).astype(np.float32)
    back = coordinates_from_msg(coordinates_to_msg(uvs, HEADER))
    np.testing.assert_array_equal(back, uvs)


def test_another_cloud_is_refused():
    msg = coordinates_to_msg(np.zeros((2, 3, 2), np.float32), HEADER)
    msg.width = 2
    with pytest.raises(ImageError, match="texture_coordinates"):
        coordinates_from_msg(msg)


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL))


def outputs(listener, model):
    """Textures of a node beside the listener, and what its thread does with an item."""
    node, works = listener.node, []
    node.start_worker = lambda name, work: works.append(work)
    return TextureOutputs(node, model), works[0]


def test_a_late_reader_gets_the_coordinates_though_nobody_reads_a_texture(listener, model):
    made, _ = outputs(listener, model)
    heard = listener.listen(PointCloud2, made.coordinates.topic_name, LATCHED_QOS)
    assert listener.spin_until(lambda: heard)
    uvs = coordinates_from_msg(heard[0])
    assert len(uvs) == len(model.triangles)
    np.testing.assert_array_equal(uvs, TextureAtlas(model, 64).uvs[model.uv_triangles])


def test_a_person_who_is_forgotten_while_their_texture_is_made_harms_nothing(
    listener, model, monkeypatch
):
    made, work = outputs(listener, model)
    texture = listener.node.create_publisher(ImageMsg, "aaaaa/texture", LATCHED_QOS)

    class Builder:
        def __init__(self, *parts):
            pass

        def wants(self, pose, quality):
            return True

        def add(self, view):
            made.forget("aaaaa")  # by the pipeline's thread, after a jump of the clock
            listener.node.destroy_publisher(texture)

        def texture(self, albedo):
            return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(textures, "TextureBuilder", Builder)
    albedo = SimpleNamespace(albedo=np.zeros((1, model.k_albedo), np.float32))
    view = SimpleNamespace(pose=None, quality=1.0)
    face = SimpleNamespace(id="aaaaa", view=view, coefficients=albedo)
    for _ in range(2):  # the second one stood in the slot
        work(([(face, texture)], HEADER))
        assert not made._builders and not made._looked
