"""Stage 2: the denoiser."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldae.diffusion import LossWeighting, NoiseSchedule, as_noise, denoising_loss, loss_weight
from ldae.models.denoiser import Denoiser, DenoiserConfig
from ldae.training.stage import Batch, OptimisationConfig, Stage

__all__ = ["DenoiserStage", "DenoiserStageConfig", "draw_noisy"]


@dataclass(frozen=True)
class DenoiserStageConfig:
    """Everything that is stage 2's own.

    Attributes:
        model: shape of the UNet.
        weighting: of the loss over noise levels.
        optimisation: how it is optimised.
    """

    model: DenoiserConfig = DenoiserConfig()
    weighting: LossWeighting = "constant"
    optimisation: OptimisationConfig = OptimisationConfig()


def draw_noisy(z_0: Tensor, schedule: NoiseSchedule, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A noise level and noise for each latent.

    Args:
        z_0: clean latents, (B, C, d, h, w).
        schedule: the noise schedule.
        generator: of both draws, on the CPU.

    Returns:
        z_t, the noise, and the timesteps (B,).
    """
    t = torch.randint(schedule.timesteps, (z_0.shape[0],), generator=generator).to(z_0.device)
    noise = torch.randn(z_0.shape, generator=generator).to(z_0.device)
    return schedule.add_noise(z_0, noise, t), noise, t


class DenoiserStage(Stage):
    """E[|| eps - eps_theta(z_t, t) ||^2] over cached latents (Ho et al. 2020).

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
        """The weighted noise error."""
        z_t, noise, t = draw_noisy(batch["latent"], self.schedule, generator)
        weight = loss_weight(t, self.schedule, self.config.weighting)
        output = self.denoiser(z_t, t).float()
        eps = as_noise(output, z_t, t, self.schedule, self.denoiser.config.prediction)
        return {"loss": denoising_loss(eps, noise, weight)}
