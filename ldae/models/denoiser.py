"""The denoiser: an ADM-family UNet over (z_t, t) in three dimensions, perhaps beside a linear denoiser that is fitted."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldae.base.hardware import single_precision
from ldae.base.ranges import blocks, checked, count, natural, share_below_one
from ldae.diffusion import Estimate, NoiseSchedule, velocity_of
from ldae.errors import ConfigError
from ldae.models.blocks import ResidualBlock, SelfAttention, group_norm, timestep_embedding, zero_init
from ldae.models.components import principal_components

__all__ = ["Denoiser", "DenoiserConfig", "Features", "GaussianDenoiser", "UNetDecoder"]

SMALL = 1e-12
"""Least variance that is divided by."""

FLOOR = 1e-4
"""Least variance beside the components, relative to the mean variance: what never varied in training may vary in a new scan."""


@dataclass(frozen=True)
@checked
class DenoiserConfig:
    """Shape of the UNet.

    Attributes:
        width: channels of the first level.
        multipliers: width of each level relative to the first; the last is the coarsest.
        residual_blocks: residual blocks a level on the way down (one more on the way up).
        attention_levels: levels with self-attention, 0 being the finest.
        heads: attention heads.
        dropout: probability inside residual blocks.
        stride: downsampling between levels along each latent axis.
        prediction: meaning of the output.
        coordinates: octaves of sines and cosines of the position that the first layer sees beside the latent. Scans are
            aligned, so position has a meaning that a convolution must otherwise infer from its padding; 0 is published.
        gaussian_components: components of a linear denoiser that is fitted to the latents, to which the UNet adds
            (:class:`GaussianDenoiser`); only latents of aligned scans have use for it. 0, as published, leaves it out.

    Raises:
        ConfigError: for a width or a level that does not fit, or a linear denoiser beside predictions of noise.
    """

    width: int = count(256)
    multipliers: tuple[int, ...] = count((1, 2, 3))
    residual_blocks: int = blocks(2)
    attention_levels: tuple[int, ...] = natural((1, 2))
    heads: int = count(1)
    dropout: float = share_below_one(0.1)
    stride: tuple[int, int, int] = count((2, 2, 2))
    prediction: Literal["noise", "velocity"] = "noise"
    coordinates: int = natural(0)
    gaussian_components: int = natural(0)

    def __post_init__(self) -> None:
        if self.width % 4 or self.width % self.heads:
            msg = (
                f"denoiser width must be a multiple of 4 and of heads={self.heads}, got {self.width}; 256 is published"
            )
            raise ConfigError(msg)
        if not self.multipliers or max(self.attention_levels, default=0) >= len(self.multipliers):
            msg = (
                f"attention_levels {self.attention_levels} must name levels 0..{len(self.multipliers) - 1} of the "
                f"{len(self.multipliers)} multipliers; remove the others"
            )
            raise ConfigError(msg)
        if self.gaussian_components and self.prediction != "velocity":
            msg = (
                f"a linear denoiser of {self.gaussian_components} gaussian_components predicts velocities, got prediction "
                f"{self.prediction!r}; set denoiser.model.prediction to 'velocity'"
            )
            raise ConfigError(msg)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * m for m in self.multipliers)

    @property
    def embedding_width(self) -> int:
        """Width E of the time embedding."""
        return 4 * self.width


@dataclass(frozen=True)
class Features:
    """What the denoiser finds before its decoder half, and the gradient estimator shares.

    Attributes:
        embedding: time embedding, (B, E).
        skips: features of the encoder's blocks, finest first, each (B, C_i, d_i, h_i, w_i).
        z_t: noisy latent, (B, C, d, h, w).
        t: timesteps, (B,).
        linear: velocity of the linear denoiser, the shape of `z_t`, if there is one.
    """

    embedding: Tensor
    skips: tuple[Tensor, ...]
    z_t: Tensor
    t: Tensor
    linear: Tensor | None = None


class Stage(nn.Module):
    """A residual block and, perhaps, attention and a resampling residual block."""

    def __init__(
        self, block: ResidualBlock, attention: SelfAttention | None = None, up: ResidualBlock | None = None
    ) -> None:
        super().__init__()
        self.block = block
        self.attention = attention
        self.up = up

    def forward(self, x: Tensor, embedding: Tensor, semantic: Tensor | None = None) -> Tensor:
        """Residual block, then attention."""
        x = self.block(x, embedding, semantic)
        return x if self.attention is None else self.attention(x)


def position_features(z: Tensor, octaves: int) -> Tensor:
    """Sines and cosines of the position along each axis, one pair an octave: (B, 6 * octaves, d, h, w).

    Args:
        z: whose grid it is, (B, C, d, h, w).
        octaves: the first spans the grid with half a period, each further one with twice as many.
    """
    axes = [torch.linspace(0.0, torch.pi, n, device=z.device) for n in z.shape[2:]]
    maps = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    angles = torch.cat([maps * 2**octave for octave in range(octaves)])
    return torch.cat([angles.sin(), angles.cos()]).to(z.dtype).expand(z.shape[0], -1, -1, -1, -1)


class UNetEncoder(nn.Module):
    """The way down; its skips feed every decoder half."""

    def __init__(self, config: DenoiserConfig, channels: int) -> None:
        super().__init__()
        self.coordinates = config.coordinates
        self.stem = nn.Conv3d(channels + 6 * config.coordinates, config.width, 3, padding=1)
        self.stages = nn.ModuleList()
        width = config.width
        for level, out in enumerate(config.widths):
            for _ in range(config.residual_blocks):
                block = ResidualBlock(width, out, config.embedding_width, dropout=config.dropout)
                attention = SelfAttention(out, config.heads) if level in config.attention_levels else None
                self.stages.append(Stage(block, attention))
                width = out
            if level < len(config.widths) - 1:
                down = ResidualBlock(
                    width, width, config.embedding_width, dropout=config.dropout, down_stride=config.stride
                )
                self.stages.append(Stage(down))

    def forward(self, z: Tensor, embedding: Tensor) -> tuple[Tensor, ...]:
        """Features of every block, finest first."""
        h = self.stem(torch.cat([z, position_features(z, self.coordinates)], dim=1) if self.coordinates else z)
        skips = [h]
        for stage in self.stages:
            h = stage(h, embedding)
            skips.append(h)
        return tuple(skips)


class UNetDecoder(nn.Module):
    """Middle and output blocks over the encoder's skips; with a semantic width it is the gradient estimator's trunk."""

    def __init__(self, config: DenoiserConfig, channels: int, semantic_width: int | None = None) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, *, up: bool = False) -> ResidualBlock:
            return ResidualBlock(
                inputs,
                outputs,
                config.embedding_width,
                dropout=config.dropout,
                semantic_width=semantic_width,
                up=up,
            )

        width = config.widths[-1]
        self.middle_in = Stage(block(width, width), SelfAttention(width, config.heads))
        self.middle_out = block(width, width)
        skip_widths = _skip_widths(config)
        self.stages = nn.ModuleList()
        for level in reversed(range(len(config.widths))):
            out = config.widths[level]
            for index in range(config.residual_blocks + 1):
                attention = SelfAttention(out, config.heads) if level in config.attention_levels else None
                last = index == config.residual_blocks and level > 0
                up = block(out, out, up=True) if last else None
                self.stages.append(Stage(block(width + skip_widths.pop(), out), attention, up))
                width = out
        self.norm = group_norm(width)
        self.head = zero_init(nn.Conv3d(width, channels, 3, padding=1))

    def forward(self, features: Features, semantic: Tensor | None = None) -> Tensor:
        """From the encoder's features to a map of the latent's shape.

        Args:
            features: of the encoder.
            semantic: embedded semantic code, (B, semantic width), if built with one.
        """
        skips = list(features.skips)
        h = self.middle_in(skips[-1], features.embedding, semantic)
        h = self.middle_out(h, features.embedding, semantic)
        for stage in self.stages:
            assert isinstance(stage, Stage)
            h = stage(torch.cat([h, skips.pop()], dim=1), features.embedding, semantic)
            if stage.up is not None:
                h = stage.up(h, features.embedding, semantic, size=skips[-1].shape[2:])
        output: Tensor = self.head(F.silu(self.norm(h)))
        return output


def _skip_widths(config: DenoiserConfig) -> list[int]:
    """Channels of the encoder's skips, finest first."""
    widths = [config.width]
    for level, width in enumerate(config.widths):
        widths += [width] * config.residual_blocks
        if level < len(config.widths) - 1:
            widths.append(width)
    return widths


