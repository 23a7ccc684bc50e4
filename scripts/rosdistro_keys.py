#!/usr/bin/env python3
"""Records what rosdep and rosdistro say of the keys of package.xml, from a clone of ros/rosdistro.

    scripts/rosdistro_keys.py PATH_TO_THE_CLONE

Of each distribution that we promise: the version of every ROS package, or none where it was not
released; of every other key: what rosdep installs on the distribution's Ubuntu. The tests compare
package.xml with the record, requirements/rosdistro.json, so that they need no network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "requirements" / "rosdistro.json"
#: distribution -> code name of its Ubuntu
DISTRIBUTIONS = {"humble": "jammy", "jazzy": "noble", "kilted": "noble", "lyrical": "resolute"}
#: Not in package.xml, but spoken of in docs/install.md.
BESIDES = (
    "hri_msgs",
    "python3-onnxruntime-gpu-pip",
    "python3-venv",
    "rmw_cyclonedds_cpp",
    "rmw_zenoh_cpp",
)


def keys() -> list[str]:
    """Every key that package.xml depends on, and those besides."""
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    return sorted({e.text for e in root if e.tag.endswith("depend") and e.text} | {*BESIDES})


def released(clone: Path, distribution: str) -> dict[str, str]:
    """ROS package -> version, of one distribution."""
    content = _yaml(clone, f"{distribution}/distribution.yaml")
    versions = {}
    for name, repository in content["repositories"].items():
        release = repository.get("release", {})
        if release.get("version"):
            versions.update(dict.fromkeys(release.get("packages", [name]), release["version"]))
    return versions


def rule(rules: dict[str, Any], key: str, code_name: str) -> str | None:
    """What rosdep installs for a key on an Ubuntu, in a few words; None: nothing."""
    found = rules.get(key, {}).get("ubuntu")
    if isinstance(found, dict) and "pip" not in found:
        found = found.get(code_name, found.get("*"))
    if isinstance(found, dict):
        return "pip " + " ".join(found["pip"]["packages"])
    return "apt " + " ".join(found) if found else None


def _yaml(clone: Path, path: str) -> Any:
    done = subprocess.run(
        ["git", "-C", str(clone), "show", f"HEAD:{path}"], capture_output=True, check=True
    )
    return yaml.load(done.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def main() -> None:
    """Writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clone", type=Path, help="of https://github.com/ros/rosdistro")
    clone = parser.parse_args().clone
    rules = {**_yaml(clone, "rosdep/base.yaml"), **_yaml(clone, "rosdep/python.yaml")}
    answers: dict[str, dict[str, str | None]] = {}
    for distribution, code_name in DISTRIBUTIONS.items():
        versions = released(clone, distribution)
        answers[distribution] = {
            key: f"ros {versions[key]}" if key in versions else rule(rules, key, code_name)
            for key in keys()
        }
    stamp = subprocess.run(
        ["git", "-C", str(clone), "log", "-1", "--format=%H %cs"], capture_output=True, text=True
    )
    commit, date = stamp.stdout.split()
    content = {"repository": "ros/rosdistro", "commit": commit, "date": date, "keys": answers}
    RECORD.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
