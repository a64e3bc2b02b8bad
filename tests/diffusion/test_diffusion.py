from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldae.diffusion import (
    Estimate,
    NoiseSchedule,
    ScheduleConfig,
    check_forms,
    estimate_from_noise,
    estimate_from_velocity,
    interpret,
    loss_weight,
    shift_scale,
    velocity_loss,
    velocity_of,
)
from ldae.errors import ConfigError

PRESERVING = [
    ScheduleConfig("linear"),
    ScheduleConfig("scaled_linear"),
    ScheduleConfig("cosine"),
    ScheduleConfig("linear", zero_terminal_snr=True),
]
ALL = [*PRESERVING, ScheduleConfig("rectified")]


def name(config):
    return config.kind + ("_ztsnr" if config.zero_terminal_snr else "")


@pytest.fixture(params=ALL, ids=name)
def schedule(request):
    return NoiseSchedule(request.param)


def latent(seed=0, batch=2):
    return torch.randn(batch, 3, 2, 4, 3, generator=torch.Generator().manual_seed(seed))


def test_signal_only_falls_noise_only_rises_and_weights_are_finite_at_both_ends(schedule):
    assert (schedule.signal.diff() <= 0).all()
    assert (schedule.sigma.diff() >= 0).all()
    assert schedule.signal[0] > 0.99
    assert schedule.signal[-1] < 0.1
    for weighting in ("constant", "representation", "velocity", "min_snr"):
        assert torch.isfinite(loss_weight(torch.tensor([0, 999]), schedule, weighting)).all()


@pytest.mark.parametrize("config", PRESERVING, ids=name)
def test_variance_is_preserved(config):
    signal, sigma = NoiseSchedule(config).signal_and_noise(torch.arange(1000), 1)
    torch.testing.assert_close(signal.square() + sigma.square(), torch.ones(1000))


def test_rescaling_ends_in_pure_noise_and_starts_where_it_did():
    plain, rescaled = (NoiseSchedule(ScheduleConfig("linear", zero_terminal_snr=flag)) for flag in (False, True))
    assert float(rescaled.signal[-1]) == 0.0
    assert float(rescaled.sigma[-1]) == 1.0
    torch.testing.assert_close(rescaled.signal[0], plain.signal[0])


