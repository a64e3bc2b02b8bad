"""Deterministic samplers: from a noise code to a latent, under any `predict(z, t)`.

Every function here walks an explicit, ascending time grid (:meth:`NoiseSchedule.time_grid`); none clamps a latent, which
would break inversion.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ldae.diffusion.prediction import clean_from_noise
from ldae.diffusion.schedule import NoiseSchedule

__all__ = ["Predict", "StepCallback", "ddim_sample", "ddim_step", "filled"]

Predict = Callable[[Tensor, Tensor], Tensor]
"""(z_t of (B, C, d, h, w), t of (B,)) -> predicted noise, the shape of z_t."""

StepCallback = Callable[[int, Tensor], None]
"""Called after each step with the timestep reached and the latent there."""


def filled(t: int, z: Tensor) -> Tensor:
    """The timestep as a batch, (B,), on the latent's device."""
    return torch.full((z.shape[0],), t, dtype=torch.long, device=z.device)


def ddim_step(z: Tensor, eps: Tensor, t_from: int, t_to: int, schedule: NoiseSchedule) -> Tensor:
    """One deterministic step between two noise levels, in either direction (Song et al. 2021, eq. 12, sigma = 0).

    Args:
        z: latent at `t_from`, (B, C, d, h, w).
        eps: predicted noise, the same shape.
        t_from: the timestep of `z`.
        t_to: the timestep to reach.
        schedule: the noise schedule.
    """
    z_0 = clean_from_noise(z, eps, filled(t_from, z), schedule)
    return schedule.add_noise(z_0, eps, filled(t_to, z))


def ddim_sample(
    predict: Predict,
    z_T: Tensor,
    *,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    callback: StepCallback | None = None,
) -> Tensor:
    """Walk from the noisy end of the grid to its clean end.

    Args:
        predict: the noise prediction.
        z_T: noise code, (B, C, d, h, w), about unit variance.
        schedule: the noise schedule.
        grid: ascending timesteps; one network evaluation for each but the first.
        callback: told of every step.

    Returns:
        The clean latent, the shape of `z_T`.
    """
    z = z_T
    for t_from, t_to in zip(reversed(grid[1:]), reversed(grid[:-1]), strict=True):
        z = ddim_step(z, predict(z, filled(t_from, z)), t_from, t_to, schedule)
        if callback is not None:
            callback(t_to, z)
    return z
