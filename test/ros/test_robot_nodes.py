"""The look-at node and the simulated neck, as processes on real DDS."""

import math
import re
import time

import numpy as np
import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from ros_graph import ROOT
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from tf2_msgs.msg import TFMessage

from face_recon_ros.core.rigid import Rigid
from face_recon_ros.nodes import conversions, robot_conversions
from face_recon_ros.nodes.runtime import LATCHED_QOS, RESULT_QOS
from face_recon_ros.robot.gaze_controller import FOLLOWING, LOST_TARGET, NO_JOINTS, NO_LIMITS
from face_recon_ros.robot.neck import neck_from_urdf

URDF = f"neck.urdf:={ROOT / 'urdf' / 'pan_tilt.urdf'}"
COMMANDS = "neck.output:=commands"
PAN_TILT = neck_from_urdf(
    (ROOT / "urdf" / "pan_tilt.urdf").read_text(),
    ("pan_joint", "tilt_joint"),
    "camera_optical_frame",
    limit_margin=0.02,
)


class Neck:
    """What the nodes say about the neck, and a camera that sees what a test wants."""

    def __init__(self, listener):
        self.listener = listener
        self.joints = listener.listen(JointState, "/joint_states", 100)
        self.points = listener.listen(PointStamped, "/look_at", 100)
        self.commands = listener.listen(Float64MultiArray, "/neck/commands", 100)
        self.transforms = listener.listen(TFMessage, "/tf", 100)
        self._diagnostics = listener.listen(DiagnosticArray, "/diagnostics", 10)
        self.tf = listener.node.create_publisher(TFMessage, "/tf", 100)

    def wait(self, seconds):
        end = time.monotonic() + seconds
        self.listener.spin_until(lambda: time.monotonic() >= end, seconds + 1)

    def health(self, node="look_at"):
        """Level, message and values of a node's last status."""
        for msg in reversed(self._diagnostics):
            for status in msg.status:
                if status.name == f"face_recon: {node}":
                    values = {pair.key: pair.value for pair in status.values}
                    return status.level, status.message, values
        return b"", "", {}

    def status(self):
        return self.health()[2].get("status")

    def positions(self, last=0):
        return np.array([msg.position for msg in self.joints[-last:]])

    def now(self):
        return self.listener.node.get_clock().now().nanoseconds * 1e-9

    def show_face(self, position, frame="camera_optical_frame", stamp=None):
        stamp = self.now() if stamp is None else stamp
        header = conversions.header_of(stamp, frame)
        pose = Rigid(np.eye(3), np.array(position, float))
        self.tf.publish(conversions.transforms_to_msg({"face_abcde": pose}, header))

    def off_axis(self):
        """Angle between the camera's axis and the last face it saw, radians."""
        faces = [
            t.transform.translation
            for msg in self.transforms[-500:]
            for t in msg.transforms
            if t.child_frame_id == "face_demo"
        ]
        return math.atan2(math.hypot(faces[-1].x, faces[-1].y), faces[-1].z) if faces else math.inf


@pytest.fixture
def neck(listener):
    return Neck(listener)


def assert_it_complains_and_stands(neck, process):
    """Looks at nobody, moves nothing, lives on; returns what it says."""
    level, message, values = neck.health()
    assert level != b"\x00"
    assert values["target"] == "none"
    assert np.ptp(neck.positions(), axis=0).max() < 0.01
    assert process.poll() is None
    return message


@pytest.mark.slow
def test_the_neck_follows_a_walking_person(graph, listener, neck):
    """Camera, latency, TF, joint states, commands: everything over DDS, nothing in memory."""
    walking = "neck_simulator.person:=walking"
    graph.start("pan_tilt_simulator", URDF, walking, "neck_simulator.person_speed_deg:=20.0")
    graph.start("look_at", COMMANDS)  # the URDF comes by /robot_description
    assert listener.spin_until(lambda: len(neck.points) > 30), "it never followed"
    errors = [np.inf]

    def followed_for_three_seconds():
        neck.wait(0.1)
        errors.append(neck.off_axis())
        return len(errors) > 30 and np.degrees(np.median(errors[-30:])) < 4.0

    assert listener.spin_until(followed_for_three_seconds), np.degrees(errors[-30:])
    assert listener.spin_until(lambda: neck.status() == FOLLOWING)
    assert listener.spin_until(lambda: np.ptp(neck.positions()[:, 0]) > np.radians(20))
    assert listener.spin_until(lambda: "limits_hit" in neck.health("neck_simulator")[2])
    assert neck.health("neck_simulator")[2]["limits_hit"] == "0"
    assert neck.points[-1].header.frame_id == "base_link"


