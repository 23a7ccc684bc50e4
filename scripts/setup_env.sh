#!/usr/bin/env bash
# Makes everything the demo and the tests need, on a bare Debian or Ubuntu machine: system libraries (apt),
# .venv with pinned packages, ROS 2 (an apt installation that is sourced, else wheels), the interface packages
# that the wheels lack, and this package itself. A second run only checks, in well under three seconds.
#
# Usage: scripts/setup_env.sh [cpu | gpu] [test] [train] [view] [cluster] [hri_msgs ...]
#        cpu or gpu: which build of ONNX Runtime (default: the installed one, else cpu); extra groups of requirements/,
#        extra packages of scripts/interfaces/
# Environment: FACE_RECON_VENV  where the environment goes (default: .venv in the checkout)
#              PYTHON           the interpreter to make it with (3.10 to 3.14)
set -euo pipefail
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME # of whatever environment is active

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${FACE_RECON_VENV:-$root/.venv}
stamps=$venv/.face_recon
bin=$venv/bin/python

say() { printf '[setup %3ds] %s\n' "$SECONDS" "$*" >&2; }
die() { printf 'setup failed: %s\n' "$*" >&2; exit 1; }

# --- what there is ------------------------------------------------------------------------------------------
choose_python() {
    local candidate version
    for candidate in ${PYTHON:-python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in 3.1[0-4]) command -v "$candidate"; return ;; esac
    done
    die "expected Python 3.10 to 3.14, got ${version:-none}; install one (apt-get install python3) or set PYTHON to its path"
}

describe_python() { # one start of the interpreter for all we want to know of it
    "$python" - <<'EOF'
import importlib.util, os, sys, sysconfig

def answer(yes):
    return "yes" if yes else "no"

headers = os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h"))
venv = all(importlib.util.find_spec(name) for name in ("ensurepip", "venv"))
print("%d.%d" % sys.version_info[:2], answer(venv), answer(headers), *sys.version.split())
EOF
}

ros_from_apt() { [ -n "${ROS_DISTRO:-}" ] && "$python" -c 'import rclpy' 2>/dev/null; }

check_wheels_fit() { # the ROS wheels are manylinux_2_28, x86_64
    local libc
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
        die "expected Linux on x86_64 for the ROS 2 wheels, got $(uname -s) on $(uname -m); install ROS 2 from apt and source its setup.bash first (docs/install.md)"
    libc=$(ldd --version 2>&1 | sed -nE '1s/.* ([0-9]+\.[0-9]+)$/\1/p')
    [ "$(printf '%s\n' 2.28 "$libc" | sort -V | head -1)" = 2.28 ] ||
        die "expected glibc 2.28 or newer for the ROS 2 wheels, got ${libc:-another C library}; use Debian 10, Ubuntu 20.04 or newer"
}

# --- system packages ----------------------------------------------------------------------------------------
missing_apt_packages() {
    local libraries pair
    libraries=$(/sbin/ldconfig -p)
    for pair in libGL.so.1:libgl1 libEGL.so.1:libegl1 libGLESv2.so.2:libgles2 libgthread-2.0.so.0:libglib2.0-0; do
        grep -q "${pair%%:*} " <<<"$libraries" || echo "${pair##*:}"
    done
    [ "$has_venv" = yes ] || echo "python$version-venv"
    if [ "$ros" = wheels ]; then
        command -v c++ >/dev/null || echo g++
        [ "$has_headers" = yes ] || echo "libpython$version-dev"
    else
        local package
        for package in vision_msgs tf2_msgs visualization_msgs shape_msgs diagnostic_msgs; do
            "$python" -c "import $package" 2>/dev/null || echo "ros-$ROS_DISTRO-${package//_/-}"
        done
    fi
}

