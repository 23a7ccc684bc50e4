"""The robot's launch file, YAML, RViz config and recipes: their names are the nodes'."""

import re

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from launch_description import ROOT, describe, of_kind

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.nodes.launch_arguments import SHARED_ARGUMENTS
from face_recon_ros.nodes.neck_config import NeckConfig
from face_recon_ros.nodes.parameters import GROUPS, leaves

PARAMETERS = {leaf.name for group in GROUPS for leaf in leaves(group)}


@pytest.fixture
def description(monkeypatch):
    return describe("robot", monkeypatch)


def test_every_argument_is_used_and_every_used_one_declared(description):
    declared = {item.args[0] for item in of_kind(description, "Argument")}
    source = (ROOT / "launch/robot.launch.py").read_text()
    assert declared == set(re.findall(r'LaunchConfiguration\("(\w+)"\)', source))
    assert declared == {"source", "config", "simulate", "person", *SHARED_ARGUMENTS}


def test_nodes_and_parameters_exist(description):
    setup = (ROOT / "setup.py").read_text()
    executables = dict(re.findall(r'"(\w+) = (face_recon_ros\.nodes\.\w+):main"', setup))
    nodes = [n.kwargs for n in of_kind(description, "Node")]
    ours = [n for n in nodes if n["package"] == "face_recon_ros" and "name" in n]
    assert {n["name"] for n in ours} == {
        "pipeline",
        "look_at",
        "neck_simulator",
        "expression_bridge",
    }
    for node in ours:
        assert node["executable"] in executables
        for parameters in node["parameters"]:
            if isinstance(parameters, dict):
                assert set(parameters) <= PARAMETERS


def yaml_blocks():
    text = (ROOT / "docs" / "robot.md").read_text()
    return re.findall(r"```yaml\n(.*?)```", text, re.S)


def recipes():
    files = [(ROOT / "config" / "robot.yaml").read_text()]
    return [yaml.safe_load(text) for text in [*files, *yaml_blocks()]]


def test_recipes_set_what_exists():
    assert len(recipes()) >= 4
    for content in recipes():
        for section in content.values():
            parameters = section["ros__parameters"]
            assert set(parameters) <= PARAMETERS
            neck = {k.partition(".")[2]: v for k, v in parameters.items() if k[:5] == "neck."}
            NeckConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in neck.items()})


def test_rviz_shows_what_is_published():
    config = yaml.safe_load((ROOT / "config" / "robot.rviz").read_text())["Visualization Manager"]
    displays = {d["Class"].rpartition("/")[2]: d for d in config["Displays"]}
    assert displays["RobotModel"]["Description Topic"]["Value"] == "/robot_description"
    assert displays["PointStamped"]["Topic"]["Value"] == "/look_at"
    assert displays["MarkerArray"]["Topic"]["Value"] == "/face/mesh/markers"
    assert config["Global Options"]["Fixed Frame"] == "base_link"


def test_the_documented_topics_are_the_nodes():
    text = (ROOT / "docs" / "robot.md").read_text()
    sources = "".join(
        (ROOT / "face_recon_ros" / "nodes" / f"{name}.py").read_text()
        for name in ("look_at", "ros4hri", "outputs", "pan_tilt_simulator")
    )
    for topic in ("neck/joint_trajectory", "neck/commands", "neck/point_head", "/look_at",
                  "/humans/faces/tracked", "/joint_states", "/robot_description"):  # fmt: skip
        assert topic in text and topic in sources


def test_a_simulated_neck_without_a_urdf_says_what_to_set():
    with pytest.raises(ConfigError, match=r"no name; set neck\.urdf"):
        NeckConfig().read_urdf()
