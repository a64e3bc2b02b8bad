"""The best denoiser of normally distributed latents, which is linear and needs no training."""

import math

import torch
from torch import Tensor, nn

from ldae.base.hardware import single_precision
from ldae.diffusion import Estimate, NoiseSchedule, velocity_of
from ldae.models.components import principal_components

__all__ = ["GaussianDenoiser"]

SMALL = 1e-12
"""Least variance that is divided by."""

FLOOR = 1e-4
"""Least variance beside the components, relative to the mean variance: what never varied in training may vary in a new scan."""


class GaussianDenoiser(nn.Module):
    """Velocity of latents from a normal distribution: a Wiener filter at every noise level (Wang and Vastola 2023).

    The covariance is that of principal components, and beside them a variance for each element. Latents of aligned scans
    come near to that; a network beside it learns what they have more than a mean and a covariance, and begins with nothing.

    Args:
        components: principal components of the latents.
        shape: of a latent, (C, d, h, w).
        schedule: the noise schedule.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor
    rest: Tensor

    def __init__(self, components: int, shape: tuple[int, int, int, int], schedule: NoiseSchedule) -> None:
        super().__init__()
        count = math.prod(shape)
        self.schedule = schedule
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("basis", torch.zeros(components, count))
        self.register_buffer("variance", torch.ones(components))
        self.register_buffer("rest", torch.ones(count))

    @torch.no_grad()
    def fit(self, latents: Tensor, fitted: int = 0) -> None:
        """Mean, components and variances of latents.

        Args:
            latents: standardised latents of training scans, (N, C, d, h, w), or what a regression left of them.
            fitted: coefficients that this regression had for each element; variances are of N less so many.
        """
        values = latents.detach().flatten(1).float().cpu()
        self.mean.copy_(values.mean(dim=0))
        values = values - self.mean.cpu()
        basis, variance = principal_components(values, len(self.basis))
        variance = variance.float()
        rest = values.square().mean(dim=0) - (basis.square() * variance[:, None]).sum(dim=0)
        freedom = len(values) / max(1, len(values) - fitted)
        self.basis.zero_()
        self.basis[: len(basis)].copy_(basis)
        self.variance[: len(basis)].copy_(freedom * variance)
        self.rest.copy_(freedom * rest.clamp_min(FLOOR * values.square().mean()))

    def forward(self, z_t: Tensor, t: Tensor, mean: Tensor | None = None) -> Tensor:
        """The velocity, (B, C, d, h, w), float32.

        Args:
            z_t: noisy latents, (B, C, d, h, w).
            t: timesteps, (B,).
            mean: of each latent, the same shape, in place of the mean of all.
        """
        with single_precision(z_t.device):
            signal, sigma = self.schedule.signal_and_noise(t, 2)
            expected = self.mean if mean is None else mean.float().flatten(1)
            away = z_t.float().flatten(1) - signal * expected
            along = away @ self.basis.T
            beside = away - along @ self.basis
            power, power_beside = signal**2 * self.variance + sigma**2, signal**2 * self.rest + sigma**2
            along, beside = along / power.clamp_min(SMALL), beside / power_beside.clamp_min(SMALL)
            clean = expected + signal * ((along * self.variance) @ self.basis + beside * self.rest)
            noise = sigma * (along @ self.basis + beside)
            estimate = Estimate(clean.reshape(z_t.shape), noise.reshape(z_t.shape))
            return velocity_of(estimate, t, self.schedule)

    @torch.no_grad()
    def leave_out(self, places: Tensor) -> None:
        """Let latents be 0 at some of their places, (d h w,)."""
        for values in (self.mean, self.basis, self.rest):
            values.view(*values.shape[:-1], -1, len(places))[..., places] = 0.0
