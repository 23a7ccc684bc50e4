"""The launch file, the YAML and the RViz config, statically: their names are the nodes'."""

import ast
import dataclasses
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from launch_description import ROOT, describe, of_kind

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.ranges import range_of
from face_recon_ros.io.expression_stream import StreamConfig
from face_recon_ros.nodes.launch_arguments import SHARED_ARGUMENTS
from face_recon_ros.nodes.parameters import (
    GROUPS,
    CameraConfig,
    ManagerConfig,
    NodeTrackerConfig,
    Parameters,
    is_dynamic,
    leaves,
    markdown_page,
)

PARAMETERS = {name for group in GROUPS for name, *_ in leaves(group)}


@pytest.fixture
def description(monkeypatch):
    return describe("demo", monkeypatch)


def test_every_argument_is_used_and_every_used_one_declared(description):
    declared = {item.args[0] for item in of_kind(description, "Argument")}
    source = (ROOT / "launch/demo.launch.py").read_text()
    assert declared == set(re.findall(r'LaunchConfiguration\("(\w+)"\)', source))
    assert declared == {"source", "composed", "config", *SHARED_ARGUMENTS}


def test_nodes_are_executables_of_the_package(description):
    setup = (ROOT / "setup.py").read_text()
    executables = dict(re.findall(r'"(\w+) = (face_recon_ros\.nodes\.\w+):main"', setup))
    nodes = [n.kwargs for n in of_kind(description, "Node")]
    ours = [n for n in nodes if n["package"] == "face_recon_ros" and "name" in n]
    assert {n["executable"] for n in ours} <= set(executables)
    for node in ours:
        assert executables[node["executable"]].endswith("." + node["name"])
    composed = {n["name"] for n in ours if type(n["condition"]).__name__ == "If"}
    separate = {n["name"] for n in ours if type(n["condition"]).__name__ == "Unless"}
    assert composed == {"pipeline", "expression_bridge"}
    assert separate == {"camera", "detector", "reconstruction", "visualization"}


@pytest.mark.parametrize("name", ["demo", "robot"])
def test_expressions_leave_the_machine_only_if_asked(name, monkeypatch):
    description = describe(name, monkeypatch)
    arguments = {a.args[0]: a.kwargs for a in of_kind(description, "Argument")}
    assert arguments["expressions"]["default_value"] == "false"
    nodes = [n.kwargs for n in of_kind(description, "Node")]
    (bridge,) = (n for n in nodes if n["executable"] == "expression_bridge_node")
    assert type(bridge["condition"]).__name__ == "If"
    assert bridge["condition"].args[0].args == ("expressions",)
    assert StreamConfig().host == "127.0.0.1"


@pytest.mark.parametrize("name", ["demo", "robot"])
def test_without_autostart_a_manager_brings_every_node_up(name, monkeypatch):
    description = describe(name, monkeypatch)
    nodes = of_kind(description, "Node")
    (manager,) = (n for n in nodes if n.kwargs["executable"] == "manager_node")
    assert "manager_node = face_recon_ros.nodes.manager:main" in (ROOT / "setup.py").read_text()
    assert type(manager.kwargs["condition"]).__name__ == "Unless"
    assert manager.kwargs["condition"].args[0].args == ("autostart",)
    ours = [n.kwargs for n in nodes if n.kwargs["package"][:4] == "face" and n is not manager]
    managed = ManagerConfig().nodes
    for node in ours:
        assert any("autostart" in p for p in node["parameters"] if isinstance(p, dict))
        namespace = f"/{node['namespace']}" if "namespace" in node else ""
        assert f"{namespace}/{node['name']}" in managed


def test_parameters_set_by_the_launch_file_exist(description):
    for node in of_kind(description, "Node"):
        for parameters in node.kwargs.get("parameters", []):
            if isinstance(parameters, dict):
                assert set(parameters) <= PARAMETERS


