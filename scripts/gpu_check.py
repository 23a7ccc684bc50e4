#!/usr/bin/env python3
"""Measures on this machine what a GPU brings: latency, parity with the CPU, and what is at work.

    scripts/gpu_check.py [--out gpu.json]

Needs the installation with the group `gpu` (docs/install.md); takes less than five minutes. For
each provider that starts: the bare networks and the whole reconstruction (crop, network, decoder)
for 1 and 8 faces, the decoder as a graph and in numpy, and how far vertices and colours lie from
those of the CPU. Without a GPU it measures the CPU and says what is missing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.decoder_graph import GRAPH, NUMPY, GraphDecoder, decode_seconds
from face_recon_ros.core.models import NETWORK, REFERENCE_NETWORK
from face_recon_ros.core.onnx_session import OnnxSession, clashing_builds, gpu_works, runtime
from face_recon_ros.core.pattern import TurningHead
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.types import Track

FACES = (1, 8)
PARITY_MM = 0.01


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--rounds", type=int, default=50, help="of each figure (default: 50)")
    options = parser.parse_args()
    works = gpu_works()
    result: dict[str, Any] = {
        "onnxruntime": runtime().__version__,
        "providers_of_this_build": runtime().get_available_providers(),
        "gpu": gpu_name(),
        "gpu_works": works,
        "warning": clashing_builds() or trouble(),
        "parity_mm": None,
    }
    for provider in ["cpu", *(["cuda"] if works else [])]:
        result[provider] = measure(provider, options.rounds)
    if works:
        result["parity_mm"] = parity_mm()
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    if not works:
        print(f"gpu_check: no GPU is at work: {result['warning'] or 'CPU build'}", file=sys.stderr)
        return 1
    return 0 if result["parity_mm"] < PARITY_MM else 2


def gpu_name() -> str:
    """As nvidia-smi says it, with the driver; empty without."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def trouble() -> str:
    """Why the best provider of this build is not at work; empty where it is."""
    return decoder("auto").session.trouble


def decoder(provider: str) -> GraphDecoder:
    """The decoder of the shipped face model, as a graph."""
    return GraphDecoder(reconstructor("cpu", NETWORK, NUMPY).model, provider=provider)


def reconstructor(provider: str, network: str, decoding: str) -> FaceReconstructor:
    """The shipped models on a provider."""
    config = ReconstructorConfig(network=network, provider=provider, decoder=decoding)
    return FaceReconstructor.from_config(replace(config, threads=0))


def measure(provider: str, rounds: int) -> dict[str, Any]:
    """Milliseconds, p50 and p95, of everything on one provider."""
    image = TurningHead(640, 480).render(0.0)
    camera = PinholeCamera.from_fov(640, 480)
    out: dict[str, Any] = {}
    for network in (NETWORK, REFERENCE_NETWORK):
        whole = reconstructor(provider, network, NUMPY if provider == "cpu" else GRAPH)
        figures: dict[str, Any] = {"provider": whole.network.provider, "decoder": whole.decoder}
        for n in FACES:
            tracks = [
                Track(f"face{k}", np.array([220.0, 120, 420, 360], np.float32), 1.0, 0.0)
                for k in range(n)
            ]
            crops = whole.crops(tracks)
            pixels = whole.extract(image, crops)
            session: OnnxSession = whole.network.session
            names = [name for name in session.shapes if name != "image"]

            def bare(s=session, names=names, pixels=pixels) -> None:
                s.run(names, {"image": pixels})

            def all_of_it(w=whole, tracks=tracks, crops=crops) -> None:
                answer = w.predict(w.extract(image, crops))
                w.decode(tracks, crops, answer, camera)

            figures[f"{n} faces, bare network"] = milliseconds(bare, rounds)
            figures[f"{n} faces, crop to mesh"] = milliseconds(all_of_it, rounds)
        out[network] = figures
    graph = decoder(provider)
    model = reconstructor("cpu", NETWORK, NUMPY).model
    for n in FACES:
        with_graph, in_numpy = decode_seconds(model, graph, n, rounds)
        out[f"decoder, {n} faces"] = {
            "graph_ms": round(1e3 * with_graph, 3),
            "numpy_ms": round(1e3 * in_numpy, 3),
        }
    out["decoder_provider"] = graph.session.provider
    return out


def milliseconds(work: Callable[[], None], rounds: int) -> dict[str, float]:
    """Of some rounds, after a few that do not count."""
    for _ in range(min(5, rounds)):
        work()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - start))
    p50, p95 = np.percentile(taken, [50, 95])
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3)}


def parity_mm() -> float:
    """Largest distance of a vertex decoded on the GPU from the same on the CPU, millimetres."""
    rng = np.random.default_rng(0)
    model = reconstructor("cpu", NETWORK, NUMPY).model
    largest = 0.0
    gpu = GraphDecoder(model, provider="cuda")
    for _ in range(20):
        identity = rng.standard_normal((4, model.k_identity)).astype(np.float32)
        expression = rng.random((4, model.k_expression)).astype(np.float32)
        albedo = rng.standard_normal((4, model.k_albedo)).astype(np.float32)
        poses = [camera_pose() for _ in range(4)]
        light = rng.standard_normal((4, 9, 3)).astype(np.float32)
        vertices, _, _ = gpu(identity, expression, albedo, poses, light)
        for k in range(4):
            exact = model.vertices(identity[k], expression[k])
            largest = max(largest, 1e3 * float(np.abs(vertices[k] - exact).max()))
    return largest


def camera_pose() -> Any:
    """A head that looks into the camera from a metre away."""
    from face_recon_ros.core.crop_pose import crop_from_face

    return crop_from_face(np.zeros(3), np.array([0.0, 0.0, 1.0]))


if __name__ == "__main__":
    sys.exit(main())
