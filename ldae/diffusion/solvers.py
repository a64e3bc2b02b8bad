"""Solvers by name: how a noise code is found and how it is decoded."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ldae.base.ranges import checked, count, natural, not_negative, positive
from ldae.diffusion.bdia import bdia_invert, bdia_sample
from ldae.diffusion.ddim import Predict, ddim_invert, ddim_sample
from ldae.diffusion.schedule import NoiseSchedule

__all__ = ["SamplingConfig", "invert_latents", "sample_latents"]


@dataclass(frozen=True)
@checked
class SamplingConfig:
    """Inversion to noise codes, and sampling from them.

    Attributes:
        solver: `bdia`, exact to float error; `ddim`, as published.
        steps: of the time grid; one evaluation of the networks each to decode.
        corrections: fixed-point iterations a step to encode with `ddim`, at most; `bdia` needs none.
        tolerance: a step is solved once the sampler would miss by less, rms in units of the latent's std.
        clamp: bound of the predicted clean latent; only published checkpoints want one, as it breaks inversion.
        guidance: factor of the semantic shift; codes are found with the same.
    """

    solver: Literal["bdia", "ddim"] = "bdia"
    steps: int = count(10)
    corrections: int = natural(0)
    tolerance: float = not_negative(1e-6)
    clamp: float | None = positive(None)
    guidance: float = not_negative(1.0)

    def __str__(self) -> str:
        parts = [self.solver, f"{self.steps} steps"]
        if self.corrections:
            parts.append(f"{self.corrections} corrections")
        if self.guidance != 1:
            parts.append(f"guidance {self.guidance:g}")
        if self.clamp is not None:
            parts.append(f"clamp {self.clamp:g}")
        return ", ".join(parts)


def invert_latents(
    predict: Predict, z_0: Tensor, *, schedule: NoiseSchedule, sampling: SamplingConfig
) -> tuple[Tensor, Tensor | None]:
    """Noise codes of clean latents.

    Args:
        predict: the networks.
        z_0: clean latents, (B, C, d, h, w).
        schedule: the noise schedule.
        sampling: the solver.

    Returns:
        The noise codes, the shape of `z_0`; and what an exact solver needs to come back, (1, B, C, d, h, w), or None.
    """
    grid = schedule.time_grid(sampling.steps)
    if sampling.solver == "bdia":
        return bdia_invert(predict, z_0, schedule=schedule, grid=grid)
    corrections, tolerance = sampling.corrections, sampling.tolerance
    return ddim_invert(predict, z_0, schedule=schedule, grid=grid, corrections=corrections, tolerance=tolerance), None


def sample_latents(
    predict: Predict,
    z_T: Tensor,
    *,
    schedule: NoiseSchedule,
    sampling: SamplingConfig,
    record: Tensor | None = None,
) -> Tensor:
    """Clean latents of noise codes; the way back of :func:`invert_latents`.

    Args:
        predict: the networks.
        z_T: noise codes, (B, C, d, h, w).
        schedule: the noise schedule.
        sampling: the solver that found them.
        record: what the inversion returned beside them; None for drawn codes.
    """
    grid = schedule.time_grid(sampling.steps)
    if sampling.solver == "bdia":
        return bdia_sample(predict, z_T, schedule=schedule, grid=grid, record=record)
    return ddim_sample(predict, z_T, schedule=schedule, grid=grid)
