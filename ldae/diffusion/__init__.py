"""Diffusion: schedule, prediction, samplers, inversion, losses. Knows no network."""

from ldae.diffusion.inversion import ddim_invert
from ldae.diffusion.losses import LossWeighting, denoising_loss, loss_weight
from ldae.diffusion.prediction import (
    Prediction,
    ShiftForm,
    as_noise,
    clean_from_noise,
    noise_from_clean,
    noise_from_velocity,
    shift_noise,
    velocity_from_noise,
)
from ldae.diffusion.samplers import Predict, StepCallback, ddim_sample, ddim_step
from ldae.diffusion.schedule import NoiseSchedule, ScheduleConfig

__all__ = [
    "LossWeighting",
    "NoiseSchedule",
    "Predict",
    "Prediction",
    "ScheduleConfig",
    "ShiftForm",
    "StepCallback",
    "as_noise",
    "clean_from_noise",
    "ddim_invert",
    "ddim_sample",
    "ddim_step",
    "denoising_loss",
    "loss_weight",
    "noise_from_clean",
    "noise_from_velocity",
    "shift_noise",
    "velocity_from_noise",
]
