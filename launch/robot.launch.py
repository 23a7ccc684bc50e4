"""Faces, and a neck that looks at them: `ros2 launch face_recon_ros robot.launch.py`.

On a robot: `config:=my_robot.yaml simulate:=false`; its own drivers publish /joint_states, /tf and
/robot_description. Recipes: docs/robot.md. Without hardware it simulates the neck of
urdf/pan_tilt.urdf; `person:=walking` also simulates a person to look at, instead of the camera.
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


def _arguments(share: Path) -> list[DeclareLaunchArgument]:
    """What may be given on the command line."""
    return [
        DeclareLaunchArgument(
            "source",
            default_value="topic",
            description="device, stream (rtsp://, http://), video, folder or rosbag2; `topic`: "
            "image_topic and camera_info_topic of your own driver",
        ),
        DeclareLaunchArgument(
            "config",
            default_value=str(share / "config" / "robot.yaml"),
            description="parameters of all nodes",
        ),
        DeclareLaunchArgument("simulate", default_value="true", description="simulate the neck"),
        DeclareLaunchArgument(
            "person",
            default_value="",
            description="simulate a person: still, walking, jumping",
        ),
        *(
            DeclareLaunchArgument(name, default_value=default, description=text)
            for name, (default, text) in SHARED_ARGUMENTS.items()
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Pipeline, look-at node, and a neck if there is none."""
    share = Path(get_package_share_directory(PACKAGE))
    config = LaunchConfiguration("config")
    urdf = share / "urdf" / "pan_tilt.urdf"
    source = {"camera.source": ParameterValue(LaunchConfiguration("source"), value_type=str)}
    autostart = {"autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool)}
    simulated = {
        "neck.urdf": str(urdf),
        "neck_simulator.person": ParameterValue(LaunchConfiguration("person"), value_type=str),
        "neck_simulator.publish_tf": False,  # robot_state_publisher does
    }
    profile = str(share / "config" / "fastdds_network.xml")
    variable = profile_variable()
    return LaunchDescription(
        [
            SetEnvironmentVariable(variable, EnvironmentVariable(variable, default_value=profile)),
            *_arguments(share),
            Node(
                package=PACKAGE,
                executable="pipeline_node",
                name="pipeline",
                namespace="face",
                parameters=[config, autostart, source],
                remappings=[
                    ("/camera/image_raw", LaunchConfiguration("image_topic")),
                    ("/camera/camera_info", LaunchConfiguration("camera_info_topic")),
                    ("/camera/depth/image_raw", LaunchConfiguration("depth_topic")),
                ],
                output="screen",
            ),
            Node(
                package=PACKAGE,
                executable="look_at_node",
                name="look_at",
                parameters=[config, autostart],
                output="screen",
            ),
            Node(
                package=PACKAGE,
                executable="pan_tilt_simulator_node",
                name="neck_simulator",
                parameters=[config, autostart, simulated],
                condition=IfCondition(LaunchConfiguration("simulate")),
                output="screen",
            ),
            Node(
                package=PACKAGE,
                executable="expression_bridge_node",
                name="expression_bridge",
                namespace="face",
                parameters=[config, autostart],
                condition=IfCondition(LaunchConfiguration("expressions")),
                output="screen",
            ),
            Node(
                package="robot_state_publisher",
                executable="robot_state_publisher",
                parameters=[{"robot_description": urdf.read_text()}],
                condition=IfCondition(LaunchConfiguration("simulate")),
            ),
            Node(
                package=PACKAGE,
                executable="manager_node",
                condition=UnlessCondition(LaunchConfiguration("autostart")),
                output="screen",
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", str(share / "config" / "robot.rviz")],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