class SimulatedTime:
    """/clock, at most a third as fast as time, and never ahead of the simulated neck.

    So a busy machine does not spoil figures in seconds: all stamps are of this clock.
    """

    def __init__(self, neck):
        self.neck, self.seconds = neck, 1.0
        self._clock = neck.listener.node.create_publisher(Clock, "/clock", 10)

    def tick(self):
        self.seconds += 0.01
        stamp = conversions.header_of(self.seconds, "").stamp
        self._clock.publish(Clock(clock=stamp))
        end, reached = time.monotonic() + 0.03, self.seconds - 0.015
        self.neck.listener.spin_until(
            lambda: time.monotonic() > end and stamp_s(self.neck.joints[-1:]) > reached,
            0.03 if not self.neck.joints else 1.0,
        )

    def pass_seconds(self, seconds):
        end = self.seconds + seconds
        while self.seconds < end:
            self.tick()


def stamp_s(messages):
    return conversions.seconds_from_stamp(messages[0].header.stamp) if messages else -1.0


def followed_in_simulated_time(graph, neck, person, seconds):
    """(N,) stamps, (N, 3) where the person truly was, (N, 2) joints; a neck 100 ms behind."""
    people = neck.listener.listen(PointStamped, "/neck_simulator/person", 100)
    seen = f"neck_simulator.person:={person}"
    graph.start("pan_tilt_simulator", URDF, seen, "use_sim_time:=true")
    graph.start("look_at", COMMANDS, "use_sim_time:=true")
    clock = SimulatedTime(neck)
    deadline = time.monotonic() + 90
    while len(neck.commands) < 30:
        assert time.monotonic() < deadline, neck.health()
        clock.tick()
    neck.joints.clear(), people.clear()
    clock.pass_seconds(seconds)
    assert neck.health("neck_simulator")[2]["limits_hit"] == "0"
    joints = {stamp_s([msg]): msg.position for msg in neck.joints}
    points = {stamp_s([msg]): msg.point for msg in people}
    stamps = sorted(set(joints) & set(points))
    person_at = np.array([[points[s].x, points[s].y, points[s].z] for s in stamps])
    return np.array(stamps), person_at, np.array([joints[s] for s in stamps])


@pytest.mark.slow
def test_a_step_of_30_degrees_through_real_nodes(graph, neck):
    """100 ms latency, 30 Hz, noise: settled within 1.2 s, at most 2 degrees too far."""
    stamps, person, joints = followed_in_simulated_time(graph, neck, "jumping", 6.5)
    jumps = np.flatnonzero(np.abs(np.diff(person[:, 1])) > 0.3) + 1
    assert len(jumps) >= 3
    for jump in jumps[:-1]:
        after = (stamps >= stamps[jump]) & (stamps < stamps[jump] + 1.9)
        goal = PAN_TILT.aim(person[jump])[0]
        pan = np.degrees(joints[after, 0] - goal) * np.sign(goal)
        outside = np.flatnonzero(np.abs(pan) > 1.5)
        settled_s = stamps[after][outside[-1]] - stamps[jump]
        print(f"settled in {settled_s:.2f} s, {max(0.0, pan.max()):.2f} degrees too far")
        assert settled_s <= 1.2
        assert pan.max() <= 2.0


