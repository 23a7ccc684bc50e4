"""Switches processing on and off while the node's lifecycle state is kept."""

from __future__ import annotations

from std_srvs.srv import SetBool

from face_recon_ros.nodes.runtime import FaceNode

SERVICE = "enable"  # in the node's namespace: /face/enable


class EnableService:
    """The service `enable` of an active node: `ros2 service call /face/enable ...`.

    Only the node that images enter has it (pipeline, detector); those behind it have no work then.

    Attributes:
        enabled: whether images are worked on.
    """

    def __init__(self, node: FaceNode) -> None:
        """Offers the service until the node is deactivated; it begins switched on."""
        self.enabled = True
        self._node = node
        service = node.create_service(SetBool, SERVICE, self._answer)
        node.at_stop(lambda: node.destroy_service(service))
        node.watch(self._report)

    def _answer(self, request: SetBool.Request, answer: SetBool.Response) -> SetBool.Response:
        changed, self.enabled = self.enabled != request.data, bool(request.data)
        state = "on" if self.enabled else "off"
        answer.success = True
        answer.message = f"processing is {state}" if changed else f"processing was {state} already"
        if changed:
            self._node.get_logger().info(f"processing is {state}")
        return answer

    def _report(self) -> str:
        self._node.meter.fact("enabled", str(self.enabled).lower())
        return ""
