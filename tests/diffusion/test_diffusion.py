from itertools import pairwise

import pytest
import torch

from ldae.diffusion import (
    NoiseSchedule,
    ScheduleConfig,
    as_noise,
    clean_from_noise,
    ddim_invert,
    ddim_sample,
    denoising_loss,
    loss_weight,
    noise_from_clean,
    noise_from_velocity,
    shift_noise,
    velocity_from_noise,
)
from ldae.errors import ConfigError

KINDS = ["linear", "scaled_linear", "cosine"]


@pytest.fixture(params=KINDS)
def schedule(request):
    return NoiseSchedule(ScheduleConfig(request.param, timesteps=1000))


def latent(seed=0, batch=2):
    return torch.randn(batch, 3, 2, 4, 3, generator=torch.Generator().manual_seed(seed))


def test_signal_only_falls(schedule):
    assert (schedule.alpha_bar.diff() <= 0).all()
    assert schedule.alpha_bar[0] > 0.99
    assert schedule.alpha_bar[-1] < 0.01


def test_linear_schedule_has_its_closed_form():
    schedule = NoiseSchedule(ScheduleConfig("linear", 10, 0.1, 0.1))
    torch.testing.assert_close(schedule.alpha_bar, 0.9 ** torch.arange(1, 11).float())


def test_variance_is_preserved(schedule):
    signal, sigma = schedule.signal_and_noise(torch.arange(1000), 1)
    torch.testing.assert_close(signal.square() + sigma.square(), torch.ones(1000))


@pytest.mark.parametrize("t", [0, 10, 500, 990])
def test_predictions_convert_into_one_another(schedule, t):
    z_0, eps, steps = latent(0), latent(1), torch.tensor([t, t])
    z_t = schedule.add_noise(z_0, eps, steps)
    torch.testing.assert_close(noise_from_clean(z_t, z_0, steps, schedule), eps, atol=1e-2, rtol=1e-2)
    v = velocity_from_noise(z_t, eps, steps, schedule)
    torch.testing.assert_close(noise_from_velocity(z_t, v, steps, schedule), eps, atol=1e-3, rtol=1e-3)
    if t < 900:
        torch.testing.assert_close(clean_from_noise(z_t, eps, steps, schedule), z_0, atol=1e-2, rtol=1e-2)


def test_posterior_shift_tends_to_the_score_shift():
    schedule = NoiseSchedule(ScheduleConfig("linear"))
    t = torch.tensor([999])
    zero, gradient = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    posterior, score = (shift_noise(zero, gradient, t, schedule, form) for form in ("posterior", "score"))
    torch.testing.assert_close(posterior, score, atol=2e-2, rtol=0)
    # At t = 0 the posterior has no variance left to shift by.
    assert float(shift_noise(zero, gradient, torch.tensor([0]), schedule)) == 0.0


def test_velocity_shift_is_a_change_of_the_velocity(schedule):
    z_t, eps, change, t = latent(0), latent(1), latent(2), torch.tensor([5, 600])
    shifted = shift_noise(eps, change, t, schedule, "velocity")
    before, after = (velocity_from_noise(z_t, each, t, schedule) for each in (eps, shifted))
    torch.testing.assert_close(after - before, change, atol=1e-3, rtol=1e-3)
    # By Tweedie's formula it is the score shift of G = -(sqrt(alpha_bar) / sigma) F.
    signal, sigma = schedule.signal_and_noise(t, 5)
    torch.testing.assert_close(shift_noise(eps, -signal / sigma * change, t, schedule, "score"), shifted)


def test_velocity_weight_makes_it_the_error_of_the_velocity(schedule):
    z_0, noise, eps, t = latent(0), latent(1), latent(2), torch.tensor([5, 600])
    z_t = schedule.add_noise(z_0, noise, t)
    error = velocity_from_noise(z_t, eps, t, schedule) - velocity_from_noise(z_t, noise, t, schedule)
    loss = denoising_loss(eps, noise, loss_weight(t, schedule, "velocity"))
    torch.testing.assert_close(loss, error.square().mean(), rtol=1e-3, atol=1e-5)
    assert torch.equal(as_noise(eps, z_t, t, schedule, "noise"), eps)
    v = velocity_from_noise(z_t, noise, t, schedule)
    torch.testing.assert_close(as_noise(v, z_t, t, schedule, "velocity"), noise, atol=1e-3, rtol=1e-3)


