#!/usr/bin/env bash
# Renews constraints.txt: every version, direct or not, for Python 3.10 to 3.14. Needs `pip install uv`.
set -euo pipefail
cd "$(dirname "$0")"
{
    echo "# Pinned versions of everything in requirements/*.txt, made by lock.sh. Use: pip install -r runtime.txt -c constraints.txt"
    uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate "$@" \
        runtime.txt cpu.txt gpu.txt cluster.txt ros.txt test.txt train.txt view.txt |
        sed -E '/^(torch==|nvidia-|cuda-|triton)/d' # torch: pinned in train.txt, one build per accelerator
} >constraints.new
mv constraints.new constraints.txt
