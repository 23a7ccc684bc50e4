"""Sessions of ONNX Runtime: which provider, whose memory, and what is said when there is none."""

import sys

import numpy as np
import onnxruntime as ort
import pytest

from face_recon_ros.core import onnx_session
from face_recon_ros.core.errors import ConfigError, ModelError
from face_recon_ros.core.inference import find_network
from face_recon_ros.core.models import NETWORK, REFERENCE_NETWORK, find_model
from face_recon_ros.core.onnx_session import (
    OnnxSession,
    choose_providers,
    clashing_builds,
    gpu_works,
    runtime,
)
from face_recon_ros.core.onnx_writer import Graph

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def doubling():
    graph = Graph({"x": ("N", 2)}, {"y": ("N", 2), "z": ("N", 2)})
    graph.node("Add", "x", "x", output="y")
    graph.node("Neg", "x", output="z")
    return graph.serialised()


def test_a_gpu_build_without_a_gpu_runs_on_the_cpu_and_says_what_is_missing(gpu_build, capsys):
    assert not gpu_works()
    session = OnnxSession("doubling", content=doubling())
    (y,) = session.run(["y"], {"x": np.ones((1, 2), np.float32)})
    assert y.tolist() == [[2, 2]]
    assert (session.provider, session.wanted_provider) == (CPU, CUDA)
    assert "did not start without libcublas.so.13" in session.trouble
    assert "nvidia-smi" in session.trouble
    assert capsys.readouterr().out == ""  # what preload_dlls prints would spoil our output


def test_a_gpu_that_was_asked_for_by_name_and_does_not_start_is_refused(gpu_build):
    with pytest.raises(ConfigError, match="nvidia-smi"):
        OnnxSession("doubling", provider="cuda", content=doubling())


def test_a_gpu_that_works(gpu_build):
    assert find_network("auto") == find_model(NETWORK)
    gpu_build.works = True
    gpu_works.cache_clear()
    assert gpu_works()
    assert find_network("auto") == find_model(REFERENCE_NETWORK)
    assert find_network("auto", "cpu") == find_model(NETWORK)
    assert find_network(NETWORK) == find_model(NETWORK)
    assert not gpu_works("cpu")
    session = OnnxSession("doubling", content=doubling())
    assert (session.provider, session.trouble) == (CUDA, "")
    assert gpu_build.settings is None
    OnnxSession("doubling", content=doubling(), exact=True)
    assert gpu_build.settings == [{"use_tf32": 0}, {}]


def test_auto_leaves_tensorrt_out(gpu_build):
    assert choose_providers() == [CUDA, CPU]
    assert choose_providers("tensorrt") == ["TensorrtExecutionProvider"]


def test_the_cpu_build_has_no_cuda():
    if CUDA in ort.get_available_providers():
        pytest.skip("this is the GPU's build")
    with pytest.raises(ConfigError, match="group `gpu`"):
        choose_providers("cuda")
    assert not gpu_works()
    assert OnnxSession("doubling", content=doubling()).trouble == ""


@pytest.mark.parametrize("sizes", [[1, 1, 1], [1, 3, 1], [2, 0, 2]])
def test_bound_memory_gives_the_same_answers_when_shapes_change(sizes):
    plain = OnnxSession("doubling", content=doubling())
    bound = OnnxSession("doubling", content=doubling(), device="cpu")
    for k, n in enumerate(sizes):
        x = np.arange(2 * n, dtype=np.float32).reshape(n, 2) + k
        ours = bound.run(["y", "z"], {"x": x})
        for a, b in zip(ours, plain.run(["y", "z"], {"x": x}), strict=True):
            np.testing.assert_array_equal(a, b)
    assert set(bound.held) == {"x"}


def test_answers_stay_when_the_next_image_comes():
    bound = OnnxSession("doubling", content=doubling(), device="cpu")
    first = bound.run(["y"], {"x": np.ones((1, 2), np.float32)})[0]
    bound.run(["y"], {"x": np.full((1, 2), 5, np.float32)})
    assert first.tolist() == [[2, 2]]


def test_a_gpu_that_is_lost_is_told(gpu_build):
    gpu_build.works = True
    # There is no such device here: binding fails.
    session = OnnxSession("doubling", content=doubling(), device="cuda")
    (y,) = session.run(["y"], {"x": np.ones((1, 2), np.float32)})
    assert y.tolist() == [[2, 2]]
    assert session.provider == CPU
    assert session.trouble.startswith(f"{CUDA} was lost: ")
    assert session.trouble in onnx_session.runtime_warnings()
    session.run(["y"], {"x": np.ones((1, 2), np.float32)})
    assert gpu_build.opened[-1] == [CPU]


def test_two_builds_at_once_are_told_with_the_remedy(monkeypatch):
    versions = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}

    def version(name):
        if name not in versions:
            raise onnx_session.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(onnx_session.importlib.metadata, "version", version)
    clashing_builds.cache_clear()
    told = clashing_builds()
    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed" in told
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in told
    for name in list(versions):
        one = versions.pop(name)
        clashing_builds.cache_clear()
        assert clashing_builds() == ""
        versions[name] = one
    versions.clear()
    clashing_builds.cache_clear()
    assert clashing_builds() == ""
    clashing_builds.cache_clear()


def test_without_onnx_runtime_both_groups_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    runtime.cache_clear()
    with pytest.raises(ConfigError, match=r"\[cpu\].*\[gpu\]"):
        runtime()
    runtime.cache_clear()


def test_content_that_is_no_network_is_refused():
    with pytest.raises(ModelError, match="nothing"):
        OnnxSession("nothing", content=b"\x00")
