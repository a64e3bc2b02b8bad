"""Diffusion as arithmetic: schedules, predictions, samplers, inversion, losses. Knows no network."""

from ldae.diffusion.exact import bdia_invert, bdia_sample
from ldae.diffusion.inversion import Solve, ddim_invert, direct_invert, dpm_invert, heun_invert
from ldae.diffusion.losses import LossWeighting, loss_weight, velocity_loss
from ldae.diffusion.prediction import (
    Estimate,
    Prediction,
    ShiftForm,
    check_forms,
    estimate_from_noise,
    estimate_from_velocity,
    interpret,
    shift_scale,
    velocity_of,
)
from ldae.diffusion.samplers import Predict, StepCallback, ddim_sample, dpm_sample, heun_sample
from ldae.diffusion.schedule import NoiseSchedule, ScheduleConfig
from ldae.diffusion.solvers import SamplingConfig, Solver, invert_latents, sample_latents

__all__ = [
    "Estimate",
    "LossWeighting",
    "NoiseSchedule",
    "Predict",
    "Prediction",
    "SamplingConfig",
    "ScheduleConfig",
    "ShiftForm",
    "Solve",
    "Solver",
    "StepCallback",
    "bdia_invert",
    "bdia_sample",
    "check_forms",
    "ddim_invert",
    "ddim_sample",
    "direct_invert",
    "dpm_invert",
    "dpm_sample",
    "estimate_from_noise",
    "estimate_from_velocity",
    "heun_invert",
    "heun_sample",
    "interpret",
    "invert_latents",
    "loss_weight",
    "sample_latents",
    "shift_scale",
    "velocity_loss",
    "velocity_of",
]
