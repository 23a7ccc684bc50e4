"""What tests of the core share."""

import math
import sys
import types

import onnxruntime as ort
import pytest

from face_recon_ros.core import onnx_session
from face_recon_ros.core.onnx_session import gpu_works, runtime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def gpu_build(monkeypatch):
    """The GPU's build of ONNX Runtime.

    `works`: there is a GPU, which computes on the CPU; it is lost after `runs` runs. `broken`: no
    session runs.
    """
    state = types.SimpleNamespace(
        works=False, runs=math.inf, broken=False, settings=None, opened=[]
    )

    class Session:
        def __init__(self, model, options, providers, settings=None):
            self.real = ort.InferenceSession(model, options, providers=[CPU])
            self.providers = providers if state.works else [CPU]
            state.settings = settings
            state.opened.append(providers)

        def get_providers(self):
            return self.providers

        def run(self, names, feed):
            state.runs -= CUDA in self.providers
            if state.broken or (CUDA in self.providers and state.runs < 0):
                raise RuntimeError("CUDA failure 999")
            return self.real.run(names, feed)

        def __getattr__(self, name):
            return getattr(self.real, name)

    module = types.SimpleNamespace(
        **{
            name: getattr(ort, name)
            for name in ("SessionOptions", "OrtValue", "set_default_logger_severity")
        },
        InferenceSession=Session,
        get_available_providers=lambda: ["TensorrtExecutionProvider", CUDA, CPU],
        get_device=lambda: "CPU",
        preload_dlls=lambda: print("Failed to load libcublas.so.13: no such file\nPlease follow"),
    )
    monkeypatch.setattr(onnx_session, "_missing_libraries", [])
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    for cached in (runtime, gpu_works):
        cached.cache_clear()
    yield state
    for cached in (runtime, gpu_works):
        cached.cache_clear()
