#!/usr/bin/env bash
# Runs a command in the workspace of the image.
set -e
# shellcheck disable=SC1091
source /workspace/install/setup.bash
exec "$@"
