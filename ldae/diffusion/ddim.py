"""DDIM: from a noise code to a latent and back, under any `predict(z, t)`; inversion solves each step by fixed points."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ldae.diffusion.prediction import Estimate
from ldae.diffusion.schedule import NoiseSchedule

__all__ = ["Predict", "ddim_invert", "ddim_sample", "filled"]

Predict = Callable[[Tensor, Tensor], Estimate]
"""(z_t of (B, C, d, h, w), t of (B,)) -> the estimate of z_0 and eps; one call is one network evaluation."""


def filled(t: int, z: Tensor) -> Tensor:
    """The timestep as a batch, (B,), on the latent's device."""
    return torch.full((z.shape[0],), t, dtype=torch.long, device=z.device)


def ddim_sample(predict: Predict, z_T: Tensor, *, schedule: NoiseSchedule, grid: Sequence[int]) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 with sigma = 0): each step holds the estimate and changes the noise level.

    Args:
        predict: the networks.
        z_T: noise code, (B, C, d, h, w), about unit variance.
        schedule: the noise schedule.
        grid: ascending timesteps, walked from the last to the first; one network evaluation a step.

    Returns:
        The clean latent, the shape of `z_T`.
    """
    z = z_T
    for t_from, t_to in pairwise(reversed(grid)):
        z = predict(z, filled(t_from, z)).at(filled(t_to, z), schedule)
    return z


def ddim_invert(
    predict: Predict,
    z_0: Tensor,
    *,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    corrections: int = 0,
    tolerance: float = 1e-6,
) -> Tensor:
    """The noise code that :func:`ddim_sample` turns into a latent.

    The sampler's step S takes z_{i+1} to z_i. Inversion looks for the z_{i+1} with S(z_{i+1}) = z_i: it starts from the explicit
    step (Song et al. 2021) and moves by what the sampler would miss (fixed-point iteration: Pan et al. 2023, Meiri et al. 2023).
    An evaluation serves twice, as the test of a point and as the explicit step onwards, so n steps cost n evaluations and one
    for each correction.

    Args:
        predict: the networks.
        z_0: clean latent, (B, C, d, h, w).
        schedule: the noise schedule.
        grid: ascending timesteps.
        corrections: iterations a step, at most; 0 is plain inversion.
        tolerance: a step is solved once the sampler would miss by less, rms in units of the latent's std.

    Returns:
        The noise code, the shape of `z_0`.
    """
    z, estimate = z_0, predict(z_0, filled(grid[0], z_0))
    for t_from, t_to in pairwise(grid):
        here, there = filled(t_from, z), filled(t_to, z)
        found = estimate.at(there, schedule)
        for correction in range(corrections + 1):
            if correction == corrections and t_to == grid[-1]:
                break  # nothing reads an estimate at the last point
            estimate = predict(found, there)
            missed = z - estimate.at(here, schedule)
            if correction == corrections or float(missed.square().mean().sqrt()) <= tolerance:
                break
            found = found + _gain(t_from, t_to, schedule) * missed
        z = found
    return z


def _gain(t_from: int, t_to: int, schedule: NoiseSchedule) -> float:
    """Movement of the noisier latent for a miss of 1 at the cleaner one, if the velocity stays."""
    signal, sigma = schedule.signal, schedule.sigma
    if not schedule.variance_preserving:
        return 1.0
    return float(signal[t_from] * signal[t_to] + sigma[t_from] * sigma[t_to])
