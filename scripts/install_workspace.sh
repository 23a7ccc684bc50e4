#!/usr/bin/env bash
# Installs the package on a machine that has ROS 2 from apt (humble, jazzy, kilted or lyrical) and builds it.
# The checkout lies in WORKSPACE/src; the virtual environment goes to WORKSPACE/venv. Every command is printed first.
#
# Usage: scripts/install_workspace.sh [--gpu] [--dry-run] [WORKSPACE]
#        --gpu       ONNX Runtime with CUDA and cuDNN in place of the CPU's
#        --dry-run   only print the commands
# Environment: ROS_DISTRO, as /opt/ros/DISTRO/setup.bash sets it
set -euo pipefail

die() { printf 'installation failed: %s\n' "$*" >&2; exit 1; }

package=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
hardware=cpu
dry=no
workspace=
for argument in "$@"; do
    case $argument in
        --gpu) hardware=gpu ;;
        --dry-run) dry=yes ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit ;;
        -*) die "expected --gpu or --dry-run, got $argument" ;;
        *) workspace=$argument ;;
    esac
done
workspace=${workspace:-$(dirname "$(dirname "$package")")}

known="humble jazzy kilted lyrical"
[[ " $known " == *" ${ROS_DISTRO:-none} "* ]] ||
    die "expected ROS_DISTRO to be one of $known, got ${ROS_DISTRO:-nothing}; source /opt/ros/DISTRO/setup.bash first"
constraints=$package/requirements/constraints-$ROS_DISTRO.txt
python=$workspace/venv/bin/python

run() {
    printf '%q ' "$@" | sed 's/ $//'
    printf '\n'
    if [ "$dry" = no ]; then "$@"; fi
}

sudo=()
if [ "$(id -u)" != 0 ] || [ "$dry" = yes ]; then sudo=(sudo); fi
run "${sudo[@]}" apt-get update
run "${sudo[@]}" apt-get install -y --no-install-recommends python3-venv python3-rosdep python3-colcon-common-extensions \
    libgl1 libegl1 libgles2
[ "$dry" = no ] && [ -e /etc/ros/rosdep/sources.list.d/20-default.list ] || run "${sudo[@]}" rosdep init
run rosdep update --rosdistro "$ROS_DISTRO"
# What is pip-only in rosdep goes to the virtual environment below: rosdep would install it for the whole system,
# which PEP 668 forbids on Ubuntu 24.04 and newer, and without our constraints.
run env FACE_RECON_PIP_KEYS=no rosdep install --rosdistro "$ROS_DISTRO" --ignore-src -y --from-paths "$package"
run python3 -m venv --system-site-packages "$workspace/venv"
run touch "$workspace/venv/COLCON_IGNORE"
# The two builds of ONNX Runtime share their files, so that one goes before the other comes.
other=onnxruntime$([ "$hardware" = gpu ] || echo -gpu)
run "$python" -m pip uninstall -y "$other"
run "$python" -m pip install -c "$constraints" -r "$package/requirements/runtime.txt" -r "$package/requirements/$hardware.txt"
run cd "$workspace"
# colcon under the environment's Python: the nodes then start with it, and find what pip installed.
run "$python" -m colcon build --packages-select face_recon_ros
printf '# then, in every new terminal:\n. %q/install/setup.bash\nros2 launch face_recon_ros demo.launch.py source:=/dev/video0\n' "$workspace"
