"""One camera of every kind."""

import numpy as np

from face_recon_ros.core.camera import PinholeCamera

K = np.array([[520.0, 0.0, 331.0], [0.0, 530.0, 226.0], [0.0, 0.0, 1.0]])
CAMERAS = {
    "ideal": PinholeCamera(640, 480, K),
    "plumb_bob": PinholeCamera(640, 480, K, np.array([-0.25, 0.07, 1e-3, -2e-3, 0.0])),
    "rational": PinholeCamera(
        640,
        480,
        K,
        np.array([0.3, -0.1, 1e-3, 1e-3, 0.01, 0.5, -0.1, 0.0]),
        "rational_polynomial",
    ),
    "fisheye": PinholeCamera(640, 480, K, np.array([0.1, -0.02, 0.01, 0.0]), "equidistant"),
    "ideal fisheye": PinholeCamera(640, 480, K, np.zeros(0), "equidistant"),
}
