"""Denoising losses and their weights over noise levels."""

from typing import Literal

import torch
from torch import Tensor

from ldae.diffusion.schedule import NoiseSchedule

__all__ = ["LossWeighting", "denoising_loss", "loss_weight"]

LossWeighting = Literal["constant", "representation", "velocity"]


def loss_weight(t: Tensor, schedule: NoiseSchedule, weighting: LossWeighting) -> Tensor:
    """Weight of the squared noise error at each timestep, (B,).

    `constant` is Ho et al. 2020. `representation` is SNR^0.1 / (1 + SNR) (Zhang et al. 2022), which leaves out
    the levels where the code has nothing to add. `velocity` is 1 / alpha_bar, which makes it the squared error of the
    velocity (Salimans and Ho 2022) and asks for the clean latent even near pure noise.
    """
    if weighting == "constant":
        return torch.ones_like(t, dtype=torch.float32)
    if weighting == "velocity":
        return 1.0 / schedule.alpha_bar[t]
    snr = schedule.snr(t)
    return snr**0.1 / (1.0 + snr)


def denoising_loss(predicted: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Mean over the batch of weight x mean squared error per element, a scalar.

    Args:
        predicted: predicted noise, (B, C, d, h, w).
        noise: true noise, the same shape.
        weight: (B,).
    """
    error = (predicted.float() - noise.float()).square().flatten(1).mean(dim=1)
    return (weight * error).mean()
