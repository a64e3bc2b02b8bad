"""Semantic encoders: a scan to its code y."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ldae.base.hardware import single_precision
from ldae.base.ranges import checked, count, natural, share, share_below_one
from ldae.contract import LEFT_RIGHT
from ldae.errors import ConfigError
from ldae.models.blocks import group_norm
from ldae.models.components import principal_components
from ldae.models.convnext import ConvNeXt, ConvNeXtConfig
from ldae.models.tissue_maps import TissueMaps
from ldae.models.whitening import Whitening

__all__ = [
    "LinearPath",
    "SemanticEncoder",
    "SemanticEncoderConfig",
    "SliceEncoder",
    "SliceEncoderConfig",
    "VolumeEncoder",
    "VolumeEncoderConfig",
    "build_semantic_encoder",
]


@dataclass(frozen=True)
@checked
class SliceEncoderConfig:
    """The 2.5D encoder.

    Attributes:
        backbone: the 2D network over slices; its last width is the width S of y.
        heads: of the cross attention.
    """

    backbone: ConvNeXtConfig = ConvNeXtConfig()
    heads: int = count(8)

    def __post_init__(self) -> None:
        if self.semantic_width % self.heads:
            msg = f"the last of backbone.widths must be a multiple of heads={self.heads}, got {self.semantic_width}; change one"
            raise ConfigError(msg)

    @property
    def semantic_width(self) -> int:
        """Width S of y."""
        return self.backbone.widths[-1]


@dataclass(frozen=True)
@checked
class VolumeEncoderConfig:
    """The plain 3D encoder.

    Attributes:
        view: what is read of a scan: its intensities, or the `tissue` maps that they show, in which no contrast hides the anatomy
            (:class:`TissueMaps`). The denoiser is asked for intensities all the same.
        average: voxels along each axis of a scan that are averaged before it is read. Noise and errors of alignment, which no
            code should hold, are finer than most of what changes between people.
        widths: channels of each level; every level halves the resolution.
        semantic_width: width S of y.
        pooled: spatial size of the last feature map that is laid flat (1 is global average pooling).
        dropout: probability on the flat features, against learning subjects by heart.
        linear: averaging factor, after `average`, of a linear path beside the network, which begins as principal components of
            the training scans in that view (:class:`LinearPath`); 0 leaves it out. Only aligned scans have use for it.
        symmetric: read the mean of the scan and its mirror image. The code is then left-right symmetric: it holds what both
            hemispheres share, as ageing and most dementias change both; the noise code keeps the rest.
        linear_spread: power of its standard deviation that each component keeps in the code: 0 makes all alike, 1 lets those
            that vary most stand out, which two scans of one person share most.
        layer_norm: bring each code to mean 0 and standard deviation 1. It keeps training stable, but a brain that is far from
            the mean loses its distance: very large ventricles look like large ones.
    """

    view: Literal["scan", "tissue"] = "scan"
    average: int = count(1)
    widths: tuple[int, ...] = count((32, 64, 128, 256))
    semantic_width: int = count(256)
    pooled: int = count(1)
    dropout: float = share_below_one(0.0)
    linear: int = natural(0)
    symmetric: bool = False
    linear_spread: float = share(0.0)
    layer_norm: bool = True

    def __post_init__(self) -> None:
        if not self.widths:
            msg = "volume.widths names the channels of one level or more, got none; give some, such as [32, 64]"
            raise ConfigError(msg)


@dataclass(frozen=True)
@checked
class SemanticEncoderConfig:
    """One of the two encoders; with neither named it is the published one, `slices` with ConvNeXt-Small.

    Attributes:
        slices: the 2.5D encoder.
        volume: the 3D encoder.
        whitening: how far codes are whitened over the training scans once they are learnt (:class:`Whitening`): 0 leaves them
            as they are, as published; 1 makes them uncorrelated and of equal variance. Decoded images stay the same.
        whitening_of: what becomes of equal variance: `all` codes, or what differs between codes `within` subjects that were
            scanned more than once, such as noise, positioning and errors of preprocessing.

    Raises:
        ConfigError: if both encoders are given.
    """

    slices: SliceEncoderConfig | None = None
    volume: VolumeEncoderConfig | None = None
    whitening: float = share(0.0)
    whitening_of: Literal["all", "within"] = "all"

    def __post_init__(self) -> None:
        if self.slices is not None and self.volume is not None:
            msg = "the semantic encoder is either 'slices' or 'volume', got both; leave one out"
            raise ConfigError(msg)

    @property
    def chosen(self) -> SliceEncoderConfig | VolumeEncoderConfig:
        """The one that is given."""
        return self.slices or self.volume or SliceEncoderConfig()

    @property
    def semantic_width(self) -> int:
        """Width S of y."""
        return self.chosen.semantic_width


def positional_encoding(length: int, width: int) -> Tensor:
    """Sinusoidal encoding of slice positions (Vaswani et al. 2017), (1, length, width)."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    encoding = torch.zeros(1, length, width)
    encoding[0, :, 0::2] = torch.sin(position * frequency)
    encoding[0, :, 1::2] = torch.cos(position * frequency)
    return encoding


