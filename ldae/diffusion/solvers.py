"""Solvers by name: how a noise code is found and how it is decoded."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ldae.diffusion.exact import bdia_invert, bdia_sample
from ldae.diffusion.inversion import Solve, ddim_invert, direct_invert, dpm_invert, heun_invert
from ldae.diffusion.samplers import Predict, ddim_sample, dpm_sample, heun_sample
from ldae.diffusion.schedule import NoiseSchedule
from ldae.errors import ConfigError

__all__ = ["SamplingConfig", "Solver", "invert_latents", "sample_latents"]

Solver = Literal["ddim", "direct", "bdia", "dpm", "heun"]


@dataclass(frozen=True)
class SamplingConfig:
    """How noise codes are found and decoded.

    Attributes:
        solver: `bdia`, exact to float error; `ddim`, as published; `direct`, DDIM with what it misses recorded at every step;
            `dpm`, DPM-Solver++(2M); `heun`.
        steps: of the time grid; one evaluation of the networks each to decode (two for `heun`).
        corrections: iterations a step to encode with `ddim`, `direct` and `heun`, sweeps with `dpm`, at most; `bdia` needs none.
        tolerance: a step is solved once the sampler would miss by less, rms in units of the latent's std.
        clamp: bound of the predicted clean latent; only published checkpoints want one, as it breaks inversion.
        guidance: factor of the semantic shift; codes are found with the same.
        reuse: evaluate the coarse levels of the networks only every so many steps (DeepCache: Ma et al. 2024); 1 is exact.
    """

    solver: Solver = "bdia"
    steps: int = 10
    corrections: int = 0
    tolerance: float = 1e-6
    clamp: float | None = None
    guidance: float = 1.0
    reuse: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.reuse < 1 or (self.clamp is not None and self.clamp <= 0):
            msg = (
                f"sampling.steps and sampling.reuse must be at least 1 and sampling.clamp positive or null, got {self}"
            )
            raise ConfigError(msg)
        Solve(self.corrections, self.tolerance)

    def __str__(self) -> str:
        parts = [self.solver, f"{self.steps} steps"]
        if self.corrections:
            parts.append(f"{self.corrections} corrections")
        parts += [
            f"{name} {value:g}" for name, value in (("guidance", self.guidance), ("reuse", self.reuse)) if value != 1
        ]
        if self.clamp is not None:
            parts.append(f"clamp {self.clamp:g}")
        return ", ".join(parts)


def invert_latents(
    predict: Predict, z_0: Tensor, *, schedule: NoiseSchedule, sampling: SamplingConfig
) -> tuple[Tensor, Tensor | None]:
    """Noise codes of clean latents.

    Args:
        predict: what is believed of a noisy latent.
        z_0: clean latents, (B, C, d, h, w).
        schedule: the noise schedule.
        sampling: the solver.

    Returns:
        The noise codes, the shape of `z_0`; and what an exact solver must be told to come back, (K, B, C, d, h, w), or None.
    """
    grid = schedule.time_grid(sampling.steps)
    solve = Solve(sampling.corrections, sampling.tolerance)
    if sampling.solver == "bdia":
        return bdia_invert(predict, z_0, schedule=schedule, grid=grid)
    if sampling.solver == "direct":
        return direct_invert(predict, z_0, schedule=schedule, grid=grid, solve=solve)
    invert = {"ddim": ddim_invert, "heun": heun_invert, "dpm": dpm_invert}[sampling.solver]
    return invert(predict, z_0, schedule=schedule, grid=grid, solve=solve), None


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
        predict: what is believed of a noisy latent.
        z_T: noise codes, (B, C, d, h, w).
        schedule: the noise schedule.
        sampling: the solver that found them.
        record: what the inversion returned beside them; None for drawn codes.
    """
    grid = schedule.time_grid(sampling.steps)
    if sampling.solver == "bdia":
        return bdia_sample(predict, z_T, schedule=schedule, grid=grid, record=record)
    if sampling.solver in ("ddim", "direct"):
        return ddim_sample(predict, z_T, schedule=schedule, grid=grid, record=record)
    sample = dpm_sample if sampling.solver == "dpm" else heun_sample
    return sample(predict, z_T, schedule=schedule, grid=grid)
