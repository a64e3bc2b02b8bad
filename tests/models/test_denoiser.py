"""The denoiser of normally distributed latents: closed forms of the normal distribution."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ldae.diffusion import Estimate, NoiseSchedule, ScheduleConfig, velocity_of
from ldae.errors import ConfigError
from ldae.models.denoiser import Denoiser, DenoiserConfig, GaussianDenoiser
from ldae.models.gradient_estimator import GradientEstimator
from ldae.networks import Networks
from tests.tiny_model import TINY

SHAPE = (2, 2, 1, 2)
COUNT = 8
SCHEDULES = [ScheduleConfig(), ScheduleConfig(kind="cosine"), ScheduleConfig(kind="rectified")]
UNET = DenoiserConfig(8, (1,), 1, attention_levels=(), dropout=0.0, prediction="velocity", gaussian_components=3)


def correlated(scans: int = 500) -> Tensor:
    """Latents with a mean and a covariance, seeded."""
    generator = torch.Generator().manual_seed(5)
    mixing = torch.randn(COUNT, COUNT, generator=generator)
    values = torch.randn(scans, COUNT, generator=generator) @ mixing + torch.arange(COUNT)
    return values.reshape(scans, *SHAPE)


def fitted(
    components: int = 3, config: ScheduleConfig = SCHEDULES[0], latents: Tensor | None = None
) -> GaussianDenoiser:
    denoiser = GaussianDenoiser(components, SHAPE, NoiseSchedule(config))
    denoiser.fit(correlated() if latents is None else latents)
    return denoiser


@pytest.mark.parametrize("config", SCHEDULES, ids=lambda each: each.kind)
@pytest.mark.parametrize("t", [20, 400, 999])
def test_all_components_give_the_conditional_mean(config: ScheduleConfig, t: int) -> None:
    latents, schedule = correlated(), NoiseSchedule(config)
    values = latents.flatten(1).double()
    mean, covariance = values.mean(dim=0), torch.cov(values.T, correction=0)
    z_t, times = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.full((4,), t)
    signal, sigma = float(schedule.signal[t]), float(schedule.sigma[t])
    # E[z_0 | z_t] = m + a S (a^2 S + b^2)^-1 (z_t - a m); E[noise | z_t] = b (a^2 S + b^2)^-1 (z_t - a m).
    total = signal**2 * covariance + sigma**2 * torch.eye(COUNT)
    solved = torch.linalg.solve(total, (z_t.flatten(1).double() - signal * mean).T).T
    expected = Estimate(
        (mean + signal * solved @ covariance).float().reshape(z_t.shape), (sigma * solved).float().reshape(z_t.shape)
    )
    velocity = fitted(COUNT, config)(z_t, times)
    assert torch.allclose(velocity, velocity_of(expected, times, schedule), atol=2e-3, rtol=1e-3)


def test_it_begins_as_the_denoiser_of_noise() -> None:
    z_t, t = torch.randn(3, *SHAPE), torch.tensor([1, 500, 900])
    assert GaussianDenoiser(3, SHAPE, NoiseSchedule(ScheduleConfig()))(z_t, t).abs().max() < 1e-5


def test_components_keep_the_variance_of_each_element() -> None:
    denoiser, latents = fitted(), correlated().flatten(1)
    assert denoiser.rest.min() > 1e-4 * latents.var(dim=0).mean(), "no floor is reached"
    variance = (denoiser.basis.square() * denoiser.variance[:, None]).sum(dim=0) + denoiser.rest
    assert torch.allclose(variance, latents.var(dim=0, correction=0), rtol=1e-3)
    assert torch.allclose(denoiser.basis @ denoiser.basis.T, torch.eye(3), atol=1e-4)


def test_variances_are_of_the_degrees_of_freedom_that_a_regression_left() -> None:
    latents = correlated(40)
    plain, corrected = (GaussianDenoiser(3, SHAPE, NoiseSchedule(ScheduleConfig())) for _ in range(2))
    plain.fit(latents)
    corrected.fit(latents, fitted=20)
    assert torch.allclose(corrected.variance, 2 * plain.variance)
    assert torch.allclose(corrected.rest, 2 * plain.rest)


def test_fewer_scans_than_components_are_enough() -> None:
    denoiser = fitted(6, latents=correlated(3))
    assert denoiser.basis.square().sum(dim=1).round().tolist() == [1, 1, 0, 0, 0, 0]
    assert denoiser(torch.randn(2, *SHAPE), torch.tensor([5, 990])).isfinite().all()


def test_a_mean_of_its_own_moves_a_latent_by_the_signal() -> None:
    denoiser, schedule, t = fitted(), NoiseSchedule(ScheduleConfig()), torch.tensor([3, 700])
    z_t, mean, shift = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    signal, sigma = schedule.signal_and_noise(t, z_t.ndim)
    moved = denoiser(z_t + signal * shift, t, mean + shift)
    assert torch.allclose(moved, denoiser(z_t, t, mean) - sigma * shift, atol=1e-4)


def test_places_that_are_left_out_stay_zero() -> None:
    denoiser, places = fitted(), torch.tensor([True, False, False, True])
    denoiser.leave_out(places)
    schedule, t = denoiser.schedule, torch.tensor([100])
    z_t = torch.zeros(1, *SHAPE)
    velocity = denoiser(z_t, t).flatten(2)
    assert velocity[..., places].abs().max() == 0
    assert velocity[..., ~places].abs().min() > 0
    assert schedule.variance_preserving


def test_a_fresh_network_adds_nothing_to_it() -> None:
    gaussian = fitted()
    denoiser = Denoiser(UNET, SHAPE[0], gaussian).eval()
    z_t, t = torch.randn(2, *SHAPE), torch.tensor([10, 800])
    assert torch.equal(denoiser(z_t, t), gaussian(z_t, t))


def test_a_code_gives_the_mean_and_a_code_that_is_withheld_gives_none() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(UNET, SHAPE[0], fitted()).eval()
    estimator = GradientEstimator(
        UNET, SHAPE[0], 4, SHAPE, GaussianDenoiser(3, SHAPE, denoiser.gaussian.schedule)
    ).eval()
    codes, latents = torch.randn(500, 4), correlated()
    estimator.begin_map(codes, latents)
    z_t, t = torch.randn(2, *SHAPE), torch.tensor([10, 800])
    features = denoiser.features(z_t, t)
    known, withheld = denoiser.predict(features) + estimator(features, codes[:2], torch.tensor([1.0, 0.0]))
    mean = estimator.embed(codes[:2])[:, estimator.embedding_width :].unflatten(1, SHAPE)
    assert torch.allclose(known, estimator.gaussian(z_t, t, mean)[0], atol=1e-5)
    assert torch.allclose(withheld, denoiser(z_t, t)[1], atol=1e-5)


def test_forms_that_are_not_velocities_are_refused() -> None:
    with pytest.raises(ConfigError, match="gaussian_components predicts velocities"):
        replace(UNET, prediction="noise")
    config = replace(TINY, denoiser=replace(TINY.denoiser, prediction="velocity", gaussian_components=3), code_map=True)
    with pytest.raises(ConfigError, match="shift"):
        Networks(replace(config, shift="posterior"))
    assert Networks(replace(config, shift="velocity")).denoiser.gaussian is not None
