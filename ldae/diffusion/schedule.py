"""Noise schedules: signal and noise at each timestep."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ldae.base.ranges import Range, checked, positive, share_below_one, within
from ldae.errors import ConfigError

__all__ = ["NoiseSchedule", "ScheduleConfig"]


@dataclass(frozen=True)
@checked
class ScheduleConfig:
    """A discrete noise schedule.

    Attributes:
        kind: of the variance-preserving ones, `linear` betas (Ho et al. 2020), `scaled_linear` (linear in sqrt(beta), Rombach
            et al. 2022) or `cosine` (Nichol and Dhariwal 2021, which ignores the beta range); or `rectified`, the straight
            line from latent to noise of rectified flow (Liu et al. 2023), which ignores it too.
        timesteps: T, the number of noise levels.
        beta_start: first variance of the linear kinds.
        beta_end: last variance of the linear kinds.
        zero_terminal_snr: rescale a variance-preserving schedule so that its last level is pure noise (Lin et al. 2024,
            algorithm 1); the rectified one ends there anyway. A denoiser must then predict velocities.
    """

    kind: Literal["linear", "scaled_linear", "cosine", "rectified"] = "linear"
    timesteps: int = within(1000, Range(2))
    beta_start: float = positive(1e-4)
    beta_end: float = share_below_one(2e-2)
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        if self.beta_start > self.beta_end:
            msg = f"beta_start must be at most beta_end, got {self.beta_start:g} and {self.beta_end:g}; correct one"
            raise ConfigError(msg)

    @property
    def ends_in_pure_noise(self) -> bool:
        """True if no signal is left at the last timestep."""
        return self.zero_terminal_snr or self.kind == "rectified"


class NoiseSchedule(nn.Module):
    """Signal a_t and noise b_t, as buffers that move with the model.

    Timesteps run over 0..T-1. z_t = a_t z_0 + b_t eps; the variance-preserving kinds have a_t = sqrt(alpha_bar_t) and
    b_t = sqrt(1 - alpha_bar_t), the rectified one a_t = 1 - b_t and b_t = t / (T - 1).
    """

    signal: Tensor
    sigma: Tensor
    semantic_shift: Tensor

    def __init__(self, config: ScheduleConfig) -> None:
        super().__init__()
        self.config = config
        if config.kind == "rectified":
            sigma = torch.linspace(0.0, 1.0, config.timesteps, dtype=torch.float64)
            signal = 1.0 - sigma
            shift = torch.zeros_like(sigma)
        else:
            alpha_bar = torch.cumprod(1.0 - _betas(config), dim=0)
            if config.zero_terminal_snr:
                alpha_bar = _without_terminal_signal(alpha_bar)
            signal, sigma = alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()
            previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
            shift = -torch.sqrt(alpha_bar / previous) * (1.0 - previous) / sigma
        # Not saved with weights: they follow from the config.
        self.register_buffer("signal", signal.float(), persistent=False)
        self.register_buffer("sigma", sigma.float(), persistent=False)
        self.register_buffer("semantic_shift", shift.float(), persistent=False)

    @property
    def timesteps(self) -> int:
        """T, the number of noise levels."""
        return self.config.timesteps

    @property
    def variance_preserving(self) -> bool:
        """True if a_t^2 + b_t^2 = 1."""
        return self.config.kind != "rectified"

    def signal_and_noise(self, t: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
        """a_t and b_t, shaped to broadcast.

        Args:
            t: timesteps, (B,), integers in 0..T-1.
            ndim: number of axes of the tensors to be scaled.

        Returns:
            Two tensors of shape (B, 1, ..., 1).
        """
        shape = (-1, *[1] * (ndim - 1))
        return self.signal[t].reshape(shape), self.sigma[t].reshape(shape)

    def add_noise(self, z_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Draw z_t given z_0 (Ho et al. 2020, eq. 4).

        Args:
            z_0: clean latent, (B, C, d, h, w).
            noise: standard normal, the same shape.
            t: timesteps, (B,).
        """
        signal, sigma = self.signal_and_noise(t, z_0.ndim)
        return signal * z_0 + sigma * noise

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio a^2 / b^2, (B,); at most 1e8, where b is 0."""
        return (self.signal[t].square() / self.sigma[t].square()).clamp(max=1e8)

    def time_grid(self, steps: int) -> tuple[int, ...]:
        """`steps` + 1 timesteps from the clean end 0 to the noisy end T-1, as evenly spaced as integers allow.

        It is the published grid, int(linspace(0, T - 1, steps + 1)), with the rounding of its float64 values.

        Raises:
            ConfigError: if `steps` is not in 1..T-1.
        """
        if not 1 <= steps < self.timesteps:
            msg = f"sampling steps must be 1..{self.timesteps - 1}, got {steps}; 10 to 100 are usual"
            raise ConfigError(msg)
        return tuple(np.linspace(0, self.timesteps - 1, steps + 1).astype(int).tolist())


def _without_terminal_signal(alpha_bar: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha_bar) so that it ends at 0 and starts where it was (Lin et al. 2024, algorithm 1)."""
    root = alpha_bar.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()


def _betas(config: ScheduleConfig) -> Tensor:
    """Variances beta_t, (T,), float64."""
    if config.kind == "cosine":
        # Nichol and Dhariwal 2021, eq. 17, with their offset of 0.008 and cap of 0.999.
        t = torch.arange(config.timesteps + 1, dtype=torch.float64) / config.timesteps
        f = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
        return (1.0 - f[1:] / f[:-1]).clamp(max=0.999)
    if config.kind == "scaled_linear":
        low, high = config.beta_start**0.5, config.beta_end**0.5
        return torch.linspace(low, high, config.timesteps, dtype=torch.float64) ** 2
    return torch.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=torch.float64)