class GaussianDenoiser(nn.Module):
    """Velocity of latents from a normal distribution: a Wiener filter at every noise level (Wang and Vastola 2023).

    The covariance is that of principal components, and beside them a variance for each element. Latents of aligned scans
    come near to that; a network beside it learns what they have more than a mean and a covariance, and begins with nothing.

    Args:
        components: principal components of the latents.
        shape: of a latent, (C, d, h, w).
        schedule: the noise schedule.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor
    rest: Tensor

    def __init__(self, components: int, shape: tuple[int, int, int, int], schedule: NoiseSchedule) -> None:
        super().__init__()
        count = math.prod(shape)
        self.schedule = schedule
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("basis", torch.zeros(components, count))
        self.register_buffer("variance", torch.ones(components))
        self.register_buffer("rest", torch.ones(count))

    @torch.no_grad()
    def fit(self, latents: Tensor, fitted: int = 0) -> None:
        """Mean, components and variances of latents.

        Args:
            latents: standardised latents of training scans, (N, C, d, h, w), or what a regression left of them.
            fitted: coefficients that this regression had for each element; variances are of N less so many.
        """
        values = latents.detach().flatten(1).float().cpu()
        self.mean.copy_(values.mean(dim=0))
        values = values - self.mean.cpu()
        basis, variance = principal_components(values, len(self.basis))
        variance = variance.float()
        rest = values.square().mean(dim=0) - (basis.square() * variance[:, None]).sum(dim=0)
        freedom = len(values) / max(1, len(values) - fitted)
        self.basis.zero_()
        self.basis[: len(basis)].copy_(basis)
        self.variance[: len(basis)].copy_(freedom * variance)
        self.rest.copy_(freedom * rest.clamp_min(FLOOR * values.square().mean()))

    def forward(self, z_t: Tensor, t: Tensor, mean: Tensor | None = None) -> Tensor:
        """The velocity, (B, C, d, h, w), float32.

        Args:
            z_t: noisy latents, (B, C, d, h, w).
            t: timesteps, (B,).
            mean: of each latent, the same shape, in place of the mean of all.
        """
        with single_precision(z_t.device):
            signal, sigma = self.schedule.signal_and_noise(t, 2)
            expected = self.mean if mean is None else mean.float().flatten(1)
            away = z_t.float().flatten(1) - signal * expected
            along = away @ self.basis.T
            beside = away - along @ self.basis
            power, power_beside = signal**2 * self.variance + sigma**2, signal**2 * self.rest + sigma**2
            along, beside = along / power.clamp_min(SMALL), beside / power_beside.clamp_min(SMALL)
            clean = expected + signal * ((along * self.variance) @ self.basis + beside * self.rest)
            noise = sigma * (along @ self.basis + beside)
            estimate = Estimate(clean.reshape(z_t.shape), noise.reshape(z_t.shape))
            return velocity_of(estimate, t, self.schedule)

    @torch.no_grad()
    def leave_out(self, places: Tensor) -> None:
        """Let latents be 0 at some of their places, (d h w,)."""
        for values in (self.mean, self.basis, self.rest):
            values.view(*values.shape[:-1], -1, len(places))[..., places] = 0.0


class Denoiser(nn.Module):
    """eps_theta(z_t, t), or v_theta(z_t, t) if the config says so.

    Args:
        config: shape of the UNet.
        channels: latent channels C.
        gaussian: a linear denoiser, to which the UNet adds.
    """

    def __init__(self, config: DenoiserConfig, channels: int, gaussian: GaussianDenoiser | None = None) -> None:
        super().__init__()
        self.config, self.gaussian = config, gaussian
        self.time_embedding = nn.Sequential(
            nn.Linear(config.width, config.embedding_width),
            nn.SiLU(),
            nn.Linear(config.embedding_width, config.embedding_width),
        )
        self.encoder = UNetEncoder(config, channels)
        self.decoder = UNetDecoder(config, channels)

    def features(self, z_t: Tensor, t: Tensor) -> Features:
        """The encoder half, which the gradient estimator shares.

        Args:
            z_t: noisy latent, (B, C, d, h, w).
            t: timesteps, (B,).
        """
        embedding = self.time_embedding(timestep_embedding(t, self.config.width))
        linear = None if self.gaussian is None else self.gaussian(z_t, t)
        return Features(embedding, self.encoder(z_t, embedding), z_t, t, linear)

    def predict(self, features: Features) -> Tensor:
        """The decoder half: the prediction, (B, C, d, h, w)."""
        added: Tensor = self.decoder(features)
        return added if features.linear is None else features.linear + added.float()

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """The prediction, the shape of `z_t`."""
        return self.predict(self.features(z_t, t))
