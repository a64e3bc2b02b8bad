"""Predictions of a denoiser (noise or velocity), the clean latent and noise that they imply, and the semantic shift."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ldae.diffusion.schedule import NoiseSchedule
from ldae.errors import ConfigError

__all__ = [
    "Estimate",
    "Prediction",
    "ShiftForm",
    "check_forms",
    "estimate_from_noise",
    "estimate_from_velocity",
    "interpret",
    "shift_scale",
    "velocity_of",
]

Prediction = Literal["noise", "velocity"]
"""Meaning of a denoiser's output."""

ShiftForm = Literal["posterior", "score", "velocity"]
"""Meaning of a gradient estimator's output, see :func:`shift_scale`."""


@dataclass(frozen=True)
class Estimate:
    """Predicted parts of z_t: z_t = a_t clean + b_t noise, always.

    Attributes:
        clean: estimate of z_0, (B, C, d, h, w).
        noise: estimate of eps, the same shape.
    """

    clean: Tensor
    noise: Tensor

    def at(self, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The latent at another noise level under this estimate: a DDIM step."""
        return schedule.add_noise(self.clean, self.noise, t)

    def shifted(self, change: Tensor, t: Tensor, schedule: NoiseSchedule) -> "Estimate":
        """The estimate after a change of the velocity: the noise moves by a_t of it, the clean latent by -b_t."""
        signal, sigma = schedule.signal_and_noise(t, change.ndim)
        return Estimate(self.clean - sigma * change, self.noise + signal * change)

    def clamped(self, bound: float, z_t: Tensor, t: Tensor, schedule: NoiseSchedule) -> "Estimate":
        """The estimate with its clean latent clamped to +-bound, as published; clamped elements cannot be inverted."""
        clean = self.clean.clamp(-bound, bound)
        signal, sigma = schedule.signal_and_noise(t, z_t.ndim)
        return Estimate(clean, (z_t - signal * clean) / sigma)


def estimate_from_noise(z_t: Tensor, eps: Tensor, t: Tensor, schedule: NoiseSchedule) -> Estimate:
    """Clean latent and noise of a noise, where signal is left: z_0 = (z_t - b eps) / a; arguments as for :func:`interpret`."""
    signal, sigma = schedule.signal_and_noise(t, z_t.ndim)
    return Estimate((z_t - sigma * eps) / signal, eps)


def estimate_from_velocity(z_t: Tensor, velocity: Tensor, t: Tensor, schedule: NoiseSchedule) -> Estimate:
    """Clean latent and noise of a velocity; well conditioned at every level, pure noise included.

    Variance preserving (Salimans and Ho 2022, section 4): v = a eps - b z_0, hence z_0 = a z_t - b v and eps = b z_t + a v.
    Rectified (Liu et al. 2023): v = eps - z_0, hence z_0 = z_t - b v and eps = z_t + a v.
    """
    signal, sigma = schedule.signal_and_noise(t, z_t.ndim)
    if schedule.variance_preserving:
        return Estimate(signal * z_t - sigma * velocity, sigma * z_t + signal * velocity)
    return Estimate(z_t - sigma * velocity, z_t + signal * velocity)


def velocity_of(estimate: Estimate, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """The velocity of a clean latent and a noise: the derivative of z_t along the schedule's path."""
    if not schedule.variance_preserving:
        return estimate.noise - estimate.clean
    signal, sigma = schedule.signal_and_noise(t, estimate.clean.ndim)
    return signal * estimate.noise - sigma * estimate.clean


def interpret(output: Tensor, z_t: Tensor, t: Tensor, schedule: NoiseSchedule, prediction: Prediction) -> Estimate:
    """Estimate of a denoiser's output.

    Args:
        output: of the denoiser, (B, C, d, h, w).
        z_t: noisy latent, the same shape.
        t: timesteps, (B,).
        schedule: the noise schedule.
        prediction: meaning of the output.
    """
    read = estimate_from_noise if prediction == "noise" else estimate_from_velocity
    return read(z_t, output, t, schedule)


def shift_scale(t: Tensor, ndim: int, schedule: NoiseSchedule, form: ShiftForm) -> Tensor:
    """Factor that makes a gradient estimator's output a change of the velocity, (B, 1, ..., 1).

    G estimates grad log p(y | z_t). The noise moves by a_t times the change of the velocity, hence the factors:

    - `posterior` shifts the mean of the reverse step by Sigma_t G (Zhang et al. 2022), the noise by s_t G: s_t / a_t with
      s_t = -sqrt(alpha_t) (1 - alpha_bar_{t-1}) / sqrt(1 - alpha_bar_t);
    - `score` is classifier guidance (Dhariwal and Nichol 2021, algorithm 2), the noise by -b_t G: -b_t / a_t, on any path;
    - `velocity`: the output is that change itself, of the latent's own scale at all noise levels: 1.

    Args:
        t: timesteps, (B,).
        ndim: number of axes of the tensors to be scaled.
        schedule: the noise schedule.
        form: of the output.
    """
    signal, sigma = schedule.signal_and_noise(t, ndim)
    if form == "velocity":
        return torch.ones_like(signal)
    if form == "score":
        return -sigma / signal
    return schedule.semantic_shift[t].reshape(signal.shape) / signal


def check_forms(schedule: NoiseSchedule, prediction: Prediction, shift: ShiftForm) -> None:
    """Refuse noise predictions on a schedule that ends in pure noise.

    Raises:
        ConfigError: if z_0 would have to follow from a noise prediction where there is no signal.
    """
    pure = schedule.config.ends_in_pure_noise
    if pure and (prediction != "velocity" or shift != "velocity"):
        msg = (
            f"schedule {schedule.config.kind!r} ends in pure noise, where noise says nothing of the latent, but the prediction "
            f"is {prediction!r} and the shift {shift!r}; set both to 'velocity' (denoiser.model.prediction, representation.shift)"
        )
        raise ConfigError(msg)
