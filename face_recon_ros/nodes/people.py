"""Listens to the topics that each person has: they come and go with people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from face_recon_ros.nodes.runtime import RESULT_QOS, FaceNode

_LOOK_S = 0.5


class PeopleListener:
    """Subscribes to `<id>/NAME` in the node's namespace for every person there is."""

    def __init__(
        self,
        node: FaceNode,
        kinds: Mapping[str, type],
        take: Callable[[str, str, Any], None],
        qos: QoSProfile = RESULT_QOS,
    ) -> None:
        """Begins to look for people, twice a second.

        Args:
            node: that listens.
            kinds: NAME of a topic -> its message type.
            take: called with a person's id, NAME, and the message.
            qos: of the topics.
        """
        self._node, self._kinds, self._take, self._qos = node, kinds, take, qos
        self._subscriptions: dict[str, Subscription] = {}
        node.create_timer(_LOOK_S, self._look, clock=node.steady)

    def _look(self) -> None:
        prefix = self._node.get_namespace().rstrip("/") + "/"
        there = set()
        for topic, _ in self._node.get_topic_names_and_types():
            person, _, name = topic.removeprefix(prefix).partition("/")
            ours = topic.startswith(prefix) and name in self._kinds
            if ours and self._node.count_publishers(topic):
                there.add(topic)
                self._listen(topic, person, name)
        for topic in self._subscriptions.keys() - there:
            self._node.destroy_subscription(self._subscriptions.pop(topic))

    def _listen(self, topic: str, person: str, name: str) -> None:
        if topic not in self._subscriptions:
            self._subscriptions[topic] = self._node.create_subscription(
                self._kinds[name], topic, partial(self._take, person, name), self._qos
            )
