#!/usr/bin/env python3
"""Builds the ROS interface packages that the ROS wheels lack into the running virtual environment.

The field lists lie in scripts/interfaces/PACKAGE/{msg,srv,action}/; the generators are ROS' own
(rosidl), called through CMake. A virtual environment with the wheels is a merged ament prefix, so
that is where the result goes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

INTERFACES = Path(__file__).resolve().parent / "interfaces"
PREFIX = Path(sys.prefix)

CMAKE_LISTS = """\
cmake_minimum_required(VERSION 3.20)
project({name})
foreach(package ament_cmake rosidl_cmake rosidl_generator_c rosidl_generator_cpp
        rosidl_typesupport_fastrtps_c rosidl_typesupport_c rosidl_generator_py {dependencies})
  find_package(${{package}} REQUIRED)
endforeach()
rosidl_generate_interfaces({name} {files} DEPENDENCIES {dependencies})
ament_package()
"""

PACKAGE_XML = """\
<package format="3">
  <name>{name}</name>
  <version>0.0.1</version>
  <description>{name}, as much of it as face_recon_ros needs</description>
  <maintainer email="nobody@example.org">face_recon_ros</maintainer>
  <license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
{depends}
  <member_of_group>rosidl_interface_packages</member_of_group>
</package>
"""


def main() -> None:
    """Builds the packages named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = sorted(p.name for p in INTERFACES.iterdir())
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", help=", ".join(known))
    packages = parser.parse_args().packages
    if unknown := sorted(set(packages) - set(known)):
        parser.error(f"expected packages of {known}, got {unknown}")
    if not (PREFIX / "share" / "geometry_msgs").is_dir():
        parser.error(f"expected the ROS wheels in {PREFIX}; run scripts/setup_env.sh")
    repair_wheels()
    with tempfile.TemporaryDirectory(prefix="face_recon_interfaces_") as scratch:
        for name in packages:
            build(name, Path(scratch) / name)


def repair_wheels() -> None:
    """Makes the wheels' CMake files name this interpreter's headers, not their build machine's."""
    import numpy as np

    headers = {"python": sysconfig.get_path("include"), "numpy": np.get_include()}
    for path in (PREFIX / "share").glob("*/cmake/*.cmake"):
        text = path.read_text()
        if "/opt/python/" not in text:
            continue
        text = re.sub(r"/opt/python/[^\";]*/numpy/[^\";]*include", headers["numpy"], text)
        text = re.sub(r"/opt/python/[^\";]*/include/python[0-9.]+", headers["python"], text)
        path.write_text(text)


def build(name: str, folder: Path) -> None:
    """Generates, compiles and installs one package.

    Args:
        name: the package, a folder of scripts/interfaces.
        folder: an empty place to work in.
    """
    source = folder / "source"
    shutil.copytree(INTERFACES / name, source)
    files = sorted(p.relative_to(source) for p in source.rglob("*.*"))
    text = "\n".join((source / f).read_text() for f in files)
    dependencies = sorted({m for m in re.findall(r"^(\w+)/", text, re.M) if m != name})
    joined = " ".join(dependencies)
    lists = CMAKE_LISTS.format(name=name, files=" ".join(map(str, files)), dependencies=joined)
    (source / "CMakeLists.txt").write_text(lists)
    depends = "\n".join(f"  <depend>{d}</depend>" for d in dependencies)
    (source / "package.xml").write_text(PACKAGE_XML.format(name=name, depends=depends))

    environment = {
        **os.environ,
        "AMENT_PREFIX_PATH": str(PREFIX),
        "CMAKE_PREFIX_PATH": str(PREFIX),
    }
    environment["PATH"] = os.pathsep.join([str(PREFIX / "bin"), os.environ["PATH"]])
    options = {
        "CMAKE_INSTALL_PREFIX": PREFIX,
        "CMAKE_BUILD_TYPE": "Release",
        "BUILD_TESTING": "OFF",
        "Python3_EXECUTABLE": sys.executable,
        "PYTHON_INSTALL_DIR": Path(sysconfig.get_path("purelib")).relative_to(PREFIX),
    }
    defines = [f"-D{key}={value}" for key, value in options.items()]
    target = str(folder / "build")
    for command in (
        ["cmake", "-S", str(source), "-B", target, "-G", "Ninja", *defines],
        ["cmake", "--build", target, "--parallel", str(os.cpu_count() or 1)],
        ["cmake", "--install", target],
    ):
        subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
