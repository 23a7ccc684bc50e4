"""What every node does the same way: start, stop, complain, tell its health."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.task import Future

from face_recon_ros.core.errors import ConfigError, FaceReconError
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.health import Meter
from face_recon_ros.nodes.parameters import Parameters
from face_recon_ros.nodes.worker import LatestSlot, Worker

#: Images and clouds; a reader that wants only the newest takes NEWEST_QOS.
SENSOR_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
NEWEST_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RESULT_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
MARKER_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
IMAGE_TOPIC = "/camera/image_raw"
CAMERA_INFO_TOPIC = "/camera/camera_info"
FAULT_LOG_PERIOD_S = 5.0
LISTEN_PERIOD_S = 0.1
_JOIN_S = 5.0


class FaceNode(Node):
    """A node with parameters, a meter, /diagnostics at 1 Hz, and workers whose crash ends it.

    Attributes:
        meter: what the node counts of itself.
        exit_status: of the process.
        crash: the bug that ended it, if one did.
        finished: set, from any thread, to end it.
    """

    def __init__(self, name: str, groups: tuple[str, ...], namespace: str = "face") -> None:
        """Declares the parameters.

        Args:
            name: of the node.
            groups: of `parameters.GROUPS`.
            namespace: unless remapped.

        Raises:
            ConfigError: unknown or wrong parameters.
        """
        super().__init__(name, namespace=namespace)
        self.meter = Meter()
        self.exit_status = 0
        self.crash: BaseException | None = None
        self.finished: Future = Future()
        self._settings = Parameters(self, groups)
        self._workers: list[Worker[Any]] = []
        self._threads: list[threading.Thread] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self.report_health)
        self.rate_of = "processed"

    def config(self, group: str) -> Any:
        """The config of a parameter group, as it is now."""
        return self._settings.configs[group]

    def start_worker(self, name: str, work: Callable[[Any], None]) -> LatestSlot[Any]:
        """Starts a thread that works off what is put into the slot; an item may be faulty."""

        def guarded(item: Any) -> None:
            try:
                work(item)
            except FaceReconError as fault:
                self.complain(fault)

        worker = Worker(name, guarded, self.end_by)
        self._workers.append(worker)
        return worker.slot

    def start_thread(self, name: str, target: Callable[[], None]) -> None:
        """Starts a thread that ends by itself once the node has been shut down."""

        def guarded() -> None:
            try:
                target()
            except BaseException as bug:
                self.end_by(bug)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def listen_while(
        self, wanted: Callable[[], bool], subscribe: Callable[[], list[Subscription]]
    ) -> None:
        """Subscribes only while somebody wants what comes of it.

        Args:
            wanted: asked ten times a second.
            subscribe: makes the subscriptions.
        """
        made: list[Subscription] = []

        def check() -> None:
            if bool(made) == wanted():
                return
            if made:
                while made:
                    self.destroy_subscription(made.pop())
            else:
                made.extend(subscribe())

        self.create_timer(LISTEN_PERIOD_S, check)

    def complain(self, fault: FaceReconError) -> None:
        """Logs the fault of one image, not too often; the node stays up."""
        self.meter.fault(str(fault))
        self.get_logger().warning(str(fault), throttle_duration_sec=FAULT_LOG_PERIOD_S)

    def end_by(self, bug: BaseException) -> None:
        """Ends the node because of a bug, from any thread."""
        if not rclpy.ok():  # shut down meanwhile: publishing fails then, and that is no bug
            return
        self.crash = bug
        self.finished.set_result(None)

    def end(self) -> None:
        """Ends the node as planned, from any thread, after telling its last figures."""
        self.report_health()
        self._diagnostics.wait_for_all_acked(Duration(seconds=1))
        self.finished.set_result(None)

    def report_health(self) -> None:
        """Publishes /diagnostics."""
        if not self.alive:
            return
        self.meter.fact("dropped", str(sum(w.slot.dropped for w in self._workers)))
        values = self.meter.values(self.rate_of)
        health = conversions.Health(
            name=f"face_recon: {self.get_name()}",
            hardware_id=str(values.get("model", values.get("source", ""))),
            message=self.meter.last_fault or f"{values['rate_hz']} Hz",
            values=values,
            warn=bool(self.meter.last_fault),
        )
        self.meter.last_fault = ""
        now = self.get_clock().now().nanoseconds * 1e-9
        header = conversions.header_of(now, "")
        self._diagnostics.publish(conversions.health_to_msg(health, header))

    @property
    def alive(self) -> bool:
        """Whether the node still runs."""
        return bool(rclpy.ok()) and not self.finished.done()

    def stop_threads(self) -> None:
        """Ends the threads: none may run into the end of the interpreter."""
        self.finished.set_result(None)
        for worker in self._workers:
            worker.close()
        for thread in self._threads:
            thread.join(timeout=_JOIN_S)


def run(make_node: Callable[[], FaceNode], args: list[str] | None = None) -> None:
    """Main function of every node: exits 0 when asked to stop, 1 with one line on a wrong setting.

    Args:
        make_node: makes the node; may raise FaceReconError.
        args: command line, else sys.argv.
    """
    status, node = 0, None
    try:
        _start_ros(args)
        node = make_node()
        rclpy.spin_until_future_complete(node, node.finished)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except FaceReconError as fault:
        print(f"{make_node.__name__}: {fault}", file=sys.stderr)
        status = 1
    finally:
        crash = node.crash if node else None
        if node:
            status = status or node.exit_status
            node.stop_threads()
        rclpy.try_shutdown()
    if crash:
        raise crash
    sys.exit(status)


def _start_ros(args: list[str] | None) -> None:
    try:
        rclpy.init(args=args)
    except Exception as fault:  # rclpy's own class for it is not public
        what = str(fault).splitlines()[0]
        raise ConfigError(
            "ROS arguments that can be read", what, "check the parameters and the YAML file"
        ) from None
