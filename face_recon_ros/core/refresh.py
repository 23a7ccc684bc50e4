"""Which faces are reconstructed when there is no time for all of them, and what the others show.

Near people, and those who look at the camera, are reconstructed in every image, the others in
turn; in between the mesh of each moves with its track. Nothing is postponed: an image that was
not processed is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.rigid import Rigid, rotation_between
from face_recon_ros.core.types import Face, Track

_SHARE = 0.8  # of the time between two images, where no budget is given
_USUAL = 25  # percentile of the times between images: longer ones are of images that were dropped
_WINDOW = 15  # images over which costs and intervals are medians
_NEW = 6  # times the work of a known face: which way up it is, is found out
_LOOK = 1  # times that work, one more look of the network
_BASE = 2.0  # times the work of a known face that an image costs beside its faces
_UNMEASURED = 6.0  # known faces, or one new one, before any cost is known
_IN_TURN = 4  # every so many-th place is for those who wait
_WAITING = 2  # images that faces wait at most until there is one that is not late

Pixels = NDArray[np.uint8]


class Refresher:
    """Plans the reconstruction of a video, one image after the other.

    Attributes:
        budget_s: seconds an image may take; None: a share of the time between two images.
    """

    def __init__(self, budget_s: float | None = None) -> None:
        """Starts with nothing measured.

        Args:
            budget_s: see the attribute.
        """
        self.budget_s = budget_s
        self._stamp: float | None = None
        self._intervals: deque[float] = deque(maxlen=_WINDOW)
        self._per_face: deque[float] = deque(maxlen=_WINDOW)
        self._rest: deque[float] = deque(maxlen=_WINDOW)
        self._portions = 0  # of work that was last chosen: 1 for a known face
        self._busy_s = 0.0  # from the last image's stamp on, with it and those before it
        self._waited = 0  # images since the last new face, while there were some
        self._rested = 0  # images since the last face at all
        self._known: dict[str, tuple[Face, Pixels]] = {}

    @staticmethod
    def within(budget_ms: float) -> Refresher | None:
        """Of `ReconstructorConfig.budget_ms`; None where it sets no limit."""
        if budget_ms == 0:
            return None
        return Refresher(None if budget_ms < 0 else 1e-3 * budget_ms)

    def choose(
        self,
        tracks: Sequence[Track],
        stamp: float,
        attended: Collection[str] = (),
        *,
        spent_s: float = 0.0,
        compared: str | None = None,
    ) -> list[int]:
        """Which tracks of the next image are to be reconstructed.

        Args:
            tracks: of the image.
            stamp: seconds, of the image.
            attended: ids of those who look here.
            spent_s: seconds that the image has taken so far.
            compared: id of whose orientation is found out, unless there are new faces: that takes
                one more look.

        Returns:
            Indices into `tracks`, ascending. At least one if there is one; of several known
            people none where the image is late already, but not for long.
        """
        late_s = 0.0
        if self._stamp is not None and stamp > self._stamp:
            self._intervals.append(stamp - self._stamp)
            late_s = max(self._busy_s - (stamp - self._stamp), 0.0)
        self._busy_s = late_s + spent_s
        self._stamp = stamp
        ids = {track.id for track in tracks}
        self._known = {name: known for name, known in self._known.items() if name in ids}
        again = compared in self._known and len(self._known) == len(ids)
        more = _LOOK * again
        room = self._room(self._busy_s) - more

        def importance(i: int) -> tuple[bool, bool, float]:
            track = tracks[i]
            side = float(np.sqrt(np.prod(track.box[2:] - track.box[:2])))
            return track.id != compared, track.id not in attended, -side

        def last_seen(i: int) -> float:
            return self._known[tracks[i].id][0].stamp

        order = sorted(range(len(tracks)), key=importance)
        new = [i for i in order if tracks[i].id not in self._known]
        waits = late_s > 0 and len(self._known) > 0 and self._waited < _WAITING
        self._waited = self._waited + 1 if new and waits else 0
        new = [] if waits else new[: max(1, int(min(room / _NEW, len(new))))]
        known = [i for i in order if tracks[i].id in self._known]
        rests = late_s > 0 and len(known) > 1 and not new and room < 1 and self._rested < _WAITING
        self._rested = self._rested + 1 if rests else 0
        if rests:
            self._portions = 0
            return []
        left = int(min(max(room - _NEW * len(new), not new), len(known)))
        always = max(left - -(-left // _IN_TURN), int(again))
        waiting = sorted(known[always:], key=last_seen)
        chosen = known[:always] + waiting[: left - always]
        self._portions = len(chosen) + _NEW * len(new) + more
        return sorted(new + chosen)

    def _room(self, spent_s: float) -> float:
        """How many known faces the budget has room for."""
        if not self._per_face:
            return _UNMEASURED
        budget_s = self.budget_s
        if budget_s is None:
            usual = float(np.percentile(self._intervals, _USUAL)) if self._intervals else np.inf
            budget_s = _SHARE * usual
        left = budget_s - spent_s - float(np.median(self._rest))
        return left / max(float(np.median(self._per_face)), 1e-6) - _BASE

    def took(self, reconstruction_s: float, rest_s: float) -> None:
        """Notes what an image cost after its faces were chosen.

        Args:
            reconstruction_s: seconds, for the chosen faces.
            rest_s: seconds, for all else.
        """
        if self._portions:
            self._per_face.append(reconstruction_s / (_BASE + self._portions))
        self._rest.append(rest_s)
        self._busy_s += reconstruction_s + rest_s

    def also_took(self, seconds: float) -> None:
        """Adds what was done with the last image elsewhere."""
        if self._rest:
            self._rest[-1] += seconds
            self._busy_s += seconds

    def remember(self, faces: Sequence[Face], pixels: Pixels) -> None:
        """Takes in the faces that were reconstructed, and their (N, S, S, 3) crops."""
        self._known.update(
            {face.track.id: (face, crop) for face, crop in zip(faces, pixels, strict=True)}
        )

    def carried(self, tracks: Sequence[Track], camera: PinholeCamera) -> list[tuple[Face, Pixels]]:
        """The last faces of tracks that were left out, where their tracks are now."""
        return [
            (moved_with(self._known[track.id][0], track, camera), self._known[track.id][1])
            for track in tracks
            if track.id in self._known
        ]


def moved_with(face: Face, track: Track, camera: PinholeCamera) -> Face:
    """A face of an earlier image where its track is now.

    It keeps its attitude to the viewing ray, and its distance goes with its size in the image.

    Args:
        face: of the track.
        track: of a later image.
        camera: that took both images.
    """
    then, now = face.box.astype(np.float64), track.box.astype(np.float64)
    scale = float(np.sqrt(np.prod(now[2:] - now[:2]) / np.prod(then[2:] - then[:2])))

    def moved(pixel: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((now[:2] + now[2:]) / 2 + scale * (pixel - (then[:2] + then[2:]) / 2))

    pose = face.camera_from_face
    ray = camera.rays_from_pixels(moved(camera.project(pose.translation)))
    translation = ray / ray[2] * pose.translation[2] / scale
    rotation = rotation_between(pose.translation, translation) @ pose.rotation
    crop = replace(
        face.crop, centre_px=moved(face.crop.centre_px), side_px=face.crop.side_px * scale
    )
    return replace(
        face,
        track=track,
        crop=crop,
        camera_from_face=Rigid(rotation, translation),
        box=track.box,
        stamp=track.stamp,
    )