def test_posterior_shift_is_what_moves_the_posterior_mean():
    # mu(eps) = (z - beta / sqrt(1 - abar) eps) / sqrt(alpha); the shifted mean is mu + Sigma G (Zhang et al. 2022).
    schedule = NoiseSchedule(ScheduleConfig("linear"))
    t = 400
    abar, previous = schedule.alpha_bar[t].double(), schedule.alpha_bar[t - 1].double()
    alpha = abar / previous
    beta = 1 - alpha
    sigma = beta * (1 - previous) / (1 - abar)
    z, eps, gradient = (latent(seed).double() for seed in range(3))
    steps = torch.tensor([t, t])

    def mean(noise):
        return (z - beta / (1 - abar).sqrt() * noise) / alpha.sqrt()

    moved = mean(shift_noise(eps, gradient, steps, schedule))
    torch.testing.assert_close(moved, mean(eps) + sigma * gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 20, 999])
def test_time_grid_spans_the_schedule(schedule, steps):
    grid = schedule.time_grid(steps)
    assert len(grid) == steps + 1
    assert grid[0] == 0
    assert grid[-1] == 999
    assert all(low < high for low, high in pairwise(grid))


@pytest.mark.parametrize("steps", [0, 1000])
def test_impossible_grids_are_refused(schedule, steps):
    with pytest.raises(ConfigError, match="sampling steps"):
        schedule.time_grid(steps)


def test_sampling_solves_the_case_with_a_closed_form():
    # For z_0 ~ N(0, s^2) the best noise prediction is linear, and the probability-flow path scales z by its std.
    schedule = NoiseSchedule(ScheduleConfig("linear"))
    s = 0.5

    def predict(z, t):
        signal, sigma = schedule.signal_and_noise(t, z.ndim)
        return sigma * z / (signal**2 * s**2 + sigma**2)

    z_T = latent()
    z_0 = ddim_sample(predict, z_T, schedule=schedule, grid=schedule.time_grid(500))

    def std(t):
        abar = schedule.alpha_bar[t]
        return (abar * s**2 + 1 - abar).sqrt()

    torch.testing.assert_close(z_0, z_T * std(0) / std(-1), atol=5e-3, rtol=5e-3)


def curved(schedule):
    return lambda z, t: 0.8 * torch.tanh(z + t.reshape(-1, 1, 1, 1, 1) / 1000)


def test_a_constant_prediction_inverts_exactly(schedule):
    eps, z_0 = latent(1), latent(0)
    grid = schedule.time_grid(10)[:-1]
    z = ddim_invert(lambda z, t: eps, z_0, schedule=schedule, grid=grid)
    back = ddim_sample(lambda z, t: eps, z, schedule=schedule, grid=grid)
    torch.testing.assert_close(back, z_0, atol=1e-2, rtol=1e-2)


def test_corrections_close_the_round_trip():
    schedule = NoiseSchedule(ScheduleConfig("linear"))
    grid, z_0 = schedule.time_grid(20), latent()
    errors = []
    for corrections in (0, 1, 3, 10):
        z_T = ddim_invert(curved(schedule), z_0, schedule=schedule, grid=grid, corrections=corrections)
        back = ddim_sample(curved(schedule), z_T, schedule=schedule, grid=grid)
        errors.append(float((back - z_0).square().mean().sqrt()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 100


def test_samplers_tell_of_every_step():
    schedule = NoiseSchedule(ScheduleConfig("linear"))
    grid, seen = schedule.time_grid(4), []
    ddim_sample(curved(schedule), latent(), schedule=schedule, grid=grid, callback=lambda t, z: seen.append(t))
    assert seen == list(reversed(grid[:-1]))
    seen.clear()
    ddim_invert(curved(schedule), latent(), schedule=schedule, grid=grid, callback=lambda t, z: seen.append(t))
    assert seen == list(grid[1:])


def test_weights_have_their_formula():
    schedule = NoiseSchedule(ScheduleConfig("linear"))
    t = torch.tensor([3, 500, 990])
    snr = schedule.alpha_bar[t] / (1 - schedule.alpha_bar[t])
    torch.testing.assert_close(loss_weight(t, schedule, "representation"), snr**0.1 / (1 + snr))
    assert loss_weight(t, schedule, "constant").tolist() == [1.0] * 3


def test_loss_is_a_weighted_mean_per_element():
    predicted, noise = torch.full((2, 1, 2, 2, 2), 3.0), torch.ones(2, 1, 2, 2, 2)
    assert float(denoising_loss(predicted, noise, torch.tensor([1.0, 0.5]))) == pytest.approx(3.0)


def test_bad_schedules_and_corrections_are_refused():
    with pytest.raises(ConfigError, match="beta_start"):
        ScheduleConfig(beta_start=0.5, beta_end=0.1)
    schedule = NoiseSchedule(ScheduleConfig())
    with pytest.raises(ConfigError, match="corrections"):
        ddim_invert(curved(schedule), latent(), schedule=schedule, grid=(0, 1), corrections=-1)
