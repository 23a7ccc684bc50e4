"""Real-time 3D face reconstruction for robots."""

__version__ = "0.1.0"