@pytest.mark.slow
def test_30_degrees_a_second_through_real_nodes(graph, neck):
    """Followed within 3 degrees, from a second after the person set off; 100 ms latency, noise."""
    stamps, person, joints = followed_in_simulated_time(graph, neck, "walking", 8.5)
    angle = np.degrees(np.unwrap(np.arctan2(person[:, 1], person[:, 0])))
    speed = np.diff(angle) / np.diff(stamps)
    assert np.median(np.abs(speed)) == pytest.approx(30.0, rel=0.01)
    turns = stamps[1:-1][np.sign(speed[1:]) != np.sign(speed[:-1])]
    since = np.array([min([s - t for t in turns if t <= s], default=0.0) for s in stamps])
    errors = [PAN_TILT.bearing(*both) for both in zip(joints, person, strict=True)]
    errors = np.degrees(np.linalg.norm(errors, axis=1))[since > 1.0]
    assert len(errors) > 100
    print(f"worst {errors.max():.2f}, mean {errors.mean():.2f} degrees")
    assert errors.max() <= 3.0


def test_a_target_that_is_lost_stops_the_neck(graph, listener, neck):
    graph.start("pan_tilt_simulator", URDF)
    graph.start("look_at", COMMANDS)
    assert listener.spin_until(lambda: len(neck.joints) > 10)
    seconds = time.monotonic()
    while abs(neck.joints[-1].position[0]) < 0.15:
        assert time.monotonic() < seconds + 60.0, "it did not set off"
        neck.show_face((-0.8, 0.0, 1.0))  # always to the left of the camera
        neck.wait(0.033)
    assert listener.spin_until(lambda: neck.status() == LOST_TARGET)
    neck.wait(0.5)
    assert listener.spin_until(lambda: np.ptp(neck.positions(30), axis=0).max() < 0.01)
    commands = np.array([msg.data for msg in neck.commands])
    assert (np.abs(commands) <= [1.55 + 1e-9, 0.68 + 1e-9]).all()


def test_without_tf_to_the_camera_it_says_so_and_stands(graph, listener, neck):
    graph.start("pan_tilt_simulator", URDF)
    process = graph.start("look_at", COMMANDS)
    assert listener.spin_until(lambda: len(neck.joints) > 10)

    def seen():
        neck.show_face((-0.8, 0.0, 1.0), frame="some_other_camera")
        return "no connection" in neck.health()[1]

    assert listener.spin_until(seen)
    assert_it_complains_and_stands(neck, process)


def test_a_face_from_before_the_robot_was_known_is_said_and_not_looked_at(graph, listener, neck):
    """TF in the past: two clocks, or a camera driver that stamps wrongly."""
    graph.start("pan_tilt_simulator", URDF)
    process = graph.start("look_at", COMMANDS)
    assert listener.spin_until(lambda: len(neck.joints) > 10)

    def said():
        neck.show_face((-0.8, 0.0, 1.0), stamp=neck.now() - 60.0)
        return "in the past of TF" in neck.health()[1]

    assert listener.spin_until(said)
    assert "chrony" in assert_it_complains_and_stands(neck, process)  # a remedy


def test_two_publishers_of_one_id_are_said_and_not_looked_at(graph, listener, neck):
    graph.start("pan_tilt_simulator", URDF)
    process = graph.start("look_at", COMMANDS)
    assert listener.spin_until(lambda: len(neck.joints) > 10)
    # The neck turns meanwhile: places that do not turn with it are said of its base.
    left, right = (1.0, 1.0, 0.4), (1.0, -1.0, 0.4)
    stamps = iter(range(10**6))

    def said():
        for place in (left, right):
            neck.show_face(place, "base_link", neck.now() - 0.02 + 1e-6 * next(stamps) % 0.01)
        return "contradicting transforms of abcde" in neck.health()[1]

    assert listener.spin_until(said)
    assert neck.health()[0] != b"\x00" and "remap its /tf" in neck.health()[1]
    neck.wait(1.5)  # the neck has come to rest
    neck.joints.clear()
    assert listener.spin_until(lambda: len(neck.joints) > 30)
    assert np.ptp(neck.positions(), axis=0).max() < 0.01
    assert process.poll() is None


