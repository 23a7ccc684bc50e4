"""Lifecycle manager: brings up the nodes that wait for one (`autostart: false`), again and again.

A node that comes back unconfigured (its process was restarted) is brought up once more; one that
another client deactivated stays as it is. Our nodes need no order: each waits for its input.
"""

from __future__ import annotations

import time
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

from face_recon_ros.nodes.runtime import FaceNode, run

_PERIOD_S = 0.25
_ANSWER_S = 2.0  # a service can be ready before its answers find the way back
_CHANGE_S = 60.0  # loading models may take that long
_AGAIN_S = 2.0  # after a refused transition


class ManagedNode:
    """What the manager knows of a node, and does with it.

    Attributes:
        name: of the node, with its namespace.
        label: of its state; `absent` before it was seen, `lost` when it is gone.
    """

    def __init__(self, node: Node, name: str) -> None:
        """Creates the clients."""
        self.name, self.label = name, "absent"
        self._ask = node.create_client(GetState, f"{name}/get_state")
        self._change = node.create_client(ChangeState, f"{name}/change_state")
        self._pending: tuple[Client, Future, float] | None = None
        self._not_before_s = 0.0
        self._to_activate = False

    def look(self) -> None:
        """Asks for its state, unless an answer is still to come."""
        now = time.monotonic()
        if self._pending is not None:
            client, future, until = self._pending
            if now < until and client.service_is_ready():
                return
            client.remove_pending_request(future)
            self._pending = None
        if not self._ask.service_is_ready():
            self.label = "absent" if self.label == "absent" else "lost"
        elif now >= self._not_before_s:
            self._call(self._ask, GetState.Request(), _ANSWER_S, self._told)

    def _told(self, answer: GetState.Response) -> None:
        self.label = answer.current_state.label
        state = answer.current_state.id
        if state == State.PRIMARY_STATE_UNCONFIGURED:
            self._to_activate = True
            self._request(Transition.TRANSITION_CONFIGURE)
        elif state == State.PRIMARY_STATE_INACTIVE and self._to_activate:
            self._request(Transition.TRANSITION_ACTIVATE)
        elif state == State.PRIMARY_STATE_ACTIVE:
            self._to_activate = False

    def _request(self, transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        self._call(self._change, request, _CHANGE_S, self._changed)

    def _changed(self, answer: ChangeState.Response) -> None:
        if answer.success:
            self.look()
        else:
            self._not_before_s = time.monotonic() + _AGAIN_S

    def _call(self, client: Client, request: Any, patience_s: float, then: Any) -> None:
        future = client.call_async(request)
        self._pending = client, future, time.monotonic() + patience_s

        def answered(done: Future) -> None:
            self._pending = None
            then(done.result())

        future.add_done_callback(answered)


class ManagerNode(FaceNode):
    """Configures and activates."""

    def __init__(self) -> None:
        """Declares the parameters."""
        super().__init__("lifecycle_manager", ("manager",))

    def begin(self) -> None:
        """Looks after the nodes of parameter `manager.nodes`."""
        self.live.nodes = [ManagedNode(self, name) for name in self.config("manager").nodes]
        self.create_timer(_PERIOD_S, self._look, clock=self.steady)
        self.watch(self._report)

    def _look(self) -> None:
        for node in self.live.nodes:
            node.look()

    def _report(self) -> str:
        there = [node for node in self.live.nodes if node.label != "absent"]
        for node in there:
            self.meter.fact(node.name, node.label)
        waiting = [f"{n.name} {n.label}" for n in there if n.label != "active"]
        return "not active: " + ", ".join(waiting) if waiting else ""


def main() -> None:
    """Entry point."""
    run(ManagerNode)


if __name__ == "__main__":
    main()
