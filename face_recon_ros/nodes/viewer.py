"""Viewer node: the meshes live in 3D without RViz, by the package `rerun-sdk`.

In a window, in a file, or as a page that a browser shows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray, PoseWithCovarianceStamped
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState, PointCloud2
from shape_msgs.msg import Mesh as MeshMsg

from face_recon_ros.core.errors import ConfigError, FaceReconError, reason
from face_recon_ros.core.types import Float32
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.mesh_log import MeshLog
from face_recon_ros.nodes.people import PeopleListener
from face_recon_ros.nodes.runtime import LATCHED_QOS, NEWEST_QOS, RESULT_QOS, FaceNode, run
from face_recon_ros.nodes.textures import coordinates_from_msg
from face_recon_ros.nodes.web_view import DATA_PORT, WebView, first_free, parse_address

_AXIS_M = 0.08
_EYE_NEARER, _EYE_ASIDE_M = 0.25, np.array([0.15, -0.05, 0.0])  # than the camera; of it
_SHOWN = {"jawOpen", "mouthSmileLeft", "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp"}


class ViewerNode(FaceNode):
    """Shows meshes, head poses and the overlay picture, or records them for a viewer."""

    def __init__(self) -> None:
        """Declares the parameters."""
        super().__init__("viewer", ())
        self.rate_of = "meshes"

    def begin(self) -> None:
        """Opens the viewer, the recording of `--save FILE.rrd`, or the page of `--web`."""
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--save", type=Path, help="write FILE.rrd instead of opening a window")
        parser.add_argument(
            "--web", nargs="?", const="", metavar="HOST:PORT",
            help="serve a page instead (default: 127.0.0.1:9090 or the next that is free, this "
            "machine only)",
        )  # fmt: skip
        parser.add_argument(
            "--data-port", type=int, help=f"of the page's data ({DATA_PORT} or next)"
        )
        options = parser.parse_args(remove_ros_args()[1:])
        path = options.save
        try:
            import rerun
        except ImportError as fault:
            raise ConfigError(
                "the package rerun-sdk", str(fault), "pip install rerun-sdk"
            ) from None
        self.live.rerun: Any = rerun
        rerun.init("face_recon")
        if path:
            rerun.save(str(path))
        elif options.web is not None:
            host, port = parse_address(options.web)
            data_port = options.data_port or first_free(host, DATA_PORT)
            view = WebView(host, port if options.web else first_free(host, port), data_port)
            self.at_stop(view.close)
            rerun.connect_grpc(view.data_url)
            self.get_logger().info(f"look at {view.url}")
        else:
            open_window(rerun)
        self.at_stop(rerun.disconnect)
        # REP-103 optical frame: x right, y down, z forward
        rerun.log("camera", rerun.ViewCoordinates.RDF, static=True)
        self.live.meshes = MeshLog(rerun)
        self.live.laid_out = False
        self.create_subscription(MeshMsg, "mesh/topology", self._receive_topology, LATCHED_QOS)
        self.create_subscription(
            PointCloud2, "mesh/texture_coordinates", self._receive_coordinates, LATCHED_QOS
        )
        self.create_subscription(PointCloud2, "mesh/vertices", self._receive_mesh, NEWEST_QOS)
        self.create_subscription(PoseArray, "head_poses", self._receive_poses, RESULT_QOS)
        self.create_subscription(ImageMsg, "mesh/image", self._receive_image, NEWEST_QOS)
        PeopleListener(self, {"expression": JointState}, self._receive_expression)
        PeopleListener(self, {"head_pose": PoseWithCovarianceStamped}, self._receive_head)
        PeopleListener(self, {"texture": ImageMsg}, self._receive_texture, LATCHED_QOS)

    def _receive_topology(self, msg: MeshMsg) -> None:
        try:
            self.live.meshes.set_topology(*conversions.topology_from_msg(msg))
        except FaceReconError as fault:
            self.complain(fault)

    def _receive_coordinates(self, msg: PointCloud2) -> None:
        try:
            self.live.meshes.set_coordinates(coordinates_from_msg(msg))
        except FaceReconError as fault:
            self.complain(fault)

    def _receive_head(self, person: str, _: str, msg: PoseWithCovarianceStamped) -> None:
        pose = conversions.rigid_from_pose_msg(msg.pose.pose)
        stamp = conversions.seconds_from_stamp(msg.header.stamp)
        self.live.meshes.heads[person] = stamp, pose.translation

    def _receive_texture(self, person: str, _: str, msg: ImageMsg) -> None:
        self.live.meshes.textures[person] = conversions.image_from_msg(msg).rgb

    def _receive_mesh(self, msg: PointCloud2) -> None:
        self._at(msg)
        stamp = conversions.seconds_from_stamp(msg.header.stamp)
        cloud = conversions.cloud_from_msg(msg)
        if not self.live.meshes.log(cloud.vertices, cloud.colours, stamp):
            return
        if len(cloud.vertices) and not self.live.laid_out:
            self.live.laid_out = True
            middle = cloud.vertices[0].mean(axis=0)
            self.live.rerun.send_blueprint(layout(self.live.rerun.blueprint, middle))
        self.meter.count("meshes")
        latency = self.get_clock().now().nanoseconds * 1e-9 - stamp
        self.live.rerun.log("latency_ms", self.live.rerun.Scalars(1e3 * latency))

    def _receive_expression(self, person: str, _: str, msg: JointState) -> None:
        self._at(msg)
        self.live.rerun.log(f"expression/{person}", self.live.rerun.BarChart(list(msg.position)))
        told = dict(zip(msg.name, msg.position, strict=False))
        for name in _SHOWN & told.keys():
            self.live.rerun.log(
                f"expressions/{person}/{name}", self.live.rerun.Scalars(told[name])
            )

    def _receive_poses(self, msg: PoseArray) -> None:
        self._at(msg)
        poses = [conversions.rigid_from_pose_msg(p) for p in msg.poses]
        origins = [pose.translation for pose in poses for _ in range(3)]
        axes = [axis for pose in poses for axis in pose.rotation.T * _AXIS_M]
        colours = [(235, 50, 50), (50, 200, 50), (70, 110, 255)] * len(poses)
        self.live.rerun.log(
            "camera/head_poses",
            self.live.rerun.Arrows3D(origins=origins, vectors=axes, colors=colours),
        )

    def _receive_image(self, msg: ImageMsg) -> None:
        self._at(msg)
        rgb = conversions.image_from_msg(msg).rgb
        self.live.rerun.log("overlay", self.live.rerun.Image(rgb).compress(jpeg_quality=85))

    def _at(self, msg: Any) -> None:
        stamp = conversions.seconds_from_stamp(msg.header.stamp)
        self.live.rerun.set_time("image", timestamp=stamp)


def layout(blueprint: Any, middle: Float32) -> Any:
    """Views side by side: the meshes, the overlay, expressions, latency.

    Args:
        blueprint: the package `rerun.blueprint`.
        middle: (3,) of a face that is looked at, metres, camera frame.
    """
    eye = blueprint.EyeControls3D(
        position=_EYE_NEARER * middle + _EYE_ASIDE_M, look_target=middle, eye_up=[0.0, -1.0, 0.0]
    )
    plots = [
        blueprint.BarChartView(origin="expression", name="expressions now"),
        blueprint.TimeSeriesView(origin="expressions", name="expressions"),
        blueprint.TimeSeriesView(origin="latency_ms", name="latency, ms"),
    ]
    return blueprint.Blueprint(
        blueprint.Horizontal(
            blueprint.Spatial3DView(origin="camera", name="meshes", eye_controls=eye),
            blueprint.Vertical(
                blueprint.Spatial2DView(origin="overlay", name="overlay"),
                *plots,
                row_shares=[2, 1, 1, 1],
            ),
            column_shares=[3, 2],
        ),
        collapse_panels=True,
    )


def open_window(rerun: Any) -> None:
    """Starts rerun's viewer: that of our Python environment, which need not be on PATH, first.

    Raises:
        ConfigError: there is none.
    """
    own = Path(sys.executable).with_name("rerun")
    try:
        rerun.spawn(executable_path=str(own) if own.exists() else None)
    except RuntimeError as fault:
        raise ConfigError(
            "rerun's viewer, which opens a window",
            reason(fault),
            "pip install rerun-sdk, or use --web or --save FILE.rrd",
        ) from None


def main() -> None:
    """Entry point."""
    run(ViewerNode)


if __name__ == "__main__":
    main()