def test_joints_without_limits_are_said_and_not_moved(graph, listener, neck):
    urdf = re.sub("<limit[^>]*>", "", (ROOT / "urdf" / "pan_tilt.urdf").read_text())
    describe = listener.node.create_publisher(String, "/robot_description", LATCHED_QOS)
    describe.publish(String(data=urdf))
    joints = listener.node.create_publisher(JointState, "/joint_states", RESULT_QOS)
    process = graph.start("look_at", COMMANDS)
    names = ("pan_joint", "tilt_joint")

    def each():
        header = conversions.header_of(neck.now(), "")
        joints.publish(robot_conversions.joint_state_to_msg(names, [0.0, 0.0], header))
        neck.show_face((-0.8, 0.0, 1.0), "base_link")

    assert listener.spin_until(lambda: neck.status() == NO_LIMITS, each=each)
    level, message, _ = neck.health()
    assert level != b"\x00"
    assert "pan_joint lower" in message and "add them to the URDF" in message
    assert not neck.commands
    assert process.poll() is None


@pytest.mark.parametrize("to", [-1000.0, 1000.0])
def test_a_clock_that_jumps_is_said_and_stops_the_neck(graph, listener, neck, to):
    """Simulated time: the test is the clock, and takes the neck's part too."""
    clock = listener.node.create_publisher(Clock, "/clock", 10)
    joints = listener.node.create_publisher(JointState, "/joint_states", RESULT_QOS)
    process = graph.start("look_at", COMMANDS, URDF, "use_sim_time:=true")
    time_s, at = [2000.0], [0.0, 0.0]

    def pass_time(seconds=0.03):
        # no faster than time, and no faster than commands come: the neck follows the last one
        told, end = len(neck.commands), time.monotonic() + 0.03
        time_s[0] += seconds
        header = conversions.header_of(time_s[0], "base_link")
        clock.publish(Clock(clock=header.stamp))
        if neck.commands:
            at[:] = neck.commands[-1].data
        names = ("pan_joint", "tilt_joint")
        joints.publish(robot_conversions.joint_state_to_msg(names, at, header))
        neck.show_face((1.0, 1.0, 0.4), "base_link", time_s[0])
        listener.spin_until(lambda: len(neck.commands) > told and time.monotonic() > end, 0.2)

    assert listener.spin_until(lambda: neck.status() == FOLLOWING, each=pass_time)
    neck.commands.clear()
    pass_time(to)
    seen = []

    def said():  # in the message, unless another fault of the same second took its place
        seen.append(neck.health())
        return int(seen[-1][2].get("clock_jumps", 0)) > 0

    assert listener.spin_until(said, each=pass_time)
    told = [message for _, message, _ in seen if "expected a steady clock" in message]
    assert all("use_sim_time" in message for message in told)
    neck.commands.clear()
    assert listener.spin_until(  # it goes on
        lambda: len(neck.commands) > 5 and neck.status() == FOLLOWING, each=pass_time
    )
    assert process.poll() is None
    told = np.array([msg.data for msg in neck.commands])
    assert (np.abs(np.diff(told, axis=0)) < 0.3).all()  # no leap
    assert (np.abs(told) <= [1.55 + 1e-9, 0.68 + 1e-9]).all()


def test_without_a_neck_it_waits_and_sends_nothing(graph, listener, neck):
    process = graph.start("look_at", COMMANDS, URDF)
    assert listener.spin_until(lambda: neck.status() == NO_JOINTS)
    level, message, _ = neck.health()
    assert level != b"\x00" and "/joint_states" in message
    assert not neck.commands
    assert process.poll() is None


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (["neck.urdf:=/nowhere.urdf"], "a URDF file"),
        ([URDF, "neck.joints:=[pan_joint,tilt_joint,nose]"], "the joints nose"),
        (["neck.output:=telepathy"], "neck.output"),
        (["look_at.policy:=id"], "target_id"),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line(graph, parameters, words):
    process = graph.start("look_at", *parameters)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert words in output
    assert "Traceback" not in output


