"""Stage 2: the denoiser."""

from dataclasses import dataclass

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
from ldae.training.stage import Batch, Draws, OptimisationConfig, Stage

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


def draw_noisy(batch: Batch, schedule: NoiseSchedule, draws: Draws) -> Noisy:
    """A noise level and noise for each latent.

    Args:
        batch: with `latent`, (B, C, d, h, w), and perhaps `latent_std`, by which a posterior draw takes the mean's place.
        schedule: the noise schedule.
        draws: of the batch.
    """
    z_0 = batch["latent"]
    t = draws.integers(schedule.timesteps, len(z_0)).to(z_0.device)
    noise = draws.normal(z_0)
    if "latent_std" in batch:
        z_0 = z_0 + batch["latent_std"] * draws.normal(z_0)
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

    def called(self) -> list[nn.Module]:
        """Both halves of the denoiser."""
        return [self.denoiser.encoder, self.denoiser.decoder]

    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The weighted velocity error."""
        noisy = draw_noisy(batch, self.schedule, draws)
        _, predicted = denoiser_velocity(self.denoiser, noisy.z_t, noisy.t, self.schedule)
        weight = loss_weight(noisy.t, self.schedule, self.config.weighting)
        return {"loss": velocity_loss(predicted, noisy.velocity, weight)}
