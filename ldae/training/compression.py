"""Stage 1: the compression autoencoder."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldae.errors import ConfigError
from ldae.hardware import channels_last
from ldae.models.compression import (
    CompressionAutoencoder,
    CompressionConfig,
    DiscriminatorConfig,
    build_discriminator,
)
from ldae.training.perceptual import PerceptualConfig, build_perceptual
from ldae.training.stage import Batch, OptimisationConfig, Stage, build_scheduler

__all__ = ["CompressionLossConfig", "CompressionStage", "CompressionStageConfig"]


@dataclass(frozen=True)
class CompressionLossConfig:
    """Weights of the terms; every term is a mean per element.

    Attributes:
        kl: of the divergence per latent element. Published: 1e-7 of a sum over 15,360 elements, 1.5e-3 of the mean.
        adversarial: of the generator's least-squares patch loss.
        adversarial_start: step from which the discriminator plays.
        perceptual: the perceptual term.
    """

    kl: float = 1.5e-3
    adversarial: float = 0.025
    adversarial_start: int = 0
    perceptual: PerceptualConfig = PerceptualConfig()


@dataclass(frozen=True)
class CompressionStageConfig:
    """Everything that is stage 1's own.

    Attributes:
        model: shape of the autoencoder.
        initial_weights: safetensors to start from, of `ldae convert autoencoder` or of another run's stage.
        frozen: keep the initial weights as they are; only the latents' statistics are measured.
        discriminator: shape of the discriminator.
        loss: weights of the terms.
        optimisation: how it is optimised.

    Raises:
        ConfigError: if nothing that could be frozen is named.
    """

    model: CompressionConfig = CompressionConfig()
    initial_weights: str | None = None
    frozen: bool = False
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: CompressionLossConfig = CompressionLossConfig()
    optimisation: OptimisationConfig = OptimisationConfig()

    def __post_init__(self) -> None:
        if self.frozen and self.initial_weights is None:
            msg = "compression.frozen needs compression.initial_weights, the weights to keep; name them, or train"
            raise ConfigError(msg)

    @property
    def trains(self) -> bool:
        """True if the stage has weights to learn."""
        return bool(self.model.channels) and not self.frozen


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
        self.automatic_optimization = False
        self.autoencoder = channels_last(autoencoder)
        self.perceptual = build_perceptual(config.loss.perceptual)
        self.discriminator: nn.Module | None = None
        if config.loss.adversarial > 0:
            from monai.losses import PatchAdversarialLoss

            self.discriminator = build_discriminator(config.discriminator)
            self.adversarial = PatchAdversarialLoss(criterion="least_squares")

    def averaged(self) -> nn.Module:
        """The autoencoder's network; its statistics are measured, not learnt."""
        network: nn.Module = self.autoencoder.network
        return network

    @property
    def plays(self) -> bool:
        """True if the adversarial term counts at this step."""
        return self.discriminator is not None and self.steps_done >= self.config.loss.adversarial_start

    def reconstruct(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A reconstruction through one posterior draw, and the divergence per element, (B,)."""
        x = x.contiguous(memory_format=torch.channels_last_3d)
        posterior = self.autoencoder.posterior(x)
        return self.autoencoder.decode_raw(posterior.sample(generator), x.shape[2:]).float(), posterior.kl()

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The autoencoder's losses."""
        return self._autoencoder_losses(batch["image"], generator)[0]

    def _autoencoder_losses(self, x: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        reconstruction, divergence = self.reconstruct(x, generator)
        weights = self.config.loss
        losses = {"l1": (reconstruction - x).abs().mean(), "kl": divergence.mean()}
        losses["loss"] = losses["l1"] + weights.kl * losses["kl"]
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(reconstruction, x).mean()
            losses["loss"] = losses["loss"] + weights.perceptual.weight * losses["perceptual"]
        if self.plays and self.training:
            assert self.discriminator is not None
            verdict = self.discriminator(reconstruction.contiguous())[-1]
            losses["adversarial"] = self.adversarial(verdict.float(), target_is_real=True, for_discriminator=False)
            losses["loss"] = losses["loss"] + weights.adversarial * losses["adversarial"]
        return losses, reconstruction

    def passes(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """The autoencoder's pass, with the discriminator's weights frozen, then the discriminator's."""
        x, discriminator = batch["image"], self.discriminator
        plays = self.plays
        if discriminator is not None:
            discriminator.requires_grad_(False)
        with self.keeping_activations():
            losses, reconstruction = self._autoencoder_losses(x, self.step_generator())
        yield losses["loss"], losses
        if discriminator is None:
            return
        discriminator.requires_grad_(True)
        if plays:
            fake = discriminator(reconstruction.detach().contiguous())[-1].float()
            real = discriminator(x.contiguous())[-1].float()
            loss = 0.5 * (
                self.adversarial(fake, target_is_real=False, for_discriminator=True)
                + self.adversarial(real, target_is_real=True, for_discriminator=True)
            )
            yield loss, {"discriminator": loss}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """A step of the autoencoder, then one of the discriminator."""
        self._begin_step(batch)
        losses: dict[str, Tensor] = {}
        for optimizer, scheduler, name, (loss, named) in zip(
            *self._optimizers(), ("gradient_norm", "discriminator_gradient_norm"), self.passes(batch), strict=False
        ):
            losses |= named
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradient(optimizer, name)
            optimizer.step()
            scheduler.step()
        self._finish_step(losses)
        return losses["loss"].detach()

    def _optimizers(self) -> tuple[list[Any], list[Any]]:
        optimizers, schedulers = self.optimizers(), self.lr_schedulers()
        if not isinstance(optimizers, list):
            return [optimizers], [schedulers]
        assert isinstance(schedulers, list)
        return optimizers, schedulers

    def configure_optimizers(self) -> Any:
        """One optimizer for each side."""
        sides: list[nn.Module] = [self.averaged()]
        if self.discriminator is not None:
            sides.append(self.discriminator)
        optimizers = [
            torch.optim.AdamW(
                side.parameters(),
                lr=self.optimisation.learning_rate,
                weight_decay=self.optimisation.weight_decay,
            )
            for side in sides
        ]
        return optimizers, [build_scheduler(optimizer, self.optimisation) for optimizer in optimizers]
