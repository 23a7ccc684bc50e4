"""The shape of the code, enforced: who may import whom, and what must not be loaded to run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "face_recon_ros"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE
ROS = {
    "ament_index_python",
    "builtin_interfaces",
    "control_msgs",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "hri_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "rcl_interfaces",
    "rclpy",
    "sensor_msgs",
    "shape_msgs",
    "std_msgs",
    "std_srvs",
    "tf2_msgs",
    "tf2_ros",
    "trajectory_msgs",
    "vision_msgs",
    "visualization_msgs",
}
TRAINING = {"numba", "onnx", "torch", "torchvision"}

#: part of the package -> parts it may import. Core knows nobody; nobody knows the command line.
MAY_IMPORT = {
    "core": {"core"},
    "options": {"core"},
    "nodes": {"core", "nodes"},
    "modeling": {"core", "modeling"},
    "training": {"core", "training"},
    "evaluation": {"core", "evaluation", "options"},
    "reconstruct": {"core", "options", "nodes.bag_source"},
    "cli": {"core", "evaluation", "modeling", "options", "reconstruct", "training"},
    "__main__": {"cli"},
}
#: Bags are read where there is no ROS: these of the nodes import nothing of it.
READERS = ("bag_source", "camera_messages", "pose_messages")
EXCEPTIONS = {"evaluation": {f"nodes.{name}" for name in READERS}}


def modules():
    return sorted(p for p in ROOT.rglob("*.py") if "__pycache__" not in p.parts)


def part_of(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path, *, at_load_only=False):
    """Absolute names of modules a file imports, with line numbers."""
    tree = ast.parse(path.read_text(), str(path))
    skipped = set()
    if at_load_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                skipped |= {id(inner) for inner in ast.walk(node)}
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module, node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def test_there_is_something_to_check():
    assert len(modules()) > 30
    assert {part_of(p) for p in modules()} >= {"core", "nodes", "training", "evaluation", "cli"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_inwards_only(path):
    part = part_of(path)
    if part == "__init__":
        allowed = set()
    else:
        assert part in MAY_IMPORT, f"{part}: say in MAY_IMPORT what it may import"
        allowed = MAY_IMPORT[part] | EXCEPTIONS.get(part, set())
    for name, line in imports(path):
        if not name.startswith(f"{PACKAGE}."):
            continue
        inner = name.removeprefix(f"{PACKAGE}.")
        ok = any(
            inner == a or inner.startswith(f"{a}.") or a.startswith(f"{inner}.") for a in allowed
        )
        assert ok, f"{path.relative_to(ROOT)}:{line} imports {inner}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_nodes_know_ros_and_only_training_knows_torch(path):
    part = part_of(path)
    for name, line in imports(path):
        top = name.partition(".")[0]
        where = f"{path.relative_to(ROOT)}:{line} imports {top}"
        if top in ROS:
            assert part == "nodes", where
        if top in TRAINING:
            assert part == "training", where


@pytest.mark.parametrize("name", READERS)
def test_bags_are_read_without_ros(name):
    for imported, line in imports(ROOT / "nodes" / f"{name}.py"):
        # cv_bridge is asked for encodings of which we know nothing, where it is installed
        assert imported.partition(".")[0] not in ROS - {"cv_bridge"}, f"{name}.py:{line}"


@pytest.mark.parametrize(
    "statement, banned",
    [
        ("import face_recon_ros.core.pipeline", {"torch", "scipy", "matplotlib", "mediapipe"}),
        ("from face_recon_ros.cli import make_parser; make_parser()", {"torch", "scipy", "onnx"}),
        ("from face_recon_ros.cli import make_parser; make_parser()", {"matplotlib", "rclpy"}),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(statement, banned):
    code = f"import sys; {statement}; print(sorted({banned!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
