"""Faults of input, with what was expected, what was received, and the remedy."""

from __future__ import annotations


class FaceReconError(Exception):
    """Base of all faults a user can fix. Anything else that is raised is a bug.

    Args:
        expected: what would have been right.
        got: what was there instead.
        remedy: what to do about it.
    """

    def __init__(self, expected: str, got: str, remedy: str) -> None:
        super().__init__(f"expected {expected}, got {got}; {remedy}")
        self.expected = expected
        self.got = got
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[FaceReconError], tuple[str, str, str]]:
        """Between processes, too."""
        return type(self), (self.expected, self.got, self.remedy)


def reason(fault: Exception) -> str:
    """Why a file could not be used, in one line for users: what Python or a library raised."""
    if isinstance(fault, OSError) and fault.strerror:
        return str(fault.strerror)
    if isinstance(fault, UnicodeDecodeError):
        return "something that is no text"
    if isinstance(fault, KeyError):
        return f"no {fault}"
    if isinstance(fault, TypeError):
        return f"another structure ({fault})"
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]


class ImageError(FaceReconError):
    """An image that cannot be used: encoding, step, size, type."""


class CameraError(FaceReconError):
    """A camera description that cannot be used: intrinsics, distortion, region of interest."""


class ModelError(FaceReconError):
    """A model file that is missing, damaged, tampered with or does not fit the others."""


class SourceError(FaceReconError):
    """An image source that cannot be opened or read."""


class ConfigError(FaceReconError):
    """A parameter or option outside what it may be."""


class DataError(FaceReconError):
    """A data set, annotation, mesh or bag that cannot be used."""


class FrameError(FaceReconError):
    """A coordinate frame that is unknown, not connected, or not known at that moment."""
