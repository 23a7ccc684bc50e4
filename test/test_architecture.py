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

#: Rooms of the package, lowest first. A room imports itself and the layers below it; rooms of one
#: layer do not know each other.
LAYERS = (
    ("core",),
    ("io",),
    ("robot", "fitting", "face_model"),
    ("training", "evaluation", "nodes"),
    ("cli",),
    ("__main__",),
)
MAY_IMPORT = {
    room: {room}.union(*LAYERS[:level]) for level, rooms in enumerate(LAYERS) for room in rooms
}


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
        assert part in MAY_IMPORT, f"{part}: give it a place in LAYERS"
        allowed = MAY_IMPORT[part]
    for name, line in imports(path):
        if not name.startswith(f"{PACKAGE}."):
            continue
        inner = name.removeprefix(f"{PACKAGE}.")
        assert inner.partition(".")[0] in allowed, f"{path.relative_to(ROOT)}:{line}: {inner}"


def test_no_files_import_each_other():
    """Not even for types, or within functions."""
    files = {
        f"{PACKAGE}.{'.'.join(p.relative_to(ROOT).with_suffix('').parts)}": p for p in modules()
    }
    ahead = {name: {i for i, _ in imports(path)} & files.keys() for name, path in files.items()}
    while leaves := {name for name, others in ahead.items() if not others}:
        ahead = {name: others - leaves for name, others in ahead.items() if name not in leaves}
    assert not ahead, "these files, or some that they import, form a circle"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_nodes_know_ros_and_only_training_knows_torch(path):
    part = part_of(path)
    for name, line in imports(path):
        top = name.partition(".")[0]
        where = f"{path.relative_to(ROOT)}:{line} imports {top}"
        if top == "cv_bridge":  # asked for encodings of which we know nothing, where installed
            assert part in ("io", "nodes"), where
        elif top in ROS:
            assert part == "nodes", where
        if top in TRAINING:
            assert part == "training", where


@pytest.mark.parametrize(
    "statement, banned",
    [
        ("import face_recon_ros.core.pipeline", {"torch", "scipy", "matplotlib", "mediapipe"}),
        (
            "from face_recon_ros.cli.main import make_parser; make_parser()",
            {"torch", "scipy", "onnx"},
        ),
        (
            "from face_recon_ros.cli.main import make_parser; make_parser()",
            {"matplotlib", "rclpy"},
        ),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(statement, banned):
    code = f"import sys; {statement}; print(sorted({banned!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


MAX_FILE, MAX_FUNCTION = 450, 80


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE, "split it by what it is about"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION, f"{node.name}: {lines} lines"


def test_names_of_test_files_differ():
    """Pytest imports test files by their names."""
    names = [path.name for path in (ROOT.parent / "test").rglob("test_*.py")]
    assert names and len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