@pytest.mark.parametrize("output", ["trajectory", "commands", "joints", "point_head", "none"])
def test_every_output_closes_the_loop(graph, listener, neck, output):
    """The simulated neck takes them all; `none` leaves it to who listens to /look_at."""
    needs = {"trajectory": "trajectory_msgs", "point_head": "control_msgs"}
    if output in needs:
        pytest.importorskip(needs[output], reason=f"scripts/setup_env.sh {needs[output]}")
    told = f"neck.output:={output}"
    graph.start("pan_tilt_simulator", URDF, told, "neck_simulator.person:=still")
    graph.start("look_at", told)
    assert listener.spin_until(
        lambda: bool(neck.joints) and abs(neck.joints[-1].position[0] - 0.3) < 0.05
    ), neck.health()
    assert listener.spin_until(lambda: neck.status() == FOLLOWING)  # it hears that node by now
    neck.wait(1.0)
    neck.joints.clear()
    assert listener.spin_until(lambda: len(neck.joints) > 50)
    assert np.abs(neck.positions()[:, 0] - 0.3).max() < 0.05  # and there it stays
    assert bool(neck.commands) == (output == "commands")


def test_a_target_that_is_lost_cancels_the_point_head_goal(graph, listener, neck):
    pytest.importorskip("control_msgs", reason="scripts/setup_env.sh control_msgs")
    from control_msgs.action import PointHead
    from rclpy.action import ActionServer, CancelResponse
    from rclpy.task import Future

    accepted, cancelled, endless = [], [], Future(executor=listener.executor)

    async def execute(handle):
        await endless  # a head that never gets there
        return PointHead.Result()

    def cancel(handle):
        cancelled.append(bytes(handle.goal_id.uuid))
        return CancelResponse.REJECT

    server = ActionServer(
        listener.node,
        PointHead,
        "/neck/point_head",
        execute,
        handle_accepted_callback=lambda handle: (
            accepted.append(bytes(handle.goal_id.uuid)),
            handle.execute(),
        ),
        cancel_callback=cancel,
    )
    graph.start("pan_tilt_simulator", URDF, "use_sim_time:=true")
    graph.start("look_at", "neck.output:=point_head", "use_sim_time:=true")
    clock = SimulatedTime(neck)

    def tick_until(done, *, shown):
        deadline = time.monotonic() + 90
        while not done():
            assert time.monotonic() < deadline, neck.health()
            if shown:
                neck.show_face((-0.3, 0.0, 1.0), stamp=clock.seconds)
            clock.tick()

    tick_until(lambda: len(accepted) >= 2, shown=True)
    assert not cancelled
    tick_until(lambda: neck.status() == LOST_TARGET and cancelled, shown=False)
    clock.pass_seconds(0.3)
    assert cancelled == accepted[-1:]
    endless.set_result(None)
    neck.wait(0.1)
    server.destroy()


def test_faces_do_not_pile_up_while_there_is_no_neck():
    from rclpy.context import Context

    from face_recon_ros.nodes.look_at import RobotFrames

    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("frames", context=context)
    frames = RobotFrames(node, max_step_back_s=0.5)
    pose = Rigid(np.eye(3), np.ones(3))
    for k in range(2000):
        header = conversions.header_of(k / 30, "camera")
        frames.receive(conversions.transforms_to_msg({"face_abcde": pose}, header))
    assert 10 < len(frames.waiting) < 1000
    assert frames.waiting[-1][1].stamp == pytest.approx(1999 / 30)
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_point_head_goals_reach_an_action_server(graph, listener, neck):
    pytest.importorskip("control_msgs", reason="scripts/setup_env.sh control_msgs")
    from control_msgs.action import PointHead
    from rclpy.action import ActionServer

    goals = []

    def execute(handle):
        goals.append(handle.request)
        handle.succeed()
        return PointHead.Result()

    server = ActionServer(listener.node, PointHead, "/neck/point_head", execute)
    exact = ("neck_simulator.camera_noise:=0.0", "neck_simulator.range_noise:=0.0")
    graph.start("pan_tilt_simulator", URDF, "neck_simulator.person:=still", *exact)
    graph.start("look_at", "neck.output:=point_head")
    assert listener.spin_until(lambda: len(goals) >= 2)
    assert goals[0].pointing_frame == "camera_optical_frame"
    assert goals[0].pointing_axis.z == 1.0
    assert goals[0].target.header.frame_id == "base_link"
    point = goals[-1].target.point
    assert [point.x, point.y] == pytest.approx(
        [1.5 * math.cos(0.3), 1.5 * math.sin(0.3)], abs=0.05
    )
    server.destroy()