class SliceEncoder(nn.Module):
    """2.5D: a 2D network on every axial slice, soft attention to one query, cross attention from it to the slices.

    Args:
        config: backbone and heads.
        slices: number of axial slices (the model grid's last axis).
    """

    def __init__(self, config: SliceEncoderConfig, slices: int) -> None:
        super().__init__()
        width = config.semantic_width
        self.backbone = ConvNeXt(config.backbone)
        self.register_buffer("position", positional_encoding(slices, width), persistent=False)
        self.slice_score = nn.Linear(width, 1)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.cross_attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.whitening: nn.Module = nn.Identity()

    position: Tensor
    symmetric = False

    def forward(self, x: Tensor) -> Tensor:
        """Semantic codes y, (B, S), of scans on the RAS model grid, (B, 1, D, H, W): right, anterior, superior."""
        return self.from_slices(x.permute(0, 4, 1, 2, 3))

    def from_slices(self, slices: Tensor) -> Tensor:
        """Semantic codes of stacks of axial slices, (B, W, 1, D, H) to (B, S)."""
        vectors = self.slice_vectors(slices) + self.position
        weights = self.slice_score(vectors).softmax(dim=1)
        pooled = (weights * vectors).sum(dim=1, keepdim=True)
        attended, _ = self.cross_attention(
            self.query(pooled), self.key(vectors), self.value(vectors), need_weights=False
        )
        y: Tensor = self.whitening(self.norm(attended.squeeze(1)))
        return y

    def slice_vectors(self, slices: Tensor) -> Tensor:
        """Features of each slice by itself, from the 2D network, (B, W, 1, D, H) to (B, W, S)."""
        batch, count = slices.shape[:2]
        # The images need no gradient, and torch 2.13's CPU norms crash on channels-last inputs of that kind.
        vectors: Tensor = self.backbone(slices.flatten(0, 1).contiguous()).reshape(batch, count, -1)
        return vectors


