#!/usr/bin/env bash
# Sets everything up (scripts/setup_env.sh) and runs the whole test suite: style, types, then pytest.
# Usage: scripts/test.sh [pytest arguments]; with arguments only pytest runs, without coverage, e.g. scripts/test.sh test/ros -k image
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,3s/^# //p' "$0"; exit ;; esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mapfile -t interfaces < <(cd "$root/scripts/interfaces" && ls -d ./*/ | sed "s#[./]##g") # also those the demo does not need
"$root/scripts/setup_env.sh" test view "${interfaces[@]}"
# One test asks a Fast DDS with DDS Security, which the wheels lack; without it, that test is skipped.
if [ ! -e /usr/include/fastrtps ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends libfastrtps-dev >/dev/null 2>&1 || true
fi
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME
cd "$root"
python=${FACE_RECON_VENV:-$root/.venv}/bin/python
if [ $# -eq 0 ]; then
    "$python" -m ruff format --check --quiet .
    "$python" -m ruff check --quiet .
    "$python" -m mypy
    core=$("$python" -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')
    export COVERAGE_CORE=$core # how lines are counted: sysmon costs next to nothing
    # A process more than there are cores, a file in one of them: while one waits for nodes, the others compute.
    processes=$(($(nproc) + 1))
    [ "$processes" -le 4 ] || processes=4
    set -- --cov -n "$processes" --dist loadfile --no-loadscope-reorder # coverage of core; fails under 90 % (pyproject.toml)
fi
exec "$python" -m pytest "$@"
