"""What a denoiser may predict (eps, x0, v), the conversions between them, and the semantic shift."""

from typing import Literal

from torch import Tensor

from ldae.diffusion.schedule import NoiseSchedule

__all__ = [
    "Prediction",
    "ShiftForm",
    "as_noise",
    "clean_from_noise",
    "noise_from_clean",
    "noise_from_velocity",
    "shift_noise",
    "velocity_from_noise",
]

Prediction = Literal["noise", "velocity"]
"""What a denoiser's output means."""

ShiftForm = Literal["posterior", "score", "velocity"]
"""What a gradient estimator's output means, see :func:`shift_noise`."""


def clean_from_noise(z_t: Tensor, eps: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """z_0 implied by a noise prediction: (z_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar).

    Args:
        z_t: noisy latent, (B, C, d, h, w).
        eps: predicted noise, the same shape.
        t: timesteps, (B,).
        schedule: the noise schedule.
    """
    signal, sigma = schedule.signal_and_noise(t, z_t.ndim)
    return (z_t - sigma * eps) / signal


def noise_from_clean(z_t: Tensor, z_0: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Noise implied by a clean prediction: (z_t - sqrt(alpha_bar) z_0) / sqrt(1 - alpha_bar)."""
    signal, sigma = schedule.signal_and_noise(t, z_t.ndim)
    return (z_t - signal * z_0) / sigma


def velocity_from_noise(z_t: Tensor, eps: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z_0 (Salimans and Ho 2022, section 4)."""
    signal, sigma = schedule.signal_and_noise(t, z_t.ndim)
    return (eps - sigma * z_t) / signal


def noise_from_velocity(z_t: Tensor, v: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """eps = sqrt(alpha_bar) v + sqrt(1 - alpha_bar) z_t, the inverse of :func:`velocity_from_noise`."""
    signal, sigma = schedule.signal_and_noise(t, z_t.ndim)
    return signal * v + sigma * z_t


def as_noise(output: Tensor, z_t: Tensor, t: Tensor, schedule: NoiseSchedule, prediction: Prediction) -> Tensor:
    """The noise that a denoiser's output stands for.

    A velocity is the better conditioned of the two: near pure noise it is minus the clean latent, where a noise prediction
    must get that out of the last digits.

    Args:
        output: of the denoiser, (B, C, d, h, w).
        z_t: noisy latent, the same shape.
        t: timesteps, (B,).
        schedule: the noise schedule.
        prediction: what the output means.
    """
    return output if prediction == "noise" else noise_from_velocity(z_t, output, t, schedule)


def shift_noise(
    eps: Tensor, gradient: Tensor, t: Tensor, schedule: NoiseSchedule, form: ShiftForm = "posterior"
) -> Tensor:
    """Move a noise prediction by the semantic gradient G(z_t, y, t), an estimate of grad log p(y | z_t).

    The `posterior` form is what shifting the posterior mean by Sigma_t G amounts to (Zhang et al. 2022):
    eps + s_t G with s_t = -sqrt(alpha_t) (1 - alpha_bar_{t-1}) / sqrt(1 - alpha_bar_t). The `score` form is classifier
    guidance (Dhariwal and Nichol 2021, algorithm 2): eps - sqrt(1 - alpha_bar_t) G. They agree as t grows.

    In the `velocity` form the estimator's output F is the change of the velocity, F = -(sqrt(1 - alpha_bar_t) /
    sqrt(alpha_bar_t)) G by Tweedie's formula, so that eps + sqrt(alpha_bar_t) F. G must span five orders of magnitude over
    the noise levels; F is of the latent's own scale at all of them.

    Args:
        eps: noise prediction without the semantic code, (B, C, d, h, w).
        gradient: G (or F), the same shape.
        t: timesteps, (B,).
        schedule: the noise schedule.
        form: which of the three.
    """
    signal, sigma = schedule.signal_and_noise(t, eps.ndim)
    if form == "score":
        return eps - sigma * gradient
    if form == "velocity":
        return eps + signal * gradient
    return eps + schedule.semantic_shift[t].reshape(-1, *[1] * (eps.ndim - 1)) * gradient