def chain(look_frame, mount, *joints):
    """A URDF: named joints about x, y or z on top of each other, and what they carry."""
    axes = {"x": "1 0 0", "y": "0 1 0", "z": "0 0 1"}
    links = [f"link_{k}" for k in range(len(joints) + 1)]
    moving = [
        f'<joint name="{name}" type="revolute"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="0 0 0.05"/><axis xyz="{axes[axis]}"/>'
        '<limit lower="-1.2" upper="1.2" velocity="3" effort="1"/></joint>'
        for (name, axis), parent, child in zip(joints, links[:-1], links[1:], strict=True)
    ]
    fixed = (
        f'<joint name="mount" type="fixed"><parent link="{links[-1]}"/>'
        f'<child link="{look_frame}"/><origin xyz="0.05 0 0.1" rpy="{mount}"/></joint>'
    )
    return f"<robot name='like'>{''.join(moving)}{fixed}</robot>"


OPTICAL = "-1.5707963267948966 0 -1.5707963267948966"
LIKE = {
    "head_1_joint": chain(
        "head_front_camera_color_optical_frame",
        OPTICAL,
        ("head_1_joint", "z"),
        ("head_2_joint", "y"),
    ),
    "neck_roll": chain(
        "head", "0 0 0", ("neck_roll", "x"), ("neck_pitch", "y"), ("neck_yaw", "z")
    ),
    "pan_joint": (ROOT / "urdf" / "pan_tilt.urdf").read_text(),
}
RECIPES = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "robot.md").read_text(), re.S)


@pytest.mark.parametrize("recipe", RECIPES, ids=["TIAGo-like", "Reachy-like", "pan-tilt"])
def test_a_recipe_makes_a_neck_of_its_kind_look_at_a_person(
    graph, listener, neck, tmp_path, recipe
):
    parameters = yaml.safe_load(recipe)["/**"]["ros__parameters"]
    if parameters["neck.output"] == "trajectory":
        pytest.importorskip("trajectory_msgs", reason="scripts/setup_env.sh trajectory_msgs")
    names = parameters["neck.joints"]
    files = {"robot.yaml": recipe, "robot.urdf": LIKE[names[0]]}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    arguments = ("--ros-args", "--params-file", str(tmp_path / "robot.yaml"), "--")
    urdf, seen = f"neck.urdf:={tmp_path / 'robot.urdf'}", "neck_simulator.person:=still"
    graph.start("pan_tilt_simulator", urdf, seen, arguments=arguments)
    graph.start("look_at", arguments=arguments)
    model = neck_from_urdf(
        LIKE[names[0]],
        names,
        parameters["neck.look_frame"],
        look_axis=parameters["neck.look_axis"],
        limit_margin=0.02,
    )
    people = listener.listen(PointStamped, "/neck_simulator/person", 100)

    def stand():
        """The robot's base stands still, where its odometry says."""
        if fixed := parameters.get("neck.fixed_frame"):
            header = conversions.header_of(neck.now(), fixed)
            at = {model.base_frame: Rigid(np.eye(3), np.array([1.0, 2.0, 0.5]))}
            neck.tf.publish(conversions.transforms_to_msg(at, header))

    def looks():
        if not (neck.joints and people):
            return False
        point, joints = people[-1].point, neck.joints[-1].position
        bearing = model.bearing(joints, [point.x, point.y, point.z])
        return np.degrees(np.linalg.norm(bearing)) < 3.0 and neck.status() == FOLLOWING

    assert listener.spin_until(looks, each=stand), neck.health()
    assert set(neck.joints[-1].name) == set(names)
