"""Which images are read."""

from __future__ import annotations

from dataclasses import dataclass

from face_recon_ros.core.ranges import check_ranges, ranged

TEST_PATTERN = "pattern"


@dataclass(frozen=True)
class SourceConfig:
    """What to read.

    Attributes:
        source: The source is a device number or /dev/video*, a stream (rtsp://, http://
            ...), a video file (also at http://), a picture, a folder of pictures, a
            rosbag2, `pattern` or `portrait`.
        loop: Files begin again at their end; stamps continue.
        width: A device is asked for this width in pixels, and the pattern has it; 0 leaves
            the choice to the device.
        height: A device is asked for this height in pixels, and the pattern has it; 0
            leaves the choice to the device.
        fps: A device is asked for this frame rate, and folders and the pattern have it; 0
            takes the source's own rate, or 30.
        frame: This is the name of the camera's optical frame.
        topic: Images of a bag are read from this topic; empty takes the topic that shows
            most, colour before grey.
        info_topic: CameraInfo of a bag is read from this topic; empty takes the one beside
            the images.
    """

    source: str = TEST_PATTERN
    loop: bool = False
    width: int = ranged(0, 0, 16384)
    height: int = ranged(0, 0, 16384)
    fps: float = ranged(0.0, 0.0, 1000.0)
    frame: str = "camera_optical_frame"
    topic: str = ""
    info_topic: str = ""

    def __post_init__(self) -> None:
        check_ranges(self)
