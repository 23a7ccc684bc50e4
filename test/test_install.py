"""What docs/install.md promises, as far as it can be checked without the distributions."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import resolution
import rosdistro_keys

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
PROMISED = ("humble", "jazzy", "kilted", "lyrical")


def requirement_names(text):
    """Package names of requirement lines."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {re.split(r"[\[<>=;~ ]", line)[0] for line in lines if line}


@pytest.fixture(scope="module")
def keys():
    return json.loads((REQUIREMENTS / "rosdistro.json").read_text())["keys"]


def package_xml():
    return ElementTree.parse(ROOT / "package.xml").getroot()


def shell(*arguments, **environment):
    variables = {k: v for k, v in os.environ.items() if k != "ROS_DISTRO"}
    return subprocess.run(
        ["bash", str(ROOT / "scripts/install_workspace.sh"), *arguments],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- rosdep keys ---------------------------------------------------------------------------------


def test_the_record_of_rosdistro_is_of_this_package_xml(keys):
    for distribution in PROMISED:
        assert sorted(keys[distribution]) == rosdistro_keys.keys(), (
            "run scripts/rosdistro_keys.py with a clone of ros/rosdistro"
        )


@pytest.mark.parametrize("distribution", PROMISED)
def test_every_dependency_exists_in_every_distribution_we_promise(distribution, keys):
    needed = {e.text for e in package_xml() if e.tag.endswith("depend")}
    assert len(needed) > 20
    missing = {key for key in needed if not keys[distribution][key]}
    assert not missing


@pytest.mark.parametrize("distribution", PROMISED)
def test_only_what_rosdep_has_from_pip_alone_can_be_left_out(distribution, keys):
    for element in package_xml():
        if element.tag.endswith("depend"):
            from_pip = keys[distribution][element.text].startswith("pip ")
            assert ("condition" in element.attrib) == from_pip, element.text


def test_what_we_import_is_declared_for_ros():
    """Every message package the nodes import, but for the optional ones."""
    declared = {e.text for e in package_xml() if e.tag == "exec_depend"}
    imported = set()
    for path in (ROOT / "face_recon_ros" / "nodes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    optional = {"hri_msgs", "control_msgs"}
    messages = {name for name in imported if name.endswith(("_msgs", "_srvs", "_interfaces"))}
    assert messages >= {"sensor_msgs", "vision_msgs"}
    assert messages - optional - {"builtin_interfaces"} <= declared


def test_the_rule_of_a_key_is_read_as_rosdep_reads_it():
    rules = {
        "plain": {"ubuntu": ["a", "b"]},
        "by_release": {"ubuntu": {"*": ["new"], "jammy": ["old"]}},
        "gone": {"ubuntu": {"*": ["x"], "noble": None}},
        "pip": {"ubuntu": {"pip": {"packages": ["p"]}}},
        "pip_by_release": {"ubuntu": {"*": {"pip": {"packages": ["p"]}}}},
    }
    assert rosdistro_keys.rule(rules, "plain", "noble") == "apt a b"
    assert rosdistro_keys.rule(rules, "by_release", "jammy") == "apt old"
    assert rosdistro_keys.rule(rules, "by_release", "noble") == "apt new"
    assert rosdistro_keys.rule(rules, "gone", "noble") is None
    assert rosdistro_keys.rule(rules, "pip", "noble") == "pip p"
    assert rosdistro_keys.rule(rules, "pip_by_release", "noble") == "pip p"
    assert rosdistro_keys.rule(rules, "unknown", "noble") is None


# --- requirements --------------------------------------------------------------------------------


def test_the_two_builds_of_onnx_runtime_are_never_installed_together():
    runtime = requirement_names((REQUIREMENTS / "runtime.txt").read_text())
    assert not any(name.startswith("onnxruntime") for name in runtime)
    assert requirement_names((REQUIREMENTS / "cpu.txt").read_text()) == {"onnxruntime"}
    assert requirement_names((REQUIREMENTS / "gpu.txt").read_text()) == {"onnxruntime-gpu"}
    for path in REQUIREMENTS.glob("*.txt"):
        if path.stem not in ("cpu", "gpu") and not path.stem.startswith("constraints"):
            names = requirement_names(path.read_text())
            assert not names & {"onnxruntime", "onnxruntime-gpu"}, path.name


def test_pip_extras_are_the_requirement_files():
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    ]
    given = {k.arg: k.value for k in calls[0].keywords}
    required = requirement_names("\n".join(ast.literal_eval(given["install_requires"])))
    extras = {
        name: requirement_names("\n".join(lines))
        for name, lines in ast.literal_eval(given["extras_require"]).items()
    }
    assert not any(name.startswith("onnxruntime") for name in required)
    for name in ("cpu", "gpu", "cluster"):
        assert extras[name] == requirement_names((REQUIREMENTS / f"{name}.txt").read_text())
    runtime = requirement_names((REQUIREMENTS / "runtime.txt").read_text())
    assert required <= runtime


def test_every_pinned_group_is_in_the_constraints():
    pinned = requirement_names((REQUIREMENTS / "constraints.txt").read_text())
    for path in REQUIREMENTS.glob("*.txt"):
        if not path.stem.startswith("constraints"):
            wanted = {n.lower() for n in requirement_names(path.read_text())} - {"torch"}
            assert wanted <= pinned, path.name


# --- resolution ----------------------------------------------------------------------------------


def test_the_matrix_in_the_docs_is_the_recorded_one():
    page = resolution.PAGE.read_text()
    assert resolution.page_with(page, resolution.table(*resolution.read_record())) == page


def test_the_record_answers_every_question_and_all_that_is_promised_resolves():
    _, cells = resolution.read_record()
    answers = {cell.key: cell for cell in cells}
    assert len(answers) == len(cells) == len(resolution.PLATFORMS) * 4
    for platform in resolution.PLATFORMS:
        on_pc = answers[platform.ros, platform.python, "x86_64", "cpu"]
        assert on_pc.fault == "", on_pc
        if platform.ros != "wheels":  # the ROS wheels are x86_64 only
            assert answers[platform.ros, platform.python, "aarch64", "cpu"].fault == ""
        else:
            refused = answers[platform.ros, platform.python, "aarch64", "cpu"].fault
            assert re.fullmatch(r"no wheel of ros-[a-z-]+", refused)


def test_a_refusal_names_the_package():
    told = (
        "No solution found: Because ros-std-msgs==5.5.1 has no wheels with a matching platform "
        "tag (e.g., `manylinux_2_28_aarch64`) and you require ros-std-msgs==5.5.1, we can ..."
    )
    assert resolution.reason(told) == "no wheel of ros-std-msgs"
    told = "Because onnxruntime-gpu[cuda]<=1.11.1 has no wheels with a matching Python ABI tag"
    assert resolution.reason(told) == "no wheel of onnxruntime-gpu"
    assert resolution.reason("Because a needs b") == "Because a needs b"


@pytest.mark.network
@pytest.mark.skipif(
    os.environ.get("FACE_RECON_NETWORK") != "1",
    reason="asks the package index; FACE_RECON_NETWORK=1 runs it",
)
@pytest.mark.parametrize("platform", resolution.PLATFORMS, ids=lambda p: f"{p.ros}-{p.python}")
def test_the_index_still_answers_as_recorded(platform):
    answers = {cell.key: cell for cell in resolution.read_record()[1]}
    for machine in resolution.MACHINES:
        for hardware in resolution.HARDWARE:
            try:
                now = resolution.resolve(platform, machine, hardware)
            except (ConnectionError, FileNotFoundError, subprocess.TimeoutExpired) as fault:
                pytest.skip(str(fault))
            assert bool(now.fault) == bool(answers[now.key].fault), now


# --- the commands --------------------------------------------------------------------------------


def commands_in_docs(distribution):
    text = resolution.PAGE.read_text()
    found = re.search(rf"<!-- commands: {distribution} -->\n```bash\n(.*?)```", text, re.S)
    assert found, distribution
    return found.group(1)


@pytest.mark.parametrize("distribution", PROMISED)
def test_the_commands_in_the_docs_are_what_the_script_runs(distribution):
    done = shell("--dry-run", "/ws", ROS_DISTRO=distribution)
    assert done.returncode == 0, done.stderr
    told = done.stdout.replace(str(ROOT), "/ws/src/face_recon_ros").replace("/ws", "~/ros2_ws")
    assert told == commands_in_docs(distribution)


def test_a_gpu_swaps_the_runtime_and_nothing_else():
    cpu = shell("--dry-run", "/ws", ROS_DISTRO="jazzy").stdout.splitlines()
    gpu = shell("--dry-run", "--gpu", "/ws", ROS_DISTRO="jazzy").stdout.splitlines()
    different = [(a, b) for a, b in zip(cpu, gpu, strict=True) if a != b]
    assert [(a.split()[-1], b.split()[-1]) for a, b in different] == [
        ("onnxruntime-gpu", "onnxruntime"),
        (f"{REQUIREMENTS}/cpu.txt", f"{REQUIREMENTS}/gpu.txt"),
    ]


@pytest.mark.parametrize("variables", [{}, {"ROS_DISTRO": "foxy"}])
def test_without_a_known_distribution_the_script_says_what_to_do(variables):
    done = shell("--dry-run", **variables)
    assert done.returncode == 1
    assert "humble jazzy kilted lyrical" in done.stderr
    assert "source /opt/ros" in done.stderr
    assert done.stdout == ""


def test_the_script_stops_at_the_first_command_that_fails(tmp_path):
    for name in ("sudo", "apt-get", "rosdep"):
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/called"\nexit 7\n'
        )
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = shell(str(tmp_path / "ws"), ROS_DISTRO="jazzy", PATH=path)
    assert done.returncode == 7
    assert len((tmp_path / "called").read_text().splitlines()) == 1
    assert not (tmp_path / "ws").exists()


# --- containers ----------------------------------------------------------------------------------


def test_the_dockerfile_installs_by_the_script_and_passes_the_linter():
    text = (ROOT / "docker/Dockerfile").read_text()
    assert "scripts/install_workspace.sh" in text
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("needs hadolint (requirements/test.txt)")
    done = subprocess.run(
        [linter, str(ROOT / "docker/Dockerfile")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_what_is_not_needed_stays_out_of_the_image():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "runs"} <= set(ignored)


def test_gpu_check_measures_the_cpu_and_says_what_is_missing(tmp_path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there may be a GPU")
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/gpu_check.py"), "--out", str(out), "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1, done.stderr
    assert "no GPU is at work" in done.stderr
    told = json.loads(out.read_text())
    assert told["gpu_works"] is False and "cuda" not in told
    for network in ("face_net.onnx", "face_net_resnet50.onnx"):
        assert told["cpu"][network]["8 faces, bare network"]["p50_ms"] > 0
        assert told["cpu"][network]["1 faces, crop to mesh"]["p50_ms"] > 0
    assert told["cpu"]["decoder, 8 faces"]["graph_ms"] > 0
