"""Who publishes and subscribes to a node's topics without a message passing, or beside others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo


def misfits(node: Node) -> str:
    """Names those of other nodes whose quality of service does not fit ours; empty if all fit."""
    found: list[str] = []
    for entity in [*node.publishers, *node.subscriptions]:
        # Another thread may destroy publishers meanwhile.
        with contextlib.suppress(rclpy_implementation.InvalidHandle):
            found += _misfits_of(node, entity)
    return "; ".join(dict.fromkeys(found))


def too_many(node: Node, topic: str) -> str:
    """Warns of several publishers on a topic of one camera; empty if there is one."""
    publishers = node.count_publishers(topic)
    if publishers < 2:
        return ""
    names = ", ".join(dict.fromkeys(_name(p) for p in node.get_publishers_info_by_topic(topic)))
    return f"{publishers} publishers on {topic} ({names}): let one camera alone publish there"


def _misfits_of(node: Node, entity: Publisher | Subscription) -> Iterator[str]:
    topic, ours = entity.topic_name, entity.qos_profile
    if isinstance(entity, Publisher):
        # Asked for first because it costs little: all who fit are connected.
        if node.count_subscribers(topic) > entity.get_subscription_count():
            for other in node.get_subscriptions_info_by_topic(topic):
                if why := _misfit(ours, other.qos_profile):
                    yield f"{_name(other)} gets nothing of {topic}: {why}"
        return
    for other in node.get_publishers_info_by_topic(topic):
        if why := _misfit(other.qos_profile, ours):
            yield f"nothing comes from {_name(other)} on {topic}: {why}"


def _misfit(publisher: QoSProfile, subscription: QoSProfile) -> str:
    fits, why = qos_check_compatible(publisher, subscription)
    return (
        why.strip().removeprefix("ERROR: ").rstrip(";") if fits == QoSCompatibility.ERROR else ""
    )


def _name(endpoint: TopicEndpointInfo) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"
