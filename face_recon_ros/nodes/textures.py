"""Publishes people's textures: what images have shown of a face, finer than its vertices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.publisher import Publisher
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from face_recon_ros.core.errors import ImageError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.texture_atlas import TextureAtlas, TextureBuilder, texture_layout
from face_recon_ros.core.texture_sampler import TextureSampler
from face_recon_ros.core.types import Face, Float32
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.runtime import LATCHED_QOS, FaceNode

TEXTURE_PX = 512
_PERIOD_S = 0.5  # between two updates of textures: one takes 0.1 s of a core


class TextureOutputs:
    """/face/<id>/texture where subscribed to, and /face/mesh/texture_coordinates.

    A thread of its own gathers them: a texture is published when a view has added to it.
    """

    def __init__(self, node: FaceNode, model: MorphableModel) -> None:
        """Publishes the coordinates, once, and starts the thread.

        Args:
            node: whose outputs these are.
            model: the mesh that is published.
        """
        self._model = model
        self.coordinates = node.create_publisher(
            PointCloud2, "mesh/texture_coordinates", LATCHED_QOS
        )
        if len(model.uv_triangles):
            uvs = texture_layout(model)[model.uv_triangles]
            self.coordinates.publish(coordinates_to_msg(uvs, Header()))
        self._atlas: TextureAtlas | None = None
        self._sampler: TextureSampler | None = None
        self._builders: dict[str, TextureBuilder] = {}
        self._looked: dict[str, float] = {}
        self._last = -np.inf
        self._slot = node.start_worker("textures", self._work)

    def offer(self, faces: Sequence[tuple[Face, Publisher]], header: Header) -> None:
        """Takes in how an image shows faces; returns at once.

        Args:
            faces: those whose texture has a subscriber, with its publisher.
            header: of the image.
        """
        stamp = conversions.seconds_from_stamp(header.stamp)
        if not len(self._model.uv_triangles) or abs(stamp - self._last) < _PERIOD_S:
            return
        seen = [(face, publisher) for face, publisher in faces if face.view is not None]
        if seen and self._slot.wait_until_idle(0.0):
            self._last = stamp
            self._slot.put((seen, header))

    def forget(self, name: str) -> None:
        """Forgets what a person looks like."""
        self._builders.pop(name, None)
        self._looked.pop(name, None)

    def _work(self, item: tuple[list[tuple[Face, Publisher]], Header]) -> None:
        seen, header = item
        stamp = conversions.seconds_from_stamp(header.stamp)
        face, publisher = min(seen, key=lambda pair: self._looked.get(pair[0].id, -np.inf))
        self._looked[face.id] = stamp
        if self._atlas is None or self._sampler is None:
            self._atlas = TextureAtlas(self._model, TEXTURE_PX)
            self._sampler = TextureSampler(self._model)
        builder, view = self._builders.get(face.id), face.view
        if builder is None:
            builder = TextureBuilder(self._atlas, self._sampler, self._model)
            self._builders[face.id] = builder
        if view is not None and builder.wants(view.pose, view.quality):
            builder.add(view)
            picture = builder.texture(self._model.albedo(face.coefficients.albedo[0]))
            try:
                publisher.publish(conversions.image_to_msg(picture, header))
            except rclpy_implementation.InvalidHandle:  # the person was forgotten meanwhile
                self.forget(face.id)


def coordinates_to_msg(uvs: Float32, header: Header) -> PointCloud2:
    """Texture coordinates (F, 3, 2) of the topology's triangles: a row a triangle, fields u, v."""
    msg = PointCloud2(header=header, height=len(uvs), width=3, is_dense=True)
    msg.fields = [
        PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
        for name, offset in (("u", 0), ("v", 4))
    ]
    msg.point_step, msg.row_step = 8, 24
    msg.data = conversions.bytes_array(np.ascontiguousarray(uvs, "<f4"))
    return msg


def coordinates_from_msg(msg: PointCloud2) -> NDArray[np.float32]:
    """Inverse of `coordinates_to_msg`.

    Raises:
        ImageError: a cloud of another layout.
    """
    layout = [(f.name, f.offset) for f in msg.fields]
    if layout != [("u", 0), ("v", 4)] or msg.width != 3 or len(msg.data) != 24 * msg.height:
        raise ImageError(
            "a cloud u v of three points a row",
            f"{layout}, {msg.width} points a row, {len(msg.data)} bytes",
            "subscribe to /face/mesh/texture_coordinates",
        )
    return np.frombuffer(msg.data, "<f4").reshape(msg.height, 3, 2).astype(np.float32)
