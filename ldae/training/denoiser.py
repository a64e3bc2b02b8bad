"""Stage 2: the denoiser."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldae.diffusion import (
    Estimate,
    LossWeighting,
    NoiseSchedule,
    loss_weight,
    velocity_loss,
    velocity_of,
)
from ldae.models.denoiser import Denoiser, DenoiserConfig
from ldae.networks import denoiser_velocity
from ldae.training.stage import Batch, OptimisationConfig, Stage

__all__ = ["DenoiserStage", "DenoiserStageConfig", "Noisy", "draw_noisy"]


@dataclass(frozen=True)
class DenoiserStageConfig:
    """Everything that is stage 2's own.

    Attributes:
        model: shape of the UNet.
        initial_weights: safetensors to start from, of `ldae convert denoiser` or of another run's stage. With a frozen
            compression, latents keep its scale, which these weights know.
        frozen: keep the initial weights, or those of the model that is fine-tuned, as they are.
        weighting: of the loss over noise levels.
        optimisation: how it is optimised.
    """

    model: DenoiserConfig = DenoiserConfig()
    initial_weights: str | None = None
    frozen: bool = False
    weighting: LossWeighting = "constant"
    optimisation: OptimisationConfig = OptimisationConfig()


@dataclass(frozen=True)
class Noisy:
    """Latents with noise.

    Attributes:
        z_t: (B, C, d, h, w).
        velocity: the true one, the same shape.
        t: timesteps, (B,).
    """

    z_t: Tensor
    velocity: Tensor
    t: Tensor


def draw_noisy(batch: Batch, schedule: NoiseSchedule, generator: torch.Generator) -> Noisy:
    """A noise level and noise for each latent.

    Args:
        batch: with `latent`, (B, C, d, h, w), and perhaps `latent_std`, by which a posterior draw takes the mean's place.
        schedule: the noise schedule.
        generator: of all draws, on any device.
    """
    z_0 = batch["latent"]

    def draw() -> Tensor:
        return torch.randn(z_0.shape, generator=generator, device=generator.device).to(z_0.device)

    t = torch.randint(schedule.timesteps, (len(z_0),), generator=generator, device=generator.device).to(z_0.device)
    noise = draw()
    if "latent_std" in batch:
        z_0 = z_0 + batch["latent_std"] * draw()
    return Noisy(schedule.add_noise(z_0, noise, t), velocity_of(Estimate(z_0, noise), t, schedule), t)


class DenoiserStage(Stage):
    """E[|| eps - eps_theta(z_t, t) ||^2] over cached latents (Ho et al. 2020), or another weighting of the noise levels.

    Args:
        config: of the stage.
        denoiser: what learns.
        schedule: the noise schedule.
        seed: of the noise.
    """

    def __init__(self, config: DenoiserStageConfig, denoiser: Denoiser, schedule: NoiseSchedule, seed: int) -> None:
        super().__init__(config.optimisation, seed)
        self.config = config
        self.denoiser = denoiser
        self.schedule = schedule

    def averaged(self) -> nn.Module:
        """The denoiser."""
        return self.denoiser

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The weighted velocity error."""
        noisy = draw_noisy(batch, self.schedule, generator)
        _, predicted = denoiser_velocity(self.denoiser, noisy.z_t, noisy.t, self.schedule)
        weight = loss_weight(noisy.t, self.schedule, self.config.weighting)
        return {"loss": velocity_loss(predicted, noisy.velocity, weight)}
