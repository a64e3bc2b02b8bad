"""Denoising losses and their weights over noise levels."""

from typing import Literal

import torch
from torch import Tensor

from ldae.diffusion.schedule import NoiseSchedule

__all__ = ["LossWeighting", "loss_weight", "velocity_loss"]

LossWeighting = Literal["constant", "representation", "velocity", "min_snr"]

MIN_SNR_GAMMA = 5.0


def loss_weight(t: Tensor, schedule: NoiseSchedule, weighting: LossWeighting) -> Tensor:
    """Weight of the squared velocity error at each timestep, (B,).

    A squared error of the noise is a_t^2 times that of the velocity, one of the clean latent b_t^2 times. So
    `constant`, the noise error of Ho et al. 2020, is a^2; `representation` is a^2 SNR^0.1 / (1 + SNR) (Zhang et al. 2022), small
    where the code has nothing to add; `velocity` is 1 (Salimans and Ho 2022); `min_snr` is b^2 min(SNR, 5) (Hang et al. 2023).
    """
    if weighting == "velocity":
        return torch.ones_like(t, dtype=torch.float32)
    snr = schedule.snr(t)
    if weighting == "min_snr":
        return schedule.sigma[t].square() * snr.clamp(max=MIN_SNR_GAMMA)
    noise_error = schedule.signal[t].square()
    if weighting == "constant":
        return noise_error
    return noise_error * snr**0.1 / (1.0 + snr)


def velocity_loss(predicted: Tensor, velocity: Tensor, weight: Tensor) -> Tensor:
    """Mean over the batch of weight x mean squared error per element, a scalar.

    Args:
        predicted: predicted velocity, (B, C, d, h, w).
        velocity: true velocity, the same shape.
        weight: (B,).
    """
    error = (predicted.float() - velocity.float()).square().flatten(1).mean(dim=1)
    return (weight * error).mean()
