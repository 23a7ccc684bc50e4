"""Real-time 3D face reconstruction for robots."""

import os

__version__ = "0.1.0"

# ONNX Runtime from 1.29 on would report its use to Microsoft and keep a device id in ~/.cache. It
# looks at this when it is loaded, which happens after this file is read.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Our matrices are small: OpenBLAS' threads wait for each other longer than they work, hundreds of
# times longer where other programs are busy. Numpy, too, is loaded after this file is read.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
