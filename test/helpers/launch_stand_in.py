"""Executes launch descriptions where ROS's `launch` is not installed, as far as ours need it.

The names our launch files import are defined here; `run` turns each action into what launch_ros
would start: the node's executable with `--ros-args`, its remapped name, namespace and topics, its
parameter files and values, under the environment that the description sets.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from launch_description import ROOT, load


class LaunchConfiguration:
    def __init__(self, name):
        self.name = name

    def value(self, scope):
        return scope["arguments"][self.name]


class EnvironmentVariable:
    def __init__(self, name, *, default_value=""):
        self.name, self.default = name, default_value

    def value(self, scope):
        return scope["environment"].get(self.name, self.default)


class ParameterValue:
    def __init__(self, substitution, *, value_type):
        self.substitution, self.kind = substitution, value_type

    def value(self, scope):
        text = value_of(self.substitution, scope)
        return yaml.safe_load(text) if self.kind is bool else self.kind(text)


class IfCondition:
    expected = True

    def __init__(self, substitution):
        self.substitution = substitution

    def holds(self, scope):
        return (value_of(self.substitution, scope).lower() in ("true", "1")) == self.expected


class UnlessCondition(IfCondition):
    expected = False


class DeclareLaunchArgument:
    def __init__(self, name, *, default_value=None, description=""):
        self.name, self.default = name, default_value

    def act(self, scope):
        scope["arguments"].setdefault(self.name, self.default)


class SetEnvironmentVariable:
    def __init__(self, name, value):
        self.name, self.new = name, value

    def act(self, scope):
        scope["environment"][self.name] = value_of(self.new, scope)


class Node:
    def __init__(self, *, package, executable, condition=None, **options):
        self.package, self.executable = package, executable
        self.condition, self.options = condition, options

    def act(self, scope):
        if self.condition is not None and not self.condition.holds(scope):
            return
        if self.package != "face_recon_ros":
            scope["elsewhere"].append(self.package)
            return
        command = [sys.executable, "-m", module_of(self.executable), "--ros-args"]
        if "name" in self.options:
            command += ["-r", f"__node:={self.options['name']}"]
        if "namespace" in self.options:
            command += ["-r", f"__ns:=/{self.options['namespace']}"]
        for topic, target in self.options.get("remappings", []):
            command += ["-r", f"{topic}:={value_of(target, scope)}"]
        for given in self.options.get("parameters", []):
            if isinstance(given, dict):
                values = {name: value_of(v, scope) for name, v in given.items()}
                file = Path(scope["folder"]) / f"parameters_{len(list(scope['folder'].iterdir()))}"
                file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
                command += ["--params-file", str(file)]
            else:
                command += ["--params-file", value_of(given, scope)]
        scope["commands"].append(command)


def value_of(thing, scope):
    return thing.value(scope) if hasattr(thing, "value") else thing


def module_of(executable):
    setup = (ROOT / "setup.py").read_text()
    return re.search(rf'"{executable} = ([\w.]+):main"', setup).group(1)


def description_of(name, monkeypatch):
    here = sys.modules[__name__]
    content = {
        "ament_index_python.packages": {"get_package_share_directory": lambda _: str(ROOT)},
        "launch": {"LaunchDescription": list},
        "launch.actions": ("DeclareLaunchArgument", "SetEnvironmentVariable"),
        "launch.conditions": ("IfCondition", "UnlessCondition"),
        "launch.substitutions": ("EnvironmentVariable", "LaunchConfiguration"),
        "launch_ros": {},
        "launch_ros.actions": ("Node",),
        "launch_ros.parameter_descriptions": ("ParameterValue",),
    }
    modules = {
        module: names if isinstance(names, dict) else {n: getattr(here, n) for n in names}
        for module, names in content.items()
    }
    return load(name, modules, monkeypatch)


@contextlib.contextmanager
def run(name, arguments, environment, monkeypatch):
    """Starts what `ros2 launch face_recon_ros NAME.launch.py ARGUMENTS` would.

    Yields the processes, each with its output as text, and the packages whose nodes are not ours.
    """
    with tempfile.TemporaryDirectory() as folder:
        scope = {
            "arguments": dict(arguments),
            "environment": dict(environment),
            "commands": [],
            "elsewhere": [],
            "folder": Path(folder),
        }
        for action in description_of(name, monkeypatch):
            action.act(scope)
        processes = [
            subprocess.Popen(
                command,
                env={**os.environ, **scope["environment"]},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for command in scope["commands"]
        ]
        try:
            yield processes, scope
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=20)
                process.kill()
                process.wait()