install_apt_packages() {
    local packages sudo=() log=$stamps/apt.log
    mapfile -t packages < <(missing_apt_packages)
    [ ${#packages[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "expected the system packages ${packages[*]} (Debian names), got a system without apt; install their equivalents"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null ||
            die "expected the system packages ${packages[*]}; ask root to run: apt-get install ${packages[*]}"
        sudo=(sudo)
        [ -t 0 ] || sudo=(sudo -n)
    fi
    say "system packages: ${packages[*]}"
    # A failing update (one unreachable mirror) does not matter if the install then succeeds.
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q >"$log" 2>&1 || true
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${packages[@]}" \
        </dev/null >>"$log" 2>&1 || { tail -n 15 "$log" >&2; die "apt-get install ${packages[*]} (log: $log)"; }
}

# --- steps that run again only when what they depend on has changed -------------------------------------------
once() { # once NAME "what it does" "FILES it depends on" COMMAND...
    local name=$1 what=$2 files=$3 key
    shift 3
    # shellcheck disable=SC2086
    key=$( (cd "$root" && cat $files 2>/dev/null; echo "$build $root $ros $*") | sha256sum)
    [ "$(cat "$stamps/$name" 2>/dev/null)" = "$key" ] && return
    say "$what"
    "$@" >"$stamps/$name.log" 2>&1 || { tail -n 25 "$stamps/$name.log" >&2; die "$what (log: $stamps/$name.log)"; }
    echo "$key" >"$stamps/$name"
}

make_venv() {
    rm -rf "$venv/bin" "$venv/lib" "$venv/lib64" "$venv/share" "$venv/include" "$venv/pyvenv.cfg"
    find "$stamps" -type f ! -name venv.log ! -name lock -delete # nothing is installed any more
    "$python" -m venv "$venv"
}

# The two builds of ONNX Runtime share their files: the other one goes, and this one comes whole.
install_runtime() { # install_runtime cpu|gpu
    "$bin" -m pip --disable-pip-version-check uninstall -qy onnxruntime onnxruntime-gpu
    pip_install -r "$1.txt" -c "$constraints"
    rm -f "$stamps/pip-cpu" "$stamps/pip-gpu"
}

pip_install() { "$bin" -m pip --disable-pip-version-check install --progress-bar off "$@"; }

install_package() {
    pip_install --no-deps --no-build-isolation --editable "$root"
    # What an ament prefix has beside Python code; linked, as `colcon build --symlink-install` does.
    local share=$venv/share name=face_recon_ros item
    mkdir -p "$share/$name" "$share/ament_index/resource_index/packages"
    touch "$share/ament_index/resource_index/packages/$name"
    for item in package.xml launch config models urdf; do ln -sfn "$root/$item" "$share/$name/$item"; done
}

# --- all of it ----------------------------------------------------------------------------------------------
python=$(choose_python) || exit 1
read -r version has_venv has_headers build < <(describe_python)
ros=wheels
if ros_from_apt; then ros=apt-$ROS_DISTRO; else check_wheels_fit; fi

[ ! -e "$venv/pyvenv.cfg" ] || [ -d "$stamps" ] ||
    die "expected $venv to be made by this script, got an environment of yours; move it away or set FACE_RECON_VENV"
mkdir -p "$stamps"
exec 9>"$stamps/lock"
flock 9 # one set-up at a time

cd "$root/requirements"
install_apt_packages
once venv "Python environment in $venv ($("$python" -V), ROS 2 from ${ros%%-*})" "" make_venv
if [ "$ros" = wheels ]; then
    constraints=constraints.txt
    requirements="runtime.txt ros.txt"
else
    constraints=constraints-$ROS_DISTRO.txt
    [ -f "$constraints" ] ||
        die "expected ROS 2 humble, jazzy, kilted or lyrical, got $ROS_DISTRO; source one of these, or none to take the wheels"
    requirements="runtime.txt"
fi
hardware=cpu
[ ! -f "$stamps/pip-gpu" ] || hardware=gpu
interfaces="tf2_msgs vision_msgs"
for extra in "$@"; do
    if [ "$extra" = cpu ] || [ "$extra" = gpu ]; then
        hardware=$extra
    elif [ -f "$extra.txt" ]; then
        requirements="$requirements $extra.txt"
    elif [ -d "../scripts/interfaces/$extra" ]; then
        interfaces="$interfaces $extra"
    else
        die "expected cpu, gpu, test, train, view, cluster or a package of scripts/interfaces, got '$extra'"
    fi
done
# shellcheck disable=SC2086
for file in $requirements; do
    once "pip-${file%.txt}" "packages of requirements/$file" "requirements/$file requirements/$constraints" \
        pip_install -r "$file" -c "$constraints"
done
once "pip-$hardware" "ONNX Runtime for the $hardware" "requirements/$hardware.txt requirements/$constraints" install_runtime "$hardware"
if [ "$ros" = wheels ]; then
    for package in $interfaces; do
        once "interface-$package" "interface package $package, which the wheels lack" \
            "scripts/build_interfaces.py scripts/interfaces/$package/*/* requirements/ros.txt requirements/constraints.txt" \
            "$bin" "$root/scripts/build_interfaces.py" "$package"
    done
fi
once package "face_recon_ros itself" "setup.py setup.cfg pyproject.toml" install_package
[ "$SECONDS" -lt 3 ] || say "ready"
