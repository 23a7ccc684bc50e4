"""The launch files' actions, executed: real nodes start as the files set them, and end."""

import signal

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

import launch_stand_in
from geometry_msgs.msg import PoseArray, TransformStamped
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import JointState
from tf2_msgs.msg import TFMessage

from face_recon_ros.nodes.runtime import LATCHED_QOS, RESULT_QOS

COMPOSED = {"/face/pipeline"}
SEPARATE = {"/camera/camera", "/face/detector", "/face/reconstruction", "/face/visualization"}


CAMERA = "camera_optical_frame"
ROBOT = {
    "/face/pipeline",
    "/look_at",
    "/neck_simulator",
    "/face/expression_bridge",
    "/face/lifecycle_manager",
}


@pytest.fixture
def small_config(tmp_path, small_models):
    """Makes copies of the launch files' parameters, with the tests' own models."""

    def copied(name, **changed):
        content = yaml.safe_load((launch_stand_in.ROOT / "config" / name).read_text())
        models = dict(p.split(":=", 1) for p in small_models)
        content["/**"]["ros__parameters"].update({**models, **changed})
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return copied


def nodes(listener):
    names = listener.node.get_node_names_and_namespaces()
    return {f"{space.rstrip('/')}/{name}" for name, space in names} - {"/listener"}


def ended(processes):
    """What the processes said, after Ctrl-C."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    output = "".join(process.communicate(timeout=60)[0] for process in processes)
    assert [process.returncode for process in processes] == [0] * len(processes), output
    assert "Traceback" not in output
    return output


def parameter(listener, node, name):
    client = AsyncParameterClient(listener.node, node)
    assert listener.spin_until(client.services_are_ready, 60)
    answer = client.get_parameters([name])
    assert listener.spin_until(answer.done, 60)
    return answer.result().values[0]


def becomes_active(listener, node):
    """Whether a node that a manager activates is active by and by."""
    client = listener.node.create_client(GetState, f"{node}/get_state")

    def active():
        answer = client.call_async(GetState.Request())
        assert listener.spin_until(answer.done, 60)
        return answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE

    return listener.spin_until(client.service_is_ready, 60) and listener.spin_until(active, 60)


@pytest.mark.parametrize(("composed", "expected"), [("true", COMPOSED), ("false", SEPARATE)])
def test_the_demo_starts_its_nodes_with_their_parameters_and_ends(
    composed, expected, graph, listener, small_config, monkeypatch
):
    config = small_config("demo.yaml", **{"camera.fps": 10.0})
    arguments = {"composed": composed, "source": "pattern", "config": config}
    arguments["image_topic"] = "/head/image_raw"
    poses = listener.listen(PoseArray, "/face/head_poses", RESULT_QOS)
    with launch_stand_in.run("demo", arguments, graph.env, monkeypatch) as (processes, scope):
        assert scope["elsewhere"] == ["rviz2"]
        assert len(processes) == len(expected)
        assert listener.spin_until(lambda: nodes(listener) >= expected), nodes(listener)
        assert listener.spin_until(lambda: any(m.poses for m in poses)), "no face"
        reader = min(expected & {"/face/pipeline", "/camera/camera"})
        assert parameter(listener, reader, "camera.source").string_value == "pattern"
        assert parameter(listener, reader, "camera.fps").double_value == 10.0
        assert listener.node.count_publishers("/head/image_raw") == 1
        output = ended(processes)
    assert output.count("ready") >= len(expected)
    assert "first face: " in output


def test_the_robot_starts_its_nodes_with_their_parameters_and_looks_at_a_person(
    graph, listener, small_config, monkeypatch
):
    """All nodes that the file can start, activated by the manager."""
    arguments = {
        "config": small_config("robot.yaml", **{"neck.output": "commands"}),
        "person": "still",
        "autostart": "false",
        "expressions": "true",
    }
    joints = listener.listen(JointState, "/joint_states", RESULT_QOS)
    looking_ahead = TransformStamped()  # stands in for robot_state_publisher
    looking_ahead.header.frame_id, looking_ahead.child_frame_id = "base_link", CAMERA
    q = looking_ahead.transform.rotation
    q.x, q.y, q.z, q.w = -0.5, 0.5, -0.5, 0.5
    static = listener.node.create_publisher(TFMessage, "/tf_static", LATCHED_QOS)
    static.publish(TFMessage(transforms=[looking_ahead]))
    with launch_stand_in.run("robot", arguments, graph.env, monkeypatch) as (processes, scope):
        assert scope["elsewhere"] == ["robot_state_publisher", "rviz2"]
        assert len(processes) == len(ROBOT)
        assert listener.spin_until(lambda: nodes(listener) >= ROBOT), nodes(listener)
        assert listener.spin_until(lambda: any(max(map(abs, m.position)) > 0.05 for m in joints))
        simulator = "/neck_simulator"
        assert parameter(listener, simulator, "neck_simulator.person").string_value == "still"
        assert not parameter(listener, simulator, "neck_simulator.publish_tf").bool_value
        assert parameter(listener, "/face/pipeline", "camera.source").string_value == "topic"
        assert becomes_active(listener, "/face/pipeline")
        output = ended(processes)
    assert output.count("ready") >= len(ROBOT) - 1, output


def test_a_profile_of_the_users_own_stays(graph, monkeypatch):
    monkeypatch.delenv("ROS_DISTRO", raising=False)

    class Never:
        def __init__(self, *_, **__):
            raise AssertionError("nothing is to be started here")

    monkeypatch.setattr(launch_stand_in.subprocess, "Popen", Never)
    monkeypatch.setattr(launch_stand_in.Node, "act", lambda self, scope: None)
    for mine, expected in (("/mine.xml", "/mine.xml"), (None, "config/fastdds_network.xml")):
        environment = {k: v for k, v in graph.env.items() if "PROFILES_FILE" not in k}
        environment |= {} if mine is None else {"FASTDDS_DEFAULT_PROFILES_FILE": mine}
        with launch_stand_in.run("demo", {}, environment, monkeypatch) as (_, scope):
            assert scope["environment"]["FASTDDS_DEFAULT_PROFILES_FILE"].endswith(expected)
            assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in scope["environment"]
