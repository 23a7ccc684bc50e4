"""Expression bridge node: a person's expressions to animation tools, over UDP.

VMC over OSC or Live Link Face, to this machine unless `expression_bridge.host` names another.
"""

from __future__ import annotations

import time
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import JointState

from face_recon_ros.io.expression_stream import ExpressionStream, UdpSink
from face_recon_ros.io.expressions_out import Performance
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.people import PeopleListener
from face_recon_ros.nodes.runtime import FaceNode, run
from face_recon_ros.nodes.synchronizer import ExactTimeSynchronizer

_EXPRESSION, _POSE = "expression", "head_pose"


class ExpressionBridgeNode(FaceNode):
    """Passes on what one person does, as `face-recon stream` does without ROS."""

    def __init__(self) -> None:
        """Declares the parameters."""
        super().__init__("expression_bridge", ("expression_bridge",))
        self.rate_of = "sent"

    def begin(self) -> None:
        """Opens the socket and listens to whom there is."""
        self.live.sink = UdpSink(self.config("expression_bridge"))
        self.live.stream = ExpressionStream(self.config("expression_bridge"), [self.live.sink])
        self.at_stop(self.live.stream.close)
        self.live.moments: dict[str, ExactTimeSynchronizer] = {}
        kinds = {_EXPRESSION: JointState, _POSE: PoseWithCovarianceStamped}
        PeopleListener(self, kinds, self._receive)
        self.live.lost_before = 0
        self.watch(self._report)

    def _receive(self, person: str, name: str, msg: Any) -> None:
        moments = self.live.moments.setdefault(person, ExactTimeSynchronizer((_EXPRESSION, _POSE)))
        if (moment := moments.add(name, msg)) is None:
            return
        began = time.perf_counter()
        told = moment[_EXPRESSION]
        pose = conversions.rigid_from_pose_msg(moment[_POSE].pose.pose)
        stamp = conversions.seconds_from_stamp(told.header.stamp)
        if self.live.stream.offer(person, Performance.of(stamp, told.name, told.position, pose)):
            self.meter.count("sent")
            self.meter.time({"bridge": time.perf_counter() - began})

    def _report(self) -> str:
        lost, self.live.lost_before = (
            self.live.sink.lost - self.live.lost_before,
            self.live.sink.lost,
        )
        self.meter.fact("receiver", self.live.sink.receiver)
        self.meter.fact("person", self.live.stream.person)
        self.meter.fact("packets_lost", str(self.live.sink.lost))
        return f"no receiver at {self.live.sink.receiver}" if lost else ""


def main() -> None:
    """Entry point."""
    run(ExpressionBridgeNode)


if __name__ == "__main__":
    main()
