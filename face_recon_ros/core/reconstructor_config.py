"""Settings of the reconstructor."""

from __future__ import annotations

from dataclasses import dataclass, field

from face_recon_ros.core.aggregation import AggregationConfig
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.identity_posterior import PosteriorConfig
from face_recon_ros.core.inference import AUTO
from face_recon_ros.core.models import FACE_MODEL
from face_recon_ros.core.morphable_model import FACE
from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.smoothing import OneEuroConfig

#: Whose colours meshes carry.
IMAGE, MODEL, OFF = "image", "model", "off"
COLOURS = (IMAGE, MODEL, OFF)


@dataclass(frozen=True)
class ReconstructorConfig:
    """What is made of a crop.

    Attributes:
        network: This is the shipped name or the path of the ONNX network; `auto` takes
            ResNet50 where a GPU is at work, and the small network elsewhere.
        points: This is the shipped name or the path of the dense-point network, which
            corrects the network's answer; `auto` takes the shipped one if it was trained
            for the face model, `off` takes none.
        regressor_every: The regression network runs on every n-th image of a track whose pose
            is known; in between the dense points start from the track's last answer. 1 runs
            it on every image. Still pictures always run it.
        face_model: This is the shipped name or the path of the face model.
        level: The mesh is `coarse` or `fine`.
        part: The mesh is this part of the face model: `face`, `facial_skin` or `head`.
        colours: Meshes have the colours of the `image` (sampled from the camera where skin
            is seen, and kept for the track's life), of the `model` (its albedo under the
            estimated light), or none (`off`).
        provider: ONNX Runtime runs on this provider: `auto`, `tensorrt`, `cuda` or `cpu`.
        decoder: Coefficients are decoded in `numpy`, by ONNX Runtime (`graph`), or by the
            one that a measurement at start-up finds faster (`auto`, on a GPU only).
        threads: ONNX Runtime uses this number of threads on the CPU; 0 takes all cores.
        budget_ms: The composed pipeline may spend this time in milliseconds on an image. If all
            faces take longer, near ones and those who look at the camera are reconstructed in
            each image and the others in turn. 0 sets no limit; -1 takes four fifths of the time
            between two images.
        aggregation: This averages identity and albedo over a track's frames where no dense
            points are found.
        posterior: This estimates identity over a track's frames where dense points are
            found.
        normalise_expression: Expressions are told beyond the person's own neutral face, as far as
            the track has shown it and the network is known to mistake it for expression; false
            leaves each image's answer as it is.
        smooth_rotation: This One Euro filter smooths the head's rotation; speeds are in
            rad/s.
        smooth_translation: This One Euro filter smooths the head's position; speeds are in
            m/s.
        smooth_expression: This One Euro filter smooths expressions; speeds are in
            activations per second.
    """

    network: str = AUTO
    points: str = "auto"
    regressor_every: int = ranged(4, 1, 1000)
    face_model: str = FACE_MODEL
    level: str = "coarse"
    part: str = FACE
    colours: str = IMAGE
    provider: str = "auto"
    decoder: str = "auto"
    threads: int = ranged(2, 0, 256)
    budget_ms: float = ranged(-1.0, -1.0, 10000.0)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    posterior: PosteriorConfig = field(default_factory=PosteriorConfig)
    normalise_expression: bool = True
    smooth_rotation: OneEuroConfig = field(default_factory=OneEuroConfig)
    smooth_translation: OneEuroConfig = field(default_factory=OneEuroConfig)
    smooth_expression: OneEuroConfig = field(default_factory=OneEuroConfig)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.budget_ms < 0 and self.budget_ms != -1:
            raise ConfigError("budget_ms of at least 0, or -1", f"{self.budget_ms}", "-1 is good")
        if self.colours not in COLOURS:
            raise ConfigError(f"colours {', '.join(COLOURS)}", repr(self.colours), "choose one")