class LinearPath(nn.Module):
    """A linear map of averaged scans to the width of y, in float32.

    Beginning as principal components of equal variance (data-dependent initialisation, Kraehenbuehl et al. 2016), the code is
    of full rank from the first step on. From chance, training finds the few components of largest variance and hardly begins
    on the many small ones, where a hippocampus is.

    Args:
        factor: voxels along each axis that are averaged; a remainder is left out.
        shape: of the scans, (C, D, H, W).
        width: of y.
    """

    def __init__(self, factor: int, shape: tuple[int, int, int, int], width: int) -> None:
        super().__init__()
        channels, *cells = shape
        if min(cells) < factor:
            msg = f"averaging {factor} voxels along each axis leaves nothing of {tuple(cells)}; lower volume.linear"
            raise ConfigError(msg)
        count = channels * math.prod(n // factor for n in cells)
        self.pool = nn.AvgPool3d(factor)
        self.register_buffer("mean", torch.zeros(count))
        self.weight = nn.Parameter(torch.randn(width, count) / math.sqrt(count))

    mean: Tensor

    def averaged(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, V)."""
        return self.pool(x.float()).flatten(1)

    @torch.no_grad()
    def begin_from(self, averaged: Tensor, spread: float = 0.0) -> None:
        """Begin as principal components; where scans are too few for all, the rest stays random, at unit variance.

        Args:
            averaged: of training scans, (N, V), as :meth:`averaged` gives them.
            spread: power of its standard deviation that each component keeps; their mean square is 1 whatever it is.
        """
        values = averaged.double().cpu()
        mean = values.mean(dim=0)
        values = values - mean
        components, variance = principal_components(values, self.weight.shape[0])
        weight = self.weight.double().cpu()
        weight = weight / (values @ weight.T).std(dim=0, correction=0).clamp_min(1e-12)[:, None]
        # Divided by its standard deviation, each is of unit variance.
        kept = variance ** (spread / 2)
        scale = kept / kept.square().mean().sqrt() / variance.sqrt()
        weight[: len(components)] = components * scale[:, None]
        self.mean.copy_(mean)
        self.weight.copy_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, S)."""
        return nn.functional.linear(self.averaged(x) - self.mean, self.weight)


class VolumeEncoder(nn.Module):
    """A plain 3D convolutional network: strided levels, pooling, standardised features, one linear layer, layer norm.

    Pooled features of aligned heads differ by a few thousandths. They are standardised over the cohort (batch norm), and from
    there on in float32, or the differences would drown in bf16's rounding. With a linear path the network adds to its
    output, beginning with nothing.

    Args:
        config: widths and paths.
        shape: of the scans, (D, H, W).
    """

    def __init__(self, config: VolumeEncoderConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        maps = TissueMaps() if config.view == "tissue" else nn.Identity()
        self.view = nn.Sequential(maps, nn.AvgPool3d(config.average) if config.average > 1 else nn.Identity())
        layers: list[nn.Module] = []
        seen = width = TissueMaps.CHANNELS if config.view == "tissue" else 1
        for out in config.widths:
            layers += [nn.Conv3d(width, out, 3, stride=2, padding=1), group_norm(out), nn.SiLU()]
            width = out
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool3d(config.pooled)
        self.standardise = nn.BatchNorm1d(width * config.pooled**3, affine=False, momentum=0.05)
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(width * config.pooled**3, config.semantic_width)
        self.norm = nn.LayerNorm(config.semantic_width) if config.layer_norm else nn.Identity()
        self.whitening: nn.Module = nn.Identity()
        self.linear: LinearPath | None = None
        self.symmetric, self.linear_spread = config.symmetric, config.linear_spread
        if config.linear:
            depth, height, breadth = (n // config.average for n in shape)
            self.linear = LinearPath(config.linear, (seen, depth, height, breadth), config.semantic_width)
            nn.init.zeros_(self.projection.weight)
            nn.init.zeros_(self.projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Semantic codes y, (B, S), of scans on the RAS model grid, (B, 1, D, H, W): right, anterior, superior."""
        x = self.view(x)
        features = self._pooled(x)
        if self.symmetric:
            mirrored = x.flip(LEFT_RIGHT)
            features = (features + self._pooled(mirrored)) / 2
            x = (x + mirrored) / 2
        with single_precision(x.device):
            y = self.projection(self.dropout(self.standardise(features)))
            if self.linear is not None:
                y = y + self.linear(x)
            found: Tensor = self.whitening(self.norm(y))
        return found

    def _pooled(self, x: Tensor) -> Tensor:
        """The flat features of scans, (B, F), in float32."""
        features: Tensor = self.features(x)
        with single_precision(x.device):
            return self.pool(features.float()).flatten(1)


SemanticEncoder = SliceEncoder | VolumeEncoder


def build_semantic_encoder(config: SemanticEncoderConfig, shape: tuple[int, int, int]) -> SemanticEncoder:
    """The encoder that the config names, for scans of a shape (D, H, W)."""
    chosen = config.chosen
    encoder = SliceEncoder(chosen, shape[2]) if isinstance(chosen, SliceEncoderConfig) else VolumeEncoder(chosen, shape)
    if config.whitening:
        encoder.whitening = Whitening(config.semantic_width)
    return encoder
