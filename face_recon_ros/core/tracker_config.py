"""How faces are followed: the settings of the tracker."""

from __future__ import annotations

from dataclasses import dataclass, field

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.reidentification import ReIdentificationConfig

APPEARANCE = ("auto", "off")


@dataclass(frozen=True)
class TrackerConfig:
    """How faces are followed.

    Attributes:
        detect_every: The detector runs on every n-th frame. It also runs while a track is
            tentative and while there is none.
        max_undetected_s: A track ends after this time in seconds without a detection; a
            new track ends with its first miss.
        max_tentative_s: A face stays visible for this time in seconds after the detector
            began to miss it, if it was not turning away; where a presence score is known,
            min_presence decides instead. The track stays alive under its id.
        max_gap_s: After a longer gap between two images, in seconds, no face is known by
            its place; stamps that go backwards start all over.
        min_iou: A detection whose intersection over union with the prediction reaches this
            value is a certain match.
        max_distance: A match is refused if predicted and found centre are farther apart
            than this, in box sides.
        max_size_ratio: A match is refused if predicted and found side differ by more than
            this factor.
        max_faces: At most this number of faces is tracked in one image, the nearest first.
        min_presence: A face is shown if the network's presence score, where it gives one,
            is at least this.
        appearance: `auto` also distinguishes people by an embedding of the face, where
            meshes give its pose; `off` uses position alone, so that a person who leaves
            has a new id on return. Embeddings are biometric data; they stay in memory.
        reidentification: This belongs to the re-identification of lost faces.
        seed: This is the seed of the track ids.
    """

    detect_every: int = ranged(3, 1, 1000)
    max_undetected_s: float = ranged(1.0, 0.0, 60.0)
    max_tentative_s: float = ranged(0.25, 0.0, 60.0)
    max_gap_s: float = ranged(2.0, 0.01, 60.0)
    min_iou: float = ranged(0.3, 0.0, 1.0)
    max_distance: float = ranged(0.7, 0.0, 10.0)
    max_size_ratio: float = ranged(1.8, 1.0, 10.0)
    max_faces: int = ranged(8, 1, 64)
    min_presence: float = ranged(0.5, 0.0, 1.0)
    appearance: str = "auto"
    reidentification: ReIdentificationConfig = field(default_factory=ReIdentificationConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.appearance not in APPEARANCE:
            raise ConfigError("appearance auto or off", repr(self.appearance), "choose one")
