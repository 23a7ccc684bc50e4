"""Camera to meshes: `ros2 launch face_recon_ros demo.launch.py source:=/dev/video0`.

`ros2 launch face_recon_ros demo.launch.py --show-args` describes the arguments.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition, UnlessCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from face_recon_ros.nodes.launch_arguments import SHARED_ARGUMENTS, profile_variable
from launch import LaunchDescription

PACKAGE = "face_recon_ros"


def generate_launch_description() -> LaunchDescription:
    """The composed node, or the separate ones."""
    config_folder = Path(get_package_share_directory(PACKAGE)) / "config"
    composed = LaunchConfiguration("composed")
    config = LaunchConfiguration("config")
    source = {"camera.source": ParameterValue(LaunchConfiguration("source"), value_type=str)}

    autostart = {"autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool)}
    topics = [
        ("/camera/image_raw", LaunchConfiguration("image_topic")),
        ("/camera/camera_info", LaunchConfiguration("camera_info_topic")),
        ("/camera/depth/image_raw", LaunchConfiguration("depth_topic")),
    ]

    def face_node(name: str, condition: IfCondition, *parameters: dict) -> Node:
        return Node(
            package=PACKAGE,
            executable=f"{name}_node",
            name=name,
            namespace="camera" if name == "camera" else "face",
            parameters=[config, autostart, *parameters],
            remappings=topics,
            condition=condition,
            output="screen",
        )

    profile = str(config_folder / "fastdds_network.xml")
    variable = profile_variable()
    return LaunchDescription(
        [
            SetEnvironmentVariable(variable, EnvironmentVariable(variable, default_value=profile)),
            DeclareLaunchArgument(
                "source",
                default_value="portrait",
                description="device, stream (rtsp://, http://), video, folder, rosbag2, `pattern` "
                "(a rendered head) or `portrait` (a photographed one); `topic`: image_topic and "
                "camera_info_topic of your own driver",
            ),
            DeclareLaunchArgument(
                "composed",
                default_value="true",
                description="one process; false: several, with the same topics",
            ),
            DeclareLaunchArgument(
                "config",
                default_value=str(config_folder / "demo.yaml"),
                description="parameters of all nodes",
            ),
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in SHARED_ARGUMENTS.items()
            ),
            face_node("pipeline", IfCondition(composed), source),
            face_node("camera", UnlessCondition(composed), source),
            face_node("detector", UnlessCondition(composed)),
            face_node("reconstruction", UnlessCondition(composed)),
            face_node("visualization", UnlessCondition(composed)),
            face_node("expression_bridge", IfCondition(LaunchConfiguration("expressions"))),
            Node(
                package=PACKAGE,
                executable="manager_node",
                condition=UnlessCondition(LaunchConfiguration("autostart")),
                output="screen",
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", str(config_folder / "face_recon.rviz")],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
