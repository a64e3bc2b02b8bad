"""An algebraically exact pair of sampler and inversion (BDIA, Zhang et al. 2024)."""

from collections.abc import Sequence

from torch import Tensor

from ldae.diffusion.ddim import Predict, filled
from ldae.diffusion.schedule import NoiseSchedule

__all__ = ["bdia_invert", "bdia_sample"]


def bdia_sample(
    predict: Predict, z_T: Tensor, *, schedule: NoiseSchedule, grid: Sequence[int], record: Tensor | None = None
) -> Tensor:
    """Bi-directional integration approximation: z_{i-1} = z_{i+1} + D(z_i -> t_{i-1}) - D(z_i -> t_{i+1}), D a DDIM step.

    It is linear in the outer two states, so it can be solved for either: sampling and inversion undo one another to float error.
    It is of second order, at one network evaluation a step. The first step is DDIM's.

    Args:
        predict: the networks.
        z_T: noise code, (B, C, d, h, w).
        schedule: the noise schedule.
        grid: ascending timesteps.
        record: the first step's error that the inversion returned, (1, B, C, d, h, w); None for a drawn code.

    Returns:
        The clean latent, the shape of `z_T`.
    """
    above, here = z_T, predict(z_T, filled(grid[-1], z_T)).at(filled(grid[-2], z_T), schedule)
    if record is not None:
        here = here + record[0]
    for index in range(len(grid) - 2, 0, -1):
        estimate = predict(here, filled(grid[index], z_T))
        up, down = (estimate.at(filled(grid[other], z_T), schedule) for other in (index + 1, index - 1))
        above, here = here, above - up + down
    return here


def bdia_invert(
    predict: Predict, z_0: Tensor, *, schedule: NoiseSchedule, grid: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`bdia_sample`; n steps cost n + 1 network evaluations.

    Returns:
        The noise code, the shape of `z_0`; and the record, (1, B, C, d, h, w).
    """
    below, here = z_0, predict(z_0, filled(grid[0], z_0)).at(filled(grid[1], z_0), schedule)
    for index in range(1, len(grid) - 1):
        estimate = predict(here, filled(grid[index], z_0))
        up, down = (estimate.at(filled(grid[other], z_0), schedule) for other in (index + 1, index - 1))
        below, here = here, below - down + up
    missed = below - predict(here, filled(grid[-1], z_0)).at(filled(grid[-2], z_0), schedule)
    return here, missed[None]
