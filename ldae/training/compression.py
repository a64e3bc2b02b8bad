"""Stage 1: the compression autoencoder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from monai.losses import JukeboxLoss, PerceptualLoss
from torch import Tensor, nn

from ldae.base.hardware import channels_last
from ldae.base.ranges import checked, natural, not_negative
from ldae.errors import ConfigError, DependencyError
from ldae.io.checkpoints import load_tensors
from ldae.models.compression import (
    CompressionAutoencoder,
    CompressionConfig,
    DiscriminatorConfig,
    build_discriminator,
)
from ldae.training.stage import Batch, Draws, OptimisationConfig, Stage

__all__ = [
    "CompressionLossConfig",
    "CompressionStage",
    "CompressionStageConfig",
    "PerceptualConfig",
    "build_perceptual",
]


@dataclass(frozen=True)
@checked
class PerceptualConfig:
    """Which features two images are compared in.

    Attributes:
        kind: `none`; `spectral`, the amplitude of the Fourier transform (Dhariwal et al. 2020), which needs no weights;
            `medicalnet`, a 3D network (Chen et al. 2019); or `lpips`, a 2D one over slices (Zhang et al. 2018; the extra
            ldae[lpips]).
        weight: of the term.
        weights: file of the pretrained network; without it the network's own loader looks in torch's cache and then
            downloads.
    """

    kind: Literal["none", "spectral", "medicalnet", "lpips"] = "none"
    weight: float = not_negative(1e-3)
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not Path(self.weights).is_file():
            msg = f"perceptual weights {self.weights}: no such file; give the path of the downloaded weights"
            raise ConfigError(msg)


@dataclass(frozen=True)
@checked
class CompressionLossConfig:
    """Weights of the terms; every term is a mean per element.

    Attributes:
        kl: of the divergence per latent element. Published: 1e-7 of a sum over 15,360 elements, 1.5e-3 of the mean.
        adversarial: of the generator's least-squares patch loss.
        adversarial_start: step from which the discriminator plays.
        perceptual: the perceptual term.
    """

    kl: float = not_negative(1.5e-3)
    adversarial: float = not_negative(0.025)
    adversarial_start: int = natural(0)
    perceptual: PerceptualConfig = PerceptualConfig()


@dataclass(frozen=True)
class CompressionStageConfig:
    """Everything that is stage 1's own.

    Attributes:
        model: shape of the autoencoder.
        initial_weights: safetensors to start from, of `ldae convert autoencoder` or of another run's stage.
        frozen: keep the initial weights, or those of the model that is fine-tuned, as they are.
        discriminator: shape of the discriminator.
        loss: weights of the terms.
        optimisation: how it is optimised.

    """

    model: CompressionConfig = CompressionConfig()
    initial_weights: str | None = None
    frozen: bool = False
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: CompressionLossConfig = CompressionLossConfig()
    optimisation: OptimisationConfig = OptimisationConfig()

    @property
    def trains(self) -> bool:
        """True if the stage has weights to learn."""
        return bool(self.model.channels) and not self.frozen


def patch_loss(discriminator: nn.Module, x: Tensor, target: float) -> Tensor:
    """Least-squares loss of the discriminator's patches, a scalar (Mao et al. 2017), through MONAI's leaky ReLU.

    Args:
        discriminator: MONAI's, whose last output counts.
        x: scans, (B, 1, D, H, W).
        target: 1 for real scans, 0 for reconstructions.
    """
    return (F.leaky_relu(discriminator(x.contiguous())[-1].float(), 0.05) - target).square().mean()


class CompressionStage(Stage):
    """L1 + KL + perceptual + patch-adversarial (Rombach et al. 2022), all on scans in [0, 1].

    Args:
        config: of the stage.
        autoencoder: what learns.
        seed: of the posterior's draws.
    """

    def __init__(self, config: CompressionStageConfig, autoencoder: CompressionAutoencoder, seed: int) -> None:
        super().__init__(config.optimisation, seed)
        self.config = config
        self.autoencoder = channels_last(autoencoder)
        self.perceptual = build_perceptual(config.loss.perceptual)
        self.discriminator: nn.Module | None = None
        if config.loss.adversarial > 0:
            self.discriminator = build_discriminator(config.discriminator)

    def averaged(self) -> nn.Module:
        """The autoencoder's network; its statistics are measured, not learnt."""
        network: nn.Module = self.autoencoder.network
        return network

    def learners(self) -> list[nn.Module]:
        """The autoencoder's network, and the discriminator if there is one."""
        return [self.averaged(), *([] if self.discriminator is None else [self.discriminator])]

    def called(self) -> list[nn.Module]:
        """Both halves of the autoencoder's network, and the discriminator if there is one."""
        network = self.autoencoder.network
        return [network.encoder, network.decoder, *self.learners()[1:]]

    @property
    def plays(self) -> bool:
        """True if the adversarial term counts at this step."""
        return self.discriminator is not None and self.steps_done >= self.config.loss.adversarial_start

    def reconstruct(self, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """A reconstruction through one posterior draw, and the divergence per element, (B,)."""
        x = x.contiguous(memory_format=torch.channels_last_3d)
        posterior = self.autoencoder.posterior(x)
        drawn = posterior.mean + posterior.std * draws.normal(posterior.mean)
        return self.autoencoder.decode_raw(drawn, x.shape[2:]).float(), posterior.kl()

    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The autoencoder's losses."""
        return self._autoencoder_losses(batch["image"], draws)[0]

    def _autoencoder_losses(self, x: Tensor, draws: Draws) -> tuple[dict[str, Tensor], Tensor]:
        reconstruction, divergence = self.reconstruct(x, draws)
        weights = self.config.loss
        losses = {"l1": (reconstruction - x).abs().mean(), "kl": divergence.mean()}
        losses["loss"] = losses["l1"] + weights.kl * losses["kl"]
        if self.perceptual is not None:
            # One by one: some normalise by the mean of all that they are given.
            each = [self.perceptual(*pair).mean() for pair in zip(reconstruction[:, None], x[:, None], strict=True)]
            losses["perceptual"] = torch.stack(each).mean()
            losses["loss"] = losses["loss"] + weights.perceptual.weight * losses["perceptual"]
        if self.plays and self.training:
            assert self.discriminator is not None
            losses["adversarial"] = patch_loss(self.discriminator, reconstruction, 1.0)
            losses["loss"] = losses["loss"] + weights.adversarial * losses["adversarial"]
        return losses, reconstruction

    def passes(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """The autoencoder's pass, with the discriminator's weights frozen, then the discriminator's."""
        x, discriminator = batch["image"], self.discriminator
        if discriminator is not None:
            discriminator.requires_grad_(False)
        with self.keeping_activations():
            losses, reconstruction = self._autoencoder_losses(x, self.draws(batch))
        yield losses["loss"], losses
        if discriminator is None:
            return
        discriminator.requires_grad_(True)
        if self.plays:
            loss = 0.5 * (patch_loss(discriminator, reconstruction.detach(), 0.0) + patch_loss(discriminator, x, 1.0))
            yield loss, {"discriminator": loss}


def build_perceptual(config: PerceptualConfig) -> nn.Module | None:
    """A module of two batches of scans, (B, 1, D, H, W), float32, to a scalar; None for kind `none`.

    Raises:
        DependencyError: if the pretrained network cannot be had, naming what to install or to give.
    """
    if config.kind == "none" or config.weight == 0:
        return None
    if config.kind == "spectral":
        spectral: nn.Module = JukeboxLoss(spatial_dims=3)
        return spectral
    network = {"medicalnet": "medicalnet_resnet10_23datasets", "lpips": "alex"}[config.kind]
    try:
        loss: nn.Module = PerceptualLoss(
            spatial_dims=3,
            network_type=network,
            is_fake_3d=config.kind == "lpips",
            fake_3d_ratio=0.25,
            pretrained=config.weights is None,
        )
        if config.weights is not None:
            _load_weights(loss, Path(config.weights))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        remedy = (
            "install 'ldae[lpips]' and give compression.loss.perceptual.weights"
            if config.kind == "lpips"
            else "give compression.loss.perceptual.weights, a local file"
        )
        msg = f"the perceptual network {network} cannot be loaded ({reason}); {remedy}, or choose kind 'spectral'"
        raise DependencyError(msg) from error
    return loss.eval().requires_grad_(False)


def _load_weights(loss: nn.Module, path: Path) -> None:
    state: Any
    if path.suffix == ".safetensors":
        state, _ = load_tensors(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    wrapped: Any = loss.perceptual_function
    target = getattr(wrapped, "model", wrapped)
    target.load_state_dict(state, strict=True)