def test_every_parameter_can_be_set():
    import rclpy
    from rclpy.context import Context
    from rclpy.parameter import Parameter

    given = {leaf.name: leaf.default for group in GROUPS for leaf in leaves(group)}
    given["detector.rotations_deg"] = (90.0, -90.0)
    for name, value in given.items():
        assert value != (), f"give {name} a value here: its default is empty"
    overrides = [
        Parameter(n, value=list(v) if isinstance(v, tuple) else v) for n, v in given.items()
    ]
    context = Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("all", context=context, parameter_overrides=overrides)
        configs = Parameters(node, tuple(GROUPS)).configs
        assert list(node.get_parameter("detector.rotations_deg").value) == [90.0, -90.0]
        plain = rclpy.create_node("plain", context=context)
        assert Parameters(plain, ("detector",)).configs["detector"].rotations_deg == ()
    finally:
        rclpy.shutdown(context=context)
    assert configs["detector"].rotations_deg == (90.0, -90.0)
    unchanged = set(GROUPS) - {"detector"}
    assert {g: configs[g] for g in unchanged} == {g: GROUPS[g]() for g in unchanged}


def test_what_yaml_reads_as_another_type_is_taken_as_meant():
    """On a command line and in a file: there `off` is a bool, 0 a number, 60 no double."""
    import rclpy
    from rclpy.context import Context

    given = {
        "camera.source": ("0", "0"),
        "camera.rectified": ("true", "true"),
        "camera.fov_deg": ("70", 70.0),
        "tracker.appearance": ("off", "off"),
        "reconstructor.points": ("off", "off"),
        "reconstructor.colours": ("OFF", "off"),
        "detector.rotations_deg": ("[90, -90]", (90.0, -90.0)),
    }
    flags = [flag for name, (text, _) in given.items() for flag in ("-p", f"{name}:={text}")]
    context = Context()
    rclpy.init(context=context, args=["--ros-args", *flags])
    try:
        node = rclpy.create_node("words", context=context)
        configs = Parameters(node, tuple({name.partition(".")[0] for name in given})).configs
        with pytest.raises(ConfigError, match="appearance"):
            wrong = [rclpy.parameter.Parameter("tracker.appearance", value=True)]
            other = rclpy.create_node("wrong", context=context, parameter_overrides=wrong)
            Parameters(other, ("tracker",))
    finally:
        rclpy.shutdown(context=context)
    for name, (_, meant) in given.items():
        group, _, field = name.partition(".")
        assert getattr(configs[group], field) == meant, name


def configs_with_ranges():
    """Every config dataclass behind parameters, with its fields that have a range."""
    todo = [config() for config in GROUPS.values()]
    while todo:
        config = todo.pop()
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        todo += [value for value in values.values() if dataclasses.is_dataclass(value)]
        limits = {f.name: range_of(f) for f in dataclasses.fields(config)}
        yield config, {name: pair for name, pair in limits.items() if pair}


def test_what_a_parameter_refuses_its_dataclass_refuses():
    for config, limits in configs_with_ranges():
        for name, (low, high) in limits.items():
            for wrong in (low - 1, high + 1, math.nan):
                with pytest.raises(ConfigError, match=name):
                    dataclasses.replace(config, **{name: wrong})


def test_every_number_has_a_range_that_holds_its_default():
    for group in GROUPS:
        for name, default, _, limits in leaves(group):
            if isinstance(default, (int, float)) and not isinstance(default, bool):
                assert limits is not None and limits[0] <= default <= limits[1], name
    dynamic = {name for name in PARAMETERS if is_dynamic(name)}
    assert {"detector.min_score", "reconstructor.smooth_rotation.min_cutoff_hz"} <= dynamic
    assert not {"detector.backend", "output.depth", "look_at.period_s", "camera.source"} & dynamic


def test_processes_give_different_people_different_ids():
    seeds = {NodeTrackerConfig().seeded().seed for _ in range(3)}
    assert len(seeds) == 3
    assert min(seeds) >= 0
    assert NodeTrackerConfig(seed=7).seeded().seed == 7


def test_files_wait_for_rviz_and_begin_again():
    for name in ("demo", "robot"):
        content = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
        assert content["/**"]["ros__parameters"]["camera.loop"] is True
        assert content["/**"]["ros__parameters"]["camera.wait_for_subscriber_s"] == 30.0


@pytest.mark.parametrize("name", ["demo", "robot"])
@pytest.mark.parametrize(("distribution", "old"), [("jazzy", True), ("lyrical", False)])
def test_images_fit_into_shared_memory_unless_the_user_has_a_profile(
    name, distribution, old, monkeypatch
):
    """One variable: with both, Fast DDS warns of the old one, and ours would join the user's."""
    monkeypatch.setenv("ROS_DISTRO", distribution)
    description = describe(name, monkeypatch)
    ((variable, value),) = (s.args for s in of_kind(description, "SetVariable"))
    assert variable == f"FAST{'RTPS' if old else 'DDS'}_DEFAULT_PROFILES_FILE"
    assert type(value).__name__ == "Variable"  # what the user has set, else the default
    assert value.args == (variable,)
    assert Path(value.kwargs["default_value"]).is_file()
    first_node = next(i for i, d in enumerate(description) if type(d).__name__ == "Node")
    assert all(type(d).__name__ != "SetVariable" for d in description[first_node:])


