"""Deterministic inversion: from a latent to the noise code that the sampler would turn back into it."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from ldae.diffusion.samplers import Predict, StepCallback, ddim_step, filled
from ldae.diffusion.schedule import NoiseSchedule
from ldae.errors import ConfigError

__all__ = ["ddim_invert"]


def ddim_invert(
    predict: Predict,
    z_0: Tensor,
    *,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    corrections: int = 0,
    callback: StepCallback | None = None,
) -> Tensor:
    """Walk from the clean end of the grid to its noisy end.

    Plain inversion (`corrections` = 0; Song et al. 2021) predicts the noise at the point it leaves, whereas the sampler
    predicts it at the point it leaves in the other direction: the round trip drifts. Each correction solves for the point
    that the sampler's own step would bring back here, by one fixed-point iteration z' = step(z, predict(z', t_to))
    (Pan et al. 2023, accelerated iterative diffusion inversion).

    Args:
        predict: the noise prediction.
        z_0: clean latent, (B, C, d, h, w).
        schedule: the noise schedule.
        grid: ascending timesteps.
        corrections: fixed-point iterations a step; the cost is 1 + `corrections` network evaluations a step.
        callback: told of every step.

    Returns:
        The noise code, the shape of `z_0`.
    """
    if corrections < 0:
        msg = f"corrections must be 0 or more, got {corrections}; 0 is plain DDIM inversion"
        raise ConfigError(msg)
    z = z_0
    for t_from, t_to in pairwise(grid):
        z_next = ddim_step(z, predict(z, filled(t_from, z)), t_from, t_to, schedule)
        for _ in range(corrections):
            z_next = ddim_step(z, predict(z_next, filled(t_to, z)), t_from, t_to, schedule)
        z = z_next
        if callback is not None:
            callback(t_to, z)
    return z
