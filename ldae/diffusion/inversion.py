"""Deterministic inversion: from a latent to the noise code that the sampler would turn back into it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ldae.diffusion.prediction import Estimate
from ldae.diffusion.samplers import Predict, StepCallback, filled, heun_step, second_order
from ldae.diffusion.schedule import NoiseSchedule
from ldae.errors import ConfigError

__all__ = ["Solve", "ddim_invert", "direct_invert", "dpm_invert", "heun_invert"]


@dataclass(frozen=True)
class Solve:
    """How hard the implicit equation of a step is solved.

    The sampler's step S takes z_{i+1} to z_i; inversion looks for the z_{i+1} with S(z_{i+1}) = z_i, starting from the
    explicit step (plain inversion, Song et al. 2021) and moving by what the sampler would miss (fixed-point
    iteration: Pan et al. 2023, Meiri et al. 2023).

    Attributes:
        corrections: iterations a step, at most; 0 is plain inversion. Each is one network evaluation.
        tolerance: stop a step once the sampler would miss by less than this, rms in units of the latent's std.
    """

    corrections: int = 0
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.corrections < 0 or self.tolerance < 0:
            msg = f"corrections and tolerance must be 0 or more, got {self}; corrections 0 is plain DDIM inversion"
            raise ConfigError(msg)


def ddim_invert(
    predict: Predict,
    z_0: Tensor,
    *,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    solve: Solve = Solve(),
    callback: StepCallback | None = None,
) -> Tensor:
    """Walk the grid from its clean end to its noisy end, against :func:`ldae.diffusion.ddim_sample`.

    The evaluation at the point found serves twice: it tells what the sampler misses there, and it is the explicit step
    onwards. So n steps cost n evaluations and one for each correction.

    Args:
        predict: what is believed of a noisy latent.
        z_0: clean latent, (B, C, d, h, w).
        schedule: the noise schedule.
        grid: ascending timesteps.
        solve: how hard each step is solved.
        callback: told of every step.

    Returns:
        The noise code, the shape of `z_0`.
    """
    z = z_0
    for step in _walk_up(predict, z_0, schedule, grid, solve, believe_last=False):
        z = step.found
        if callback is not None:
            callback(step.t_to, z)
    return z


def direct_invert(
    predict: Predict, z_0: Tensor, *, schedule: NoiseSchedule, grid: Sequence[int], solve: Solve = Solve()
) -> tuple[Tensor, Tensor]:
    """Inversion that records what the sampler misses at every step (Ju et al. 2024, direct inversion).

    Sampling with the record is exact to float error, whatever `solve` leaves; one more network evaluation than without.

    Returns:
        The noise code, the shape of `z_0`; and the record, (len(grid) - 1, B, C, d, h, w), noisy end first.
    """
    steps = list(_walk_up(predict, z_0, schedule, grid, solve))
    record = [step.target - step.estimate.at(filled(step.t_from, z_0), schedule) for step in reversed(steps)]
    return steps[-1].found, torch.stack(record)


@dataclass(frozen=True)
class _Step:
    """One step of an inversion: the point `found` at `t_to`, from which DDIM comes back to `target` at `t_from`.

    `estimate` is what is believed of the point, unless it is the last and nobody needs to know.
    """

    t_from: int
    t_to: int
    target: Tensor
    found: Tensor
    estimate: Estimate


def _walk_up(
    predict: Predict,
    z_0: Tensor,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    solve: Solve,
    *,
    believe_last: bool = True,
) -> Iterator[_Step]:
    """Solve DDIM's steps from the clean end of the grid to its noisy end; each evaluation serves the next step too."""
    z, estimate = z_0, predict(z_0, filled(grid[0], z_0))
    for t_from, t_to in pairwise(grid):
        last = t_to == grid[-1] and not believe_last
        found, estimate = _solve_step(predict, z, estimate, t_from, t_to, schedule, solve, last=last)
        yield _Step(t_from, t_to, z, found, estimate)
        z = found


def _solve_step(
    predict: Predict,
    z: Tensor,
    estimate: Estimate,
    t_from: int,
    t_to: int,
    schedule: NoiseSchedule,
    solve: Solve,
    *,
    last: bool,
) -> tuple[Tensor, Estimate]:
    """The point that the sampler's step takes to `z`, and what is believed there (not evaluated after the last step)."""
    here, there = filled(t_from, z), filled(t_to, z)
    found = estimate.at(there, schedule)
    for correction in range(solve.corrections + 1):
        final = correction == solve.corrections
        if final and last:
            break
        estimate = predict(found, there)
        if final:
            break
        missed = z - estimate.at(here, schedule)
        if _rms(missed) <= solve.tolerance:
            break
        found = found + _gain(t_from, t_to, schedule) * missed
    return found, estimate


def heun_invert(
    predict: Predict,
    z_0: Tensor,
    *,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    solve: Solve = Solve(),
    callback: StepCallback | None = None,
) -> Tensor:
    """Walk against :func:`ldae.diffusion.heun_sample`; arguments as for :func:`ddim_invert`.

    Heun's step upward is the explicit start; each correction costs the two evaluations of the sampler's step.
    """
    z = z_0
    for t_from, t_to in pairwise(grid):
        found = heun_step(predict, z, t_from, t_to, schedule)
        gain = _gain(t_from, t_to, schedule)
        for _ in range(solve.corrections):
            missed = z - heun_step(predict, found, t_to, t_from, schedule)
            if _rms(missed) <= solve.tolerance:
                break
            found = found + gain * missed
        z = found
        if callback is not None:
            callback(t_to, z)
    return z


def dpm_invert(
    predict: Predict, z_0: Tensor, *, schedule: NoiseSchedule, grid: Sequence[int], solve: Solve = Solve()
) -> Tensor:
    """Walk against :func:`ldae.diffusion.dpm_sample` (after Hong et al. 2024, on exact inversion of DPM-solvers).

    A step of the multistep sampler also reads the clean prediction of the noisier level, which inversion has not reached
    yet. The first sweep is DDIM inversion; each of `solve.corrections` further sweeps walks the whole grid again with the
    predictions of the sweep before, one evaluation a step.
    """
    if solve.corrections == 0:
        return ddim_invert(predict, z_0, schedule=schedule, grid=grid)
    steps = list(_walk_up(predict, z_0, schedule, grid, Solve()))
    path = [z_0, *(step.found for step in steps)]
    beliefs = [step.estimate for step in steps]
    for _ in range(solve.corrections):
        worst = 0.0
        for index in range(1, len(grid)):
            target, here = path[index - 1], filled(grid[index - 1], z_0)
            reached = beliefs[index - 1].at(here, schedule)
            if index < len(grid) - 1:
                slope = beliefs[index - 1].clean - beliefs[index].clean
                reached = reached + second_order(grid, index, schedule) * slope
            missed = target - reached
            worst = max(worst, _rms(missed))
            path[index] = path[index] + _gain(grid[index - 1], grid[index], schedule) * missed
            beliefs[index - 1] = predict(path[index], filled(grid[index], z_0))
        if worst <= solve.tolerance:
            break
    return path[-1]


def _gain(t_from: int, t_to: int, schedule: NoiseSchedule) -> float:
    """How far the noisier latent moves for a miss at the cleaner one, if the velocity stays."""
    signal, sigma = schedule.signal, schedule.sigma
    if not schedule.variance_preserving:
        return 1.0
    return float(signal[t_from] * signal[t_to] + sigma[t_from] * sigma[t_to])


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
