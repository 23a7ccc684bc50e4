#!/usr/bin/env bash
# One command from a fresh machine to meshes: sets everything up, starts the real nodes on real DDS, records.
# `scripts/demo.sh --help` tells the options.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
groups=()
for argument in "$@"; do
    case $argument in
        --view | --view=*) groups+=(view) ;;
        -h | --help) exec python3 "$root/scripts/demo.py" --help ;;
    esac
done
"$root/scripts/setup_env.sh" "${groups[@]}"
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME
exec "${FACE_RECON_VENV:-$root/.venv}/bin/python" "$root/scripts/demo.py" "$@"
