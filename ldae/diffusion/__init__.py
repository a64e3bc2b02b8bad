"""Diffusion as arithmetic: schedules, predictions, samplers, inversion, losses. Knows no network."""

from ldae.diffusion.bdia import bdia_invert, bdia_sample
from ldae.diffusion.ddim import Predict, ddim_invert, ddim_sample
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
from ldae.diffusion.schedule import NoiseSchedule, ScheduleConfig
from ldae.diffusion.solvers import SamplingConfig, invert_latents, sample_latents

__all__ = [
    "Estimate",
    "LossWeighting",
    "NoiseSchedule",
    "Predict",
    "Prediction",
    "SamplingConfig",
    "ScheduleConfig",
    "ShiftForm",
    "bdia_invert",
    "bdia_sample",
    "check_forms",
    "ddim_invert",
    "ddim_sample",
    "estimate_from_noise",
    "estimate_from_velocity",
    "interpret",
    "invert_latents",
    "loss_weight",
    "sample_latents",
    "shift_scale",
    "velocity_loss",
    "velocity_of",
]