@pytest.mark.parametrize(("file", "here_only"), [("fastdds", True), ("fastdds_network", False)])
def test_fast_dds_profiles(file, here_only):
    """A segment for images, transports that exist, and the network where it is meant to be."""
    root = ElementTree.parse(ROOT / "config" / f"{file}.xml").getroot()
    ns = {"": "http://www.eprosima.com"}
    defined = {
        d.findtext("transport_id", "", ns) for d in root.iterfind(".//transport_descriptor", ns)
    }
    used = {t.text for t in root.iterfind(".//userTransports/transport_id", ns)}
    assert used == defined
    assert int(root.findtext(".//segment_size", "0", ns)) >= 10 * 1920 * 1080 * 3
    assert bool(root.findall(".//interfaceWhiteList", ns)) == here_only


def test_a_word_says_that_another_driver_publishes(description):
    argument = next(a for a in of_kind(description, "Argument") if a.args[0] == "source")
    assert "`topic`" in argument.kwargs["description"]
    assert CameraConfig(source="topic").is_topic
    assert CameraConfig().is_topic
    assert not CameraConfig(source="pattern").is_topic


def test_parameters_of_yaml_files_and_of_examples_exist_and_have_their_type():
    """ROS refuses `off` without quotes, and 1 for 1.0."""
    defaults = {leaf.name: leaf.default for group in GROUPS for leaf in leaves(group)}
    texts = [path.read_text() for path in (ROOT / "config").glob("*.yaml")]
    for page in (ROOT / "docs").glob("*.md"):
        texts += re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)
    sections = [
        section["ros__parameters"]
        for text in texts
        for section in yaml.safe_load(text).values()
        if isinstance(section, dict) and "ros__parameters" in section
    ]
    assert len(sections) >= 6
    for section in sections:
        for name, value in section.items():
            kind = type(defaults[name])
            assert type(value) is (list if kind is tuple else kind), f"{name}: {value!r}"


def test_rviz_shows_topics_that_are_published():
    config = yaml.safe_load((ROOT / "config" / "face_recon.rviz").read_text())
    shown = {
        d["Topic"]["Value"] for d in config["Visualization Manager"]["Displays"] if "Topic" in d
    }
    published = set()
    for path in (ROOT / "face_recon_ros" / "nodes").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "create_publisher":
                topic = node.args[1]
                if isinstance(topic, ast.Constant):
                    published.add("/face/" + topic.value)
    assert shown
    assert shown <= published


def test_the_page_of_parameters_is_up_to_date():
    remedy = "python -m face_recon_ros.nodes.parameters > docs/parameters.md"
    assert (ROOT / "docs" / "parameters.md").read_text() == markdown_page(), remedy


FRAGMENT = re.compile(r"(Of|By|In|From|On|To|With|Within|Whether|Where|How|Whom|Also) ")
VERB = re.compile(
    r"\b(is|are|has|have|takes?|takes|reads?|runs?|counts?|leaves?|finds?|ends?|says?|starts?|"
    r"stops?|begins?|continue|exits?|waits?|asked|go|goes|grows|publishes|stays|tells|moves?|"
    r"smooths|averages|estimates|decides|belongs|drawn|become|refused|looks?|changes|must|keep|"
    r"accelerate|shows|come|configures|leads?|sees|lie|lies|bound|do|does|comes?|may|can|will|should|take|costs?|makes?|gives?|uses?|needs?|"
    r"means|sets?|works?|keeps?|shown|draws?|writes?|sends?|gets?|holds?|follows?|corrects?)\b"
)


def test_every_description_is_sentences_that_stand_alone():
    for group in GROUPS:
        for name, _, description, _ in leaves(group):
            for sentence in re.split(r"(?<=\.) (?=[A-Z`/])", description):
                assert re.match(r"[A-Z`/]", sentence), (name, sentence)
                assert sentence.endswith("."), (name, sentence)
                assert not FRAGMENT.match(sentence), (name, sentence)
                assert VERB.search(sentence), (name, sentence)
