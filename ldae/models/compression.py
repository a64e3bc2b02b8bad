"""The compression autoencoder (MONAI's AutoencoderKL, or components of patches) with its measured latent statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldae.base.ranges import blocks, checked, count, natural
from ldae.errors import ConfigError
from ldae.models.blocks import GroupNorm
from ldae.models.cells import crop_to, from_patches, pad_to_multiple, padded_shape, to_patches
from ldae.models.components import ComponentsConfig, PatchComponents

__all__ = [
    "CompressionAttention",
    "CompressionAutoencoder",
    "CompressionConfig",
    "DiscriminatorConfig",
    "Posterior",
    "build_discriminator",
]


INITIAL_LOG_VARIANCE = -6.0


@dataclass(frozen=True)
@checked
class CompressionAttention:
    """Self-attention of the autoencoder; its memory grows with the square of the number of voxels.

    Attributes:
        levels: with self-attention after each residual block, 0 being the finest.
        coarsest: whether one more follows the coarsest level, between two residual blocks.
    """

    levels: tuple[int, ...] = natural(())
    coarsest: bool = True


@dataclass(frozen=True)
@checked
class CompressionConfig:
    """Shape of the autoencoder.

    Attributes:
        channels: width of each level; each level but the last halves the resolution. With none there is no compression, and
            diffusion runs in voxel space: the baseline that latent diffusion is measured against.
        latent_channels: C; 1 in voxel space.
        residual_blocks: a level.
        groups: of the group norms.
        attention: self-attention, if any; the published network has none.
        shortcut: the latent mean starts from the scan's own patches and the decoded scan from the latent's, and the networks
            learn what patches lack (residual autoencoding, Chen et al. 2025, arXiv:2410.10733). Each latent channel starts as
            the mean of an equal part of a cell's voxels; with as many channels as voxels nothing is lost.
        components: principal components of each patch take the network's place: the linear optimum for aligned scans, fitted
            in seconds. Needs no channels.
    """

    channels: tuple[int, ...] = count((64, 128, 128, 128))
    latent_channels: int = count(3)
    residual_blocks: int = blocks(2)
    groups: int = count(32)
    attention: CompressionAttention | None = None
    shortcut: bool = False
    components: ComponentsConfig | None = None

    def __post_init__(self) -> None:
        if self.components is not None:
            if self.channels or self.latent_channels > self.components.patch**3:
                msg = (
                    f"with components, channels must be [] and latent_channels at most the {self.components.patch**3} voxels "
                    f"of a patch, got {list(self.channels)} and {self.latent_channels}; change them"
                )
                raise ConfigError(msg)
        elif not self.channels and self.latent_channels != 1:
            msg = f"without channels the latent is the scan itself, so latent_channels must be 1, got {self.latent_channels}"
            raise ConfigError(msg)
        if any(width % self.groups for width in self.channels):
            msg = f"every width in channels {self.channels} must be a multiple of groups={self.groups}; change one of them"
            raise ConfigError(msg)
        if self.attention is not None and not set(self.attention.levels) <= set(range(len(self.channels))):
            msg = (
                f"attention.levels {self.attention.levels} must name levels 0..{len(self.channels) - 1} of channels "
                f"{self.channels}; remove the others"
            )
            raise ConfigError(msg)

        if self.shortcut and (not self.channels or self.downsampling**3 % self.latent_channels):
            msg = (
                f"with shortcut, latent_channels must divide the {self.downsampling**3} voxels of a cell, got "
                f"{self.latent_channels}; change it, or leave shortcut out"
            )
            raise ConfigError(msg)

    @property
    def downsampling(self) -> int:
        """Voxels along an axis that one latent cell spans."""
        if self.components is not None:
            return self.components.patch
        return int(2 ** max(0, len(self.channels) - 1))

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
        """(C, d, h, w) of a scan of shape (D, H, W), padded to whole cells where it does not divide."""
        d, h, w = (n // self.downsampling for n in padded_shape(shape, self.downsampling))
        return self.latent_channels, d, h, w


@dataclass(frozen=True)
@checked
class DiscriminatorConfig:
    """Shape of the patch discriminator (Isola et al. 2017).

    Attributes:
        width: channels of its first layer.
        layers: strided convolutions.
    """

    width: int = count(64)
    layers: int = blocks(3)


@dataclass(frozen=True)
class Posterior:
    """A Gaussian over latents.

    Attributes:
        mean: (B, C, d, h, w).
        std: the same shape.
    """

    mean: Tensor
    std: Tensor

    def kl(self) -> Tensor:
        """Kullback-Leibler divergence to the standard normal, per latent element, (B,)."""
        variance = self.std.square()
        divergence = 0.5 * (self.mean.square() + variance - 1.0 - variance.clamp_min(1e-12).log())
        return divergence.flatten(1).mean(dim=1)


class VoxelSpace(nn.Module):
    """No compression: every voxel is its own latent."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The scans themselves, known exactly."""
        return x, torch.zeros_like(x)

    def decode(self, latent: Tensor) -> Tensor:
        """The scans themselves."""
        return latent


