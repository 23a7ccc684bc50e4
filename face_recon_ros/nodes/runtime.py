"""What all nodes share: lifecycle, start, stop, warnings, diagnostics."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.task import Future

from face_recon_ros.core.errors import ConfigError, FaceReconError
from face_recon_ros.nodes import connections, conversions
from face_recon_ros.nodes.parameters import Parameters
from face_recon_ros.nodes.stamps import Stamps
from face_recon_ros.nodes.status import Meter
from face_recon_ros.nodes.worker import LatestValue, Worker

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
SILENCE_S = 2.0  # without input that is worth a warning
WAKE_PERIOD_S = 0.2
_JOIN_S = 0.6
_LAST_IMAGE_S = 10.0  # a thread that outlived its activation may take, before the next one
_SWITCH_S = 5e-4  # a thread that works on an image waits no longer for one that runs Python

_DONE, _FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Activation:
    """What belongs to one activation of a node; subclasses add attributes of their own.

    Attributes:
        stopping: set when this activation ends; its threads look at it.
        workers: started by it.
        threads: started by it, beside those of workers.
        watches: asked before each report of diagnostics.
        closers: called at its end.
        facts: names of what was told in /diagnostics before it.
    """

    def __init__(self, before: Iterable[Any], facts: Iterable[str]) -> None:
        """Starts without anything; `before`: entities of ROS that the node has in any case."""
        self.stopping = threading.Event()
        self.workers: list[Worker[Any]] = []
        self.threads: list[threading.Thread] = []
        self.watches: list[Callable[[], str]] = []
        self.closers: list[Callable[[], object]] = []
        self.facts = tuple(facts)
        self._before = {id(entity) for entity in before}

    def owns(self, entity: object) -> bool:
        """Whether an entity of ROS was made since."""
        return id(entity) not in self._before


class FaceNode(LifecycleNode):
    """A managed node with parameters, /diagnostics at 1 Hz, and workers whose crash ends it.

    A subclass loads in `set_up` (configure) and starts in `begin` (activate). Whatever `begin`
    made (publishers, subscriptions, timers, workers, attributes) is gone again when it is
    deactivated, whatever `set_up` made when it is cleaned up: an inactive node costs next to
    nothing.

    Attributes:
        meter: what the node counts of itself.
        stamps: of the images that come in, beside the node's clock.
        phase: of its lifecycle: unconfigured, inactive, active, finalized.
        fault: that the last transition failed by.
        exit_status: of the process.
        crash: the bug that ended it, if one did.
        finished: set, from any thread, to end it.
        loaded: what `set_up` loads; dropped at cleanup.
        live: what `begin` makes; dropped at deactivation.
        input_due: whether images ought to come in, so that it is worth a warning if none do.
        rate_of: the counter that `rate_hz` is of.
        steady: a clock that neither jumps nor stands still.
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
        robot = self.get_namespace().removesuffix(f"/{namespace}").strip("/")
        self._robot = f"{robot}/" if robot else ""  # of several in a domain
        self.meter = Meter()
        self.stamps = Stamps(self.get_clock())
        self.phase = "unconfigured"
        self.fault: FaceReconError | None = None
        self.exit_status = 0
        self.crash: BaseException | None = None
        self.finished: Future = Future()
        self.input_due = False
        self.rate_of = "processed"
        self._settings = Parameters(self, ("", *groups))
        self._due_since = time.monotonic()
        # Of its own time: nothing of these may stand still with a simulated clock.
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self.report_health, clock=self.steady)
        self.create_timer(WAKE_PERIOD_S, lambda: None, clock=self.steady)  # see `spin`
        self.loaded: Any = SimpleNamespace()
        self.live: Any = Activation(self.entities(), ())
        self._outlived: list[threading.Thread] = []

    def set_up(self) -> None:
        """Loads what takes long into `loaded`; makes nothing of ROS."""

    def begin(self) -> None:
        """Subscribes, publishes, starts threads; keeps what it needs in `live`."""

    # --- lifecycle -------------------------------------------------------------------------------

    def start(self) -> bool:
        """Configures and activates it, as a manager would; whether it is active then."""
        return self.trigger_configure() == _DONE and self.trigger_activate() == _DONE

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Unconfigured -> inactive."""
        return self._change("inactive", self.set_up, self._clean_up)

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Inactive -> active, once no thread of before works on the models any more."""
        for thread in self._outlived:
            thread.join(_LAST_IMAGE_S)
        self.live = Activation(self.entities(), self.meter.facts)
        done = self._change("active", self.begin, self._stop)
        if done == _DONE:
            self.get_logger().info("ready")
        return done

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Active -> inactive."""
        return self._change("inactive", self._stop)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Inactive -> unconfigured."""
        return self._change("unconfigured", self._clean_up)

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Any -> finalized: the process ends."""
        done = self._change("finalized", self._clean_up)
        self.finished.set_result(None)
        return done

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """After a bug in a transition -> unconfigured."""
        return self._change("unconfigured", self._clean_up)

    def _change(
        self, phase: str, act: Callable[[], None], undo: Callable[[], None] = lambda: None
    ) -> TransitionCallbackReturn:
        try:
            act()
        except FaceReconError as fault:
            undo()
            self.fault = fault
            self.get_logger().error(str(fault))
            return _FAILED
        except Exception:
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        self.fault, self.phase = None, phase
        self.report_health()
        return _DONE

    def entities(self) -> Iterator[Any]:
        """All that the node has of ROS."""
        yield from (*self.publishers, *self.subscriptions, *self.timers, *self.clients)

    def _stop(self) -> None:
        """Takes back what `begin` made: threads first, none may use what is gone."""
        live = self.live
        live.stopping.set()
        until = time.monotonic() + _JOIN_S
        for worker in live.workers:
            worker.slot.close()
            self.meter.count("dropped_late", worker.slot.dropped)
        threads = [*self._outlived, *(w.thread for w in live.workers), *live.threads]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        self._outlived = [thread for thread in threads if thread.is_alive()]
        for close in live.closers:
            close()
        for destroy, entities in (
            (self.destroy_publisher, self.publishers),
            (self.destroy_subscription, self.subscriptions),
            (self.destroy_timer, self.timers),
            (self.destroy_client, self.clients),
        ):
            for entity in list(entities):
                if live.owns(entity):
                    destroy(entity)
        self.input_due = False
        self.meter.forget(but=live.facts)
        self.live = Activation(self.entities(), live.facts)

    def _clean_up(self) -> None:
        self._stop()
        self.meter.forget()
        self.loaded = SimpleNamespace()
        gc.collect()  # models in reference cycles would wait for it beside the next ones
        with contextlib.suppress(AttributeError, OSError):  # glibc alone keeps and gives back
            ctypes.CDLL(None).malloc_trim(0)

    # --- for subclasses --------------------------------------------------------------------------

    def config(self, group: str) -> Any:
        """The config of a parameter group, as it is now."""
        return self._settings.configs[group]

    def start_worker(self, name: str, work: Callable[[Any], None]) -> LatestValue[Any]:
        """Starts a thread that works off what is put into the slot; an item may be faulty."""

        def guarded(item: Any) -> None:
            try:
                work(item)
            except FaceReconError as fault:
                self.meter.dropped(fault)
                self.complain(fault)

        worker = Worker(name, guarded, self._guard())
        self.live.workers.append(worker)
        return worker.slot

    def start_thread(self, name: str, target: Callable[[], None]) -> None:
        """Starts a thread that ends by itself once `live.stopping` is set."""
        end_by = self._guard()

        def guarded() -> None:
            try:
                target()
            except BaseException as bug:
                end_by(bug)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self.live.threads.append(thread)
        thread.start()

    def _guard(self) -> Callable[[BaseException], None]:
        """What to do with a bug in a thread of this activation: nothing, once that is over."""
        stopping = self.live.stopping
        return lambda bug: None if stopping.is_set() else self.end_by(bug)

    def watch(self, look: Callable[[], str]) -> None:
        """Has `look` asked before each report: it sets facts and returns a warning, or none."""
        self.live.watches.append(look)

    def at_stop(self, close: Callable[[], object]) -> None:
        """Has `close` called when this activation ends."""
        self.live.closers.append(close)

    def listen_while(
        self, wanted: Callable[[], object], subscribe: Callable[[], list[Subscription]]
    ) -> None:
        """Subscribes only while the result has a subscriber.

        Args:
            wanted: asked ten times a second; another true answer than before subscribes anew.
            subscribe: makes the subscriptions.
        """
        made: list[Subscription] = []
        before: object = False

        def check() -> None:
            nonlocal before
            if (now := wanted()) == before:
                return
            before = now
            while made:
                self.destroy_subscription(made.pop())
            if now:
                made.extend(subscribe())
            self.expect_input(bool(made))

        self.create_timer(LISTEN_PERIOD_S, check, clock=self.steady)

    def expect_input(self, due: bool) -> None:
        """Says whether images ought to come in from now on."""
        self.input_due, self._due_since = due, time.monotonic()

    def arrived(self, stamp: float) -> None:
        """Notes an image that came in, with its stamp in seconds."""
        self.meter.arrived(stamp)
        self.stamps.arrived(stamp)

    def complain(self, fault: FaceReconError) -> None:
        """Logs the fault of one image, not too often; the node stays up."""
        self.meter.fault(fault)
        self.get_logger().warning(str(fault), throttle_duration_sec=FAULT_LOG_PERIOD_S)

    def end_by(self, bug: BaseException) -> None:
        """Ends the node because of a bug, from any thread."""
        if not rclpy.ok():  # shut down meanwhile: publishing fails then, and that is no bug
            return
        self.crash = bug
        self.finished.set_result(None)

    def end(self) -> None:
        """Ends the node as planned, from any thread, after publishing its last figures."""
        self.report_health()
        self._diagnostics.wait_for_all_acked(Duration(seconds=1))
        self.finished.set_result(None)

    def report_health(self) -> None:
        """Publishes /diagnostics."""
        if not rclpy.ok() or self.finished.done():
            return
        warnings = [self.meter.take_fault(), *(look() for look in list(self.live.watches))]
        warnings += [self.stamps.warning, connections.misfits(self)]
        silent_s = min(self.meter.input_age_s(), time.monotonic() - self._due_since)
        if self.input_due and silent_s > SILENCE_S:
            warnings.append(f"no images for {silent_s:.0f} s")
        warnings = [text for text in warnings if text]
        self.meter.fact("state", self.phase)
        late = sum(worker.slot.dropped for worker in self.live.workers)
        values = self.meter.values(self.rate_of, late)
        active = f"{values['rate_hz']} Hz" if self.phase == "active" else self.phase
        health = conversions.Health(
            name=f"face_recon: {self._robot}{self.get_name()}",
            hardware_id=str(values.get("model", values.get("source", ""))),
            message="; ".join(warnings) or active,
            values=values,
            warn=bool(warnings),
        )
        now = self.get_clock().now().nanoseconds * 1e-9
        header = conversions.header_of(now, "")
        self._diagnostics.publish(conversions.health_to_msg(health, header))

    def close(self) -> None:
        """Ends all it has, whatever its phase."""
        self.finished.set_result(None)
        self._clean_up()
        self.destroy_node()

    def destroy_node(self) -> None:
        """Frees the node, its state machine among it."""
        super().destroy_node()
        # rclpy leaves it, and with it the DDS participant and its 64 MiB of shared memory.
        self._state_machine.destroy_when_not_in_use()


def spin(node: Node, until: Future) -> None:
    """Spins until the future is done or the process is asked to stop (SIGINT, SIGTERM).

    rclpy's signal handler wakes the executor before it shuts the context down, which may then wait
    again, for good: a node needs a timer that wakes it now and then. A publisher that another
    thread destroys while the executor collects what to wait for ends that round, not the node.
    """
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        while rclpy.ok() and not until.done():
            with contextlib.suppress(rclpy_implementation.InvalidHandle):
                rclpy.spin_until_future_complete(node, until)


def run(make_node: Callable[[], FaceNode], args: list[str] | None = None) -> None:
    """Main function of every node: exits 0 when asked to stop, 1 with one line on a wrong setting.

    Args:
        make_node: makes the node; may raise FaceReconError.
        args: command line, else sys.argv.
    """
    status, node = 1, None
    sys.setswitchinterval(_SWITCH_S)
    try:
        _start_ros(args)
        node = make_node()
        if not node.config("").autostart or node.start():
            spin(node, node.finished)
            status = node.exit_status
    except (KeyboardInterrupt, ExternalShutdownException):
        status = 0
    except FaceReconError as fault:
        print(f"{make_node.__name__}: {fault}", file=sys.stderr)
    except Exception:
        if rclpy.ok():
            traceback.print_exc()
        else:
            status = 0  # asked to stop while it was starting
    if node and node.crash:
        status = 1
        traceback.print_exception(node.crash)
    leave(status, node)


def leave(status: int, node: Node | None) -> None:
    """Ends the process at once: what the libraries' destructors would do may take seconds.

    The node is destroyed first, so that no shared memory stays.
    """
    try:
        if isinstance(node, FaceNode):
            node.close()
        elif node:
            node.destroy_node()
        else:
            gc.collect()  # a node whose constructor failed; rclpy itself may not destroy it
        rclpy.try_shutdown()
        atexit._run_exitfuncs()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _start_ros(args: list[str] | None) -> None:
    try:
        rclpy.init(args=args)
    except Exception as fault:  # rclpy's own class for it is not public
        what = str(fault).splitlines()[0]
        raise ConfigError(
            "ROS arguments that can be read", what, "check the parameters and the YAML file"
        ) from None
