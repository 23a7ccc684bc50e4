"""Messages of textures."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from face_recon_ros.core.errors import ImageError
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.textures import coordinates_from_msg, coordinates_to_msg

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