def test_linear_betas_have_their_closed_form_and_a_rectified_path_is_a_straight_line():
    schedule = NoiseSchedule(ScheduleConfig("linear", 10, 0.1, 0.1))
    torch.testing.assert_close(schedule.signal.square(), 0.9 ** torch.arange(1, 11).float())
    schedule = NoiseSchedule(ScheduleConfig("rectified", timesteps=5))
    torch.testing.assert_close(schedule.sigma, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(schedule.signal + schedule.sigma, torch.ones(5))


@given(t=st.integers(0, 999), index=st.integers(0, len(ALL) - 1), seed=st.integers(0, 99))
def test_a_velocity_says_what_latent_and_noise_are(t, index, seed):
    schedule = NoiseSchedule(ALL[index])
    z_0, eps, steps = latent(seed), latent(seed + 100), torch.tensor([t, t])
    z_t = schedule.add_noise(z_0, eps, steps)
    velocity = velocity_of(Estimate(z_0, eps), steps, schedule)
    estimate = estimate_from_velocity(z_t, velocity, steps, schedule)
    torch.testing.assert_close(estimate.clean, z_0, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(estimate.noise, eps, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(estimate.at(steps, schedule), z_t, atol=1e-4, rtol=1e-4)


@given(t=st.integers(1, 900), index=st.integers(0, len(ALL) - 1))
def test_noise_and_velocity_mean_the_same(t, index):
    schedule = NoiseSchedule(ALL[index])
    z_0, eps, steps = latent(0), latent(1), torch.tensor([t, t])
    z_t = schedule.add_noise(z_0, eps, steps)
    one = interpret(eps, z_t, steps, schedule, "noise")
    two = interpret(velocity_of(Estimate(z_0, eps), steps, schedule), z_t, steps, schedule, "velocity")
    torch.testing.assert_close(one.clean, two.clean, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(one.noise, two.noise, atol=1e-3, rtol=1e-3)


@given(t=st.integers(0, 998), index=st.integers(0, len(ALL) - 1))
def test_the_velocity_is_the_slope_of_the_path(t, index):
    # Between two close levels z moves by the velocity times the schedule's own clock: the angle, or the noise.
    config = ALL[index]
    schedule = NoiseSchedule(config)
    z_0, eps = latent(0).double(), latent(1).double()
    here, there = torch.tensor([t, t]), torch.tensor([t + 1, t + 1])
    signal, sigma = schedule.signal.double(), schedule.sigma.double()
    if config.kind == "rectified":
        clock = sigma[t + 1] - sigma[t]
    else:
        clock = torch.atan2(sigma[t + 1], signal[t + 1]) - torch.atan2(sigma[t], signal[t])
    moved = schedule.add_noise(z_0, eps, there) - schedule.add_noise(z_0, eps, here)
    slope = velocity_of(Estimate(z_0, eps), here, schedule)
    torch.testing.assert_close(moved, clock * slope, atol=2.0 * float(clock) ** 2 + 1e-5, rtol=0)


@pytest.mark.parametrize("config", [PRESERVING[0], PRESERVING[2]], ids=name)
def test_shift_forms_are_of_the_noise(config):
    schedule = NoiseSchedule(config)
    z_t, eps, gradient, t = latent(0), latent(1), latent(2), torch.tensor([5, 600])
    before = estimate_from_noise(z_t, eps, t, schedule)
    signal, sigma = schedule.signal_and_noise(t, 5)
    for form, factor in (
        ("score", -sigma),
        ("posterior", schedule.semantic_shift[t].reshape(2, 1, 1, 1, 1)),
        ("velocity", signal),
    ):
        after = before.shifted(shift_scale(t, 5, schedule, form) * gradient, t, schedule)
        torch.testing.assert_close(after.noise, eps + factor * gradient, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(after.at(t, schedule), z_t, atol=1e-4, rtol=1e-4)


def test_posterior_shift_moves_the_posterior_mean_and_tends_to_the_score_shift():
    # mu(eps) = (z - beta / sqrt(1 - abar) eps) / sqrt(alpha); the shifted mean is mu + Sigma G (Zhang et al. 2022).
    schedule = NoiseSchedule(ScheduleConfig("linear"))
    torch.testing.assert_close(schedule.semantic_shift[-1], -schedule.sigma[-1], atol=2e-2, rtol=0)
    assert float(schedule.semantic_shift[0]) == 0.0
    t = 400
    abar, previous = schedule.signal[t].double() ** 2, schedule.signal[t - 1].double() ** 2
    alpha = abar / previous
    beta = 1 - alpha
    sigma = beta * (1 - previous) / (1 - abar)
    z, eps, gradient = (latent(seed).double() for seed in range(3))

    def mean(noise):
        return (z - beta / (1 - abar).sqrt() * noise) / alpha.sqrt()

    moved = mean(eps + schedule.semantic_shift[t].double() * gradient)
    torch.testing.assert_close(moved, mean(eps) + sigma * gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 20, 999])
def test_time_grid_spans_the_schedule(schedule, steps):
    grid = schedule.time_grid(steps)
    assert len(grid) == steps + 1
    assert grid[0] == 0
    assert grid[-1] == 999
    assert all(low < high for low, high in pairwise(grid))


def test_time_grid_is_the_published_one_for_every_number_of_steps(schedule):
    for steps in range(1, 999):
        assert schedule.time_grid(steps) == tuple(int(t) for t in np.linspace(0, 999, steps + 1)), steps


def test_impossible_grids_and_schedules_are_refused(schedule):
    for steps in (0, 1000):
        with pytest.raises(ConfigError, match="sampling steps"):
            schedule.time_grid(steps)
    with pytest.raises(ConfigError, match="beta_start"):
        ScheduleConfig(beta_start=0.5, beta_end=0.1)


def test_weights_have_their_formula():
    schedule = NoiseSchedule(ScheduleConfig("linear"))
    t = torch.tensor([3, 500, 990])
    abar = schedule.signal[t] ** 2
    snr = abar / (1 - abar)
    torch.testing.assert_close(loss_weight(t, schedule, "representation"), abar * snr**0.1 / (1 + snr))
    torch.testing.assert_close(loss_weight(t, schedule, "constant"), abar)
    assert loss_weight(t, schedule, "velocity").tolist() == [1.0] * 3
    # min-SNR in its velocity form is min(SNR, 5) / (SNR + 1).
    torch.testing.assert_close(loss_weight(t, schedule, "min_snr"), snr.clamp(max=5) / (snr + 1))


@given(t=st.integers(1, 998), index=st.integers(0, len(ALL) - 1))
def test_constant_weight_makes_it_the_error_of_the_noise(t, index):
    schedule = NoiseSchedule(ALL[index])
    z_0, noise, steps = latent(0), latent(1), torch.tensor([t, t])
    z_t = schedule.add_noise(z_0, noise, steps)
    velocity = velocity_of(Estimate(z_0, noise), steps, schedule)
    guess = velocity + latent(2)
    error = estimate_from_velocity(z_t, guess, steps, schedule).noise - noise
    loss = velocity_loss(guess, velocity, loss_weight(steps, schedule, "constant"))
    torch.testing.assert_close(loss, error.square().mean(), rtol=1e-3, atol=1e-5)


def test_loss_is_a_weighted_mean_per_element():
    predicted, velocity = torch.full((2, 1, 2, 2, 2), 3.0), torch.ones(2, 1, 2, 2, 2)
    assert float(velocity_loss(predicted, velocity, torch.tensor([1.0, 0.5]))) == pytest.approx(3.0)


def test_a_clamp_holds_the_latent_and_keeps_the_point():
    schedule, t = NoiseSchedule(ScheduleConfig("linear")), torch.tensor([600, 600])
    z_t = latent(0)
    clamped = estimate_from_noise(z_t, latent(1), t, schedule).clamped(0.5, z_t, t, schedule)
    assert clamped.clean.abs().max() <= 0.5
    torch.testing.assert_close(clamped.at(t, schedule), z_t, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", ALL[3:], ids=name)
def test_noise_cannot_tell_the_latent_where_there_is_no_signal(config):
    schedule = NoiseSchedule(config)
    check_forms(schedule, "velocity", "velocity")
    for prediction, shift in (("noise", "velocity"), ("velocity", "score"), ("velocity", "posterior")):
        with pytest.raises(ConfigError, match="pure noise"):
            check_forms(schedule, prediction, shift)
