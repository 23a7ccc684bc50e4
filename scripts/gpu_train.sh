#!/usr/bin/env bash
# The dense-point network on a GPU, in one command: tests the device, trains, exports, evaluates.
#
#   scripts/gpu_train.sh MINUTES OUT [KEY=VALUE ...]
#
# MINUTES are of training; tests, export and evaluation take a few more. OUT gets a sheet of
# examples, the log, the exported networks and shape.json; the checkpoint goes to RUN. KEY=VALUE are options of
# `face-recon train --points` over config/train_points_gpu.yaml. No installation and no ROS:
# Python with torch, numba, onnx, onnxruntime, opencv, scipy and tqdm is enough. Environment:
#   PYTHON       interpreter (python3)
#   RUN          folder of the run (OUT/run); a second call goes on from its checkpoint
#   SKINS        folder of MakeHuman's system assets; none: the face model's own skin
#   PHOTOGRAPHS  folder of photographs, pieces of which are backgrounds; none: procedural ones
#   EVALUATE     options of `face-recon evaluate shape`, such as "--people 10 --heads 0"
set -euo pipefail
if (($# < 2)); then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 2
fi
minutes=$1 out=$(realpath -m "$2")
shift 2
for name in RUN SKINS PHOTOGRAPHS; do # paths are the caller's
    if [ -n "${!name:-}" ]; then printf -v "$name" %s "$(realpath -m "${!name}")"; fi
done
cd "$(dirname "$0")/.."
read -ra evaluate <<<"${EVALUATE:-}"
python=${PYTHON:-python3} run=${RUN:-$out/run}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
mkdir -p "$out"

options=(--set "minutes=$minutes")
for option in "$@"; do options+=(--set "$option"); done
if [ -n "${SKINS:-}" ]; then options+=(--set "skins=$SKINS"); fi
if [ -n "${PHOTOGRAPHS:-}" ]; then options+=(--photographs "$PHOTOGRAPHS"); fi
if [ -f "$run/checkpoint.pt" ]; then options+=(--resume); fi

tests=(test/training/test_batched_rasterizer.py test/training/test_torch_synthesis.py)
"$python" -m pytest -q "${tests[@]}" >"$out/tests.log" 2>&1 ||
    echo "this device renders otherwise than the CPU: see $out/tests.log" >&2
tail -n 1 "$out/tests.log"
"$python" scripts/point_examples.py --device cuda --sheet "$out/examples.png" \
    people=64 batch_size=512 ${SKINS:+"skins=$SKINS"} "$@" >"$out/examples.json"
"$python" -m face_recon_ros train --points --config config/train_points_gpu.yaml --out "$run" "${options[@]}"
cp "$run/log.jsonl" "$out/log.jsonl"
for precision in float32 int8; do
    "$python" -m face_recon_ros export "$run/checkpoint.pt" --precision "$precision" \
        --out "$out/face_points_$precision.onnx"
done
"$python" -m face_recon_ros evaluate shape --provider cpu --points "$out/face_points_float32.onnx" \
    --out "$out/shape.json" "${evaluate[@]}"
