"""Launch files read without ROS's `launch`: their description, made of stand-ins."""

import importlib.util
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Recorded:
    """Stands for a launch class: keeps what it was made of."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


def describe(name, monkeypatch):
    """What generate_launch_description of NAME.launch.py returns, launch being stand-ins."""
    names = {
        "ament_index_python.packages": {"get_package_share_directory": lambda name: str(ROOT)},
        "launch": {"LaunchDescription": list},
        "launch.actions": {
            "DeclareLaunchArgument": type("Argument", (Recorded,), {}),
            "SetEnvironmentVariable": type("SetVariable", (Recorded,), {}),
        },
        "launch.conditions": {
            "IfCondition": type("If", (Recorded,), {}),
            "UnlessCondition": type("Unless", (Recorded,), {}),
        },
        "launch.substitutions": {
            "EnvironmentVariable": type("Variable", (Recorded,), {}),
            "LaunchConfiguration": type("Configuration", (Recorded,), {}),
        },
        "launch_ros": {},
        "launch_ros.actions": {"Node": type("Node", (Recorded,), {})},
        "launch_ros.parameter_descriptions": {"ParameterValue": type("Value", (Recorded,), {})},
    }
    return load(name, names, monkeypatch)


def load(name, modules, monkeypatch):
    """The description of NAME.launch.py, which imports these modules: name -> its content."""
    for module_name, content in modules.items():
        module = types.ModuleType(module_name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module_name, module)
    path = ROOT / "launch" / f"{name}.launch.py"
    spec = importlib.util.spec_from_file_location(f"{name}_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def of_kind(description, kind):
    return [item for item in description if type(item).__name__ == kind]