def build_network(config: CompressionConfig) -> nn.Module:
    """MONAI's AutoencoderKL of this shape."""
    from monai.networks.nets import AutoencoderKL

    attention = config.attention or CompressionAttention(coarsest=False)
    network = AutoencoderKL(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=config.channels,
        latent_channels=config.latent_channels,
        num_res_blocks=(config.residual_blocks,) * len(config.channels),
        attention_levels=tuple(level in attention.levels for level in range(len(config.channels))),
        norm_num_groups=config.groups,
        with_encoder_nonlocal_attn=attention.coarsest,
        with_decoder_nonlocal_attn=attention.coarsest,
    )
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = GroupNorm
    # A posterior as wide as its prior hides what the encoder predicts; starting narrow, training reaches the same loss in far
    # fewer steps, and the divergence widens it again where that costs nothing.
    log_variance = network.quant_conv_log_sigma.conv
    with torch.no_grad():
        log_variance.weight.mul_(0.1)
        log_variance.bias.fill_(INITIAL_LOG_VARIANCE)
        if config.shortcut:
            for last in (network.quant_conv_mu.conv, network.decoder.blocks[-1].conv):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
    return network


class CompressionAutoencoder(nn.Module):
    """x to latent and back; latents are standardised per channel once their statistics are fitted.

    Args:
        config: shape of the network.
        shape: (D, H, W) of the scans, which components of patches are fitted to; other networks take any.

    Raises:
        ConfigError: if components are given no shape, or one that is not of whole patches.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: CompressionConfig, shape: tuple[int, int, int] | None = None) -> None:
        super().__init__()
        self.config = config
        self.network: Any
        if config.components is not None:
            patch = config.components.patch
            if shape is None or any(n % patch for n in shape):
                msg = f"components need a model grid of whole patches of {patch} voxels, got {shape}; change preprocessing.shape"
                raise ConfigError(msg)
            channels, *cells = config.latent_shape(shape)
            self.network = PatchComponents(config.components, channels, (cells[0], cells[1], cells[2]))
        else:
            self.network = build_network(config) if config.channels else VoxelSpace()
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def posterior(self, x: Tensor) -> Posterior:
        """The raw posterior, before standardisation, of scans (B, 1, D, H, W) in [0, 1]; any grid, padded to whole cells."""
        cell = self.config.downsampling
        padded = pad_to_multiple(x, cell)
        mean, std = self.network.encode(padded)
        mean = mean.float()
        if self.config.shortcut:
            mean = mean + to_patches(padded.float(), cell, self.config.latent_channels)
        return Posterior(mean, std.float())

    def decode_raw(self, latent: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Scans of raw latents, (B, C, d, h, w) to (B, 1, D, H, W).

        Args:
            latent: raw latents.
            shape: (D, H, W) of the scans, which takes the padding off again; without it whole cells are returned.
        """
        decoded: Tensor = self.network.decode(latent)
        if self.config.shortcut:
            decoded = decoded.float() + from_patches(latent.float(), self.config.downsampling)
        return decoded if shape is None else crop_to(decoded, shape)

    def fit_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Keep what was measured over the training split: mean and std of each latent channel, (C,).

        Raises:
            ConfigError: if a channel is constant, which no diffusion model can use.
        """
        if not bool((std > 1e-8).all()):
            msg = (
                f"latent channel stds are {std.tolist()}: a channel has collapsed; train longer or lower the KL weight"
            )
            raise ConfigError(msg)
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def encode(self, x: Tensor) -> Posterior:
        """The standardised posterior: over the training split its means have mean 0 and std 1 per channel."""
        return self.standardise(self.posterior(x))

    def standardise(self, raw: Posterior) -> Posterior:
        """The standardised posterior of a raw one, on its device."""
        mean, std = (each.to(raw.mean.device) for each in self._statistics())
        return Posterior((raw.mean - mean) / std, raw.std / std)

    def decode(self, z_0: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Scans, (B, 1, D, H, W), of standardised latents, (B, C, d, h, w); `shape` as in :meth:`decode_raw`."""
        mean, std = self._statistics()
        return self.decode_raw(z_0 * std + mean, shape)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        return self.latent_mean[:, None, None, None], self.latent_std[:, None, None, None]


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """MONAI's patch discriminator for scans (B, 1, D, H, W)."""
    from monai.networks.nets import PatchDiscriminator

    discriminator: nn.Module = PatchDiscriminator(
        spatial_dims=3, channels=config.width, in_channels=1, out_channels=1, num_layers_d=config.layers
    )
    return discriminator
