"""Deterministic samplers: from a noise code to a latent, under any `predict(z, t)`.

Every function here walks an explicit, ascending time grid (:meth:`NoiseSchedule.time_grid`) from its noisy end to its clean
one; none clamps a latent, which would break inversion.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ldae.diffusion.prediction import Estimate
from ldae.diffusion.schedule import NoiseSchedule

__all__ = ["Predict", "StepCallback", "ddim_sample", "dpm_sample", "filled", "heun_sample", "heun_step", "second_order"]

Predict = Callable[[Tensor, Tensor], Estimate]
"""(z_t of (B, C, d, h, w), t of (B,)) -> what is believed of it; one call is one network evaluation."""

StepCallback = Callable[[int, Tensor], None]
"""Called after each step with the timestep reached and the latent there."""


def filled(t: int, z: Tensor) -> Tensor:
    """The timestep as a batch, (B,), on the latent's device."""
    return torch.full((z.shape[0],), t, dtype=torch.long, device=z.device)


def ddim_sample(
    predict: Predict,
    z_T: Tensor,
    *,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    record: Tensor | None = None,
    callback: StepCallback | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 with sigma = 0): each step holds the belief and changes the noise level.

    Args:
        predict: what is believed of a noisy latent.
        z_T: noise code, (B, C, d, h, w), about unit variance.
        schedule: the noise schedule.
        grid: ascending timesteps; one network evaluation for each but the first.
        record: added after each step, (len(grid) - 1, B, C, d, h, w), noisy end first, see
            :func:`ldae.diffusion.direct_invert`.
        callback: told of every step.

    Returns:
        The clean latent, the shape of `z_T`.
    """
    z = z_T
    for step, (t_from, t_to) in enumerate(pairwise(reversed(grid))):
        z = predict(z, filled(t_from, z)).at(filled(t_to, z), schedule)
        if record is not None:
            z = z + record[step]
        if callback is not None:
            callback(t_to, z)
    return z


def heun_step(predict: Predict, z: Tensor, t_from: int, t_to: int, schedule: NoiseSchedule) -> Tensor:
    """One step of Heun's method in z / a over b / a, where the slope is the noise (Karras et al. 2022, algorithm 1).

    Two network evaluations; one where the step leaves pure noise, which a DDIM step does exactly as well.
    """
    t_here, t_there = filled(t_from, z), filled(t_to, z)
    first = predict(z, t_here)
    end = first.at(t_there, schedule)
    if not bool(schedule.signal[t_from] > 0):
        return end
    second = predict(end, t_there)
    signal, sigma = schedule.signal_and_noise(t_there, z.ndim)
    signal_here, sigma_here = schedule.signal_and_noise(t_here, z.ndim)
    return end + 0.5 * (sigma - signal * sigma_here / signal_here) * (second.noise - first.noise)


def heun_sample(
    predict: Predict,
    z_T: Tensor,
    *,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    callback: StepCallback | None = None,
) -> Tensor:
    """Heun's second-order method: two network evaluations a step; arguments as for :func:`ddim_sample`."""
    z = z_T
    for t_from, t_to in pairwise(reversed(grid)):
        z = heun_step(predict, z, t_from, t_to, schedule)
        if callback is not None:
            callback(t_to, z)
    return z


def second_order(grid: Sequence[int], index: int, schedule: NoiseSchedule) -> float:
    """Factor of x_i - x_{i+1} in the step of DPM-Solver++(2M) from `grid[index]` down (Lu et al. 2022, algorithm 2).

    With lambda = log(a / b), h the step in lambda and r the former step over h, it is a' (1 - exp(-h)) / (2 r). It is 0,
    a DDIM step, at the first step and where lambda is infinite.
    """
    if index == len(grid) - 1:
        return 0.0
    signal, sigma = (buffer.double() for buffer in (schedule.signal, schedule.sigma))
    former, here, there = (
        math.log(signal[t] / sigma[t]) if signal[t] > 0 and sigma[t] > 0 else math.inf
        for t in (grid[index + 1], grid[index], grid[index - 1])
    )
    if not all(math.isfinite(value) for value in (former, here, there)):
        return 0.0
    h = there - here
    return float(signal[grid[index - 1]]) * (1.0 - math.exp(-h)) * h / (2.0 * (here - former))


def dpm_sample(
    predict: Predict,
    z_T: Tensor,
    *,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    callback: StepCallback | None = None,
) -> Tensor:
    """DPM-Solver++(2M): second order for one network evaluation a step; arguments as for :func:`ddim_sample`.

    A DDIM step plus the slope of the predicted clean latent, taken from the step before.
    """
    z, former = z_T, None
    for index in range(len(grid) - 1, 0, -1):
        estimate = predict(z, filled(grid[index], z))
        z = estimate.at(filled(grid[index - 1], z), schedule)
        if former is not None:
            z = z + second_order(grid, index, schedule) * (estimate.clean - former)
        former = estimate.clean
        if callback is not None:
            callback(grid[index - 1], z)
    return z
