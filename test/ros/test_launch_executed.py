"""The launch files' actions, executed: real nodes start as the files set them, and end."""

import signal

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

import launch_stand_in
from rclpy.parameter_client import AsyncParameterClient

from face_recon_ros.nodes.runtime import RESULT_QOS

COMPOSED = {"/face/pipeline"}
SEPARATE = {"/camera/camera", "/face/detector", "/face/reconstruction", "/face/visualization"}


@pytest.fixture
def small_config(tmp_path, small_models):
    """The demo's parameters with the tests' own models."""
    import yaml

    content = yaml.safe_load((launch_stand_in.ROOT / "config/demo.yaml").read_text())
    values = content["/**"]["ros__parameters"]
    values.update(p.split(":=", 1) for p in small_models)
    values["camera.fps"] = 10.0
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def nodes(listener):
    names = listener.node.get_node_names_and_namespaces()
    return {f"{space.rstrip('/')}/{name}" for name, space in names} - {"/listener"}


def parameter(listener, node, name):
    client = AsyncParameterClient(listener.node, node)
    assert listener.spin_until(client.services_are_ready, 60)
    answer = client.get_parameters([name])
    assert listener.spin_until(answer.done, 60)
    return answer.result().values[0]


@pytest.mark.parametrize(("composed", "expected"), [("true", COMPOSED), ("false", SEPARATE)])
def test_the_demo_starts_its_nodes_with_their_parameters_and_ends(
    composed, expected, graph, listener, small_config, monkeypatch
):
    from geometry_msgs.msg import PoseArray

    arguments = {"composed": composed, "source": "pattern", "config": str(small_config)}
    poses = listener.listen(PoseArray, "/face/head_poses", RESULT_QOS)
    with launch_stand_in.run("demo", arguments, graph.env, monkeypatch) as (processes, scope):
        assert scope["elsewhere"] == ["rviz2"]
        assert len(processes) == len(expected)
        assert listener.spin_until(lambda: nodes(listener) >= expected), nodes(listener)
        assert listener.spin_until(lambda: any(m.poses for m in poses)), "no face"
        reader = min(expected & {"/face/pipeline", "/camera/camera"})
        assert parameter(listener, reader, "camera.source").string_value == "pattern"
        assert parameter(listener, reader, "camera.fps").double_value == 10.0
        for process in processes:
            process.send_signal(signal.SIGINT)
        output = "".join(process.communicate(timeout=60)[0] for process in processes)
        assert [process.returncode for process in processes] == [0] * len(processes), output
    assert output.count("ready") >= len(expected)
    assert "first face: " in output
    assert "Traceback" not in output


def test_a_profile_of_the_users_own_stays(graph, monkeypatch):
    class Never:
        def __init__(self, *_, **__):
            raise AssertionError("nothing is to be started here")

    monkeypatch.setattr(launch_stand_in.subprocess, "Popen", Never)
    monkeypatch.setattr(launch_stand_in.Node, "act", lambda self, scope: None)
    mine = {**graph.env, "FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"}
    mine.pop("FASTRTPS_DEFAULT_PROFILES_FILE", None)
    with launch_stand_in.run("demo", {}, mine, monkeypatch) as (_, scope):
        assert scope["environment"]["FASTDDS_DEFAULT_PROFILES_FILE"] == "/mine.xml"
        default = scope["environment"]["FASTRTPS_DEFAULT_PROFILES_FILE"]
        assert default.endswith("config/fastdds_network.xml")
