"""What the launch files share; data only, so that ROS's `launch` is not needed to read it."""

import os

#: Argument -> default and description.
SHARED_ARGUMENTS = {
    "autostart": ("true", "nodes activate themselves; false: a lifecycle manager does"),
    "expressions": (
        "false",
        "send expressions to animation tools (VMC, Live Link Face), where parameters "
        "expression_bridge.* say: VMC to this machine by default",
    ),
    "image_topic": ("/camera/image_raw", "images of your driver, with source:=topic"),
    "camera_info_topic": ("/camera/camera_info", "CameraInfo of your driver"),
    "depth_topic": (
        "/camera/depth/image_raw",
        "depth registered to the images; output.depth in the config switches its use on",
    ),
    "rviz": ("true", "start RViz"),
}


def profile_variable() -> str:
    """The variable of Fast DDS' profile: its default shared memory is too small for images."""
    old = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")
    return "FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE"
