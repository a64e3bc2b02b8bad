import numpy as np
import pytest

from ldae.metrics.calibration import calibration_curve, calibration_slope, expected_calibration_error


def outcomes(n=20_000, stretch=1.0, seed=0):
    """Outcomes of true probabilities, and predictions whose logits are `stretch` times the true ones."""
    rng = np.random.default_rng(seed)
    logit = 2 * rng.normal(size=n)
    target = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(float)
    return target, 1 / (1 + np.exp(-stretch * logit))


def test_true_probabilities_are_calibrated_and_the_slope_undoes_a_stretch():
    target, probability = outcomes()
    assert expected_calibration_error(target, probability) < 0.015
    slope, intercept = calibration_slope(target, probability)
    assert slope == pytest.approx(1, abs=0.05)
    assert intercept == pytest.approx(0, abs=0.05)
    target, probability = outcomes(stretch=2.0)
    assert calibration_slope(target, probability)[0] == pytest.approx(0.5, abs=0.03)
    assert expected_calibration_error(target, probability) > 0.05


def test_bins_hold_all_cases_and_as_many_each():
    target, probability = outcomes(103)
    curve = calibration_curve(target, probability)
    assert sum(curve["counts"]) == 103
    assert max(curve["counts"]) - min(curve["counts"]) <= 1
    assert curve["predicted"] == sorted(curve["predicted"])
    assert np.average(curve["observed"], weights=curve["counts"]) == pytest.approx(target.mean())
    assert np.isnan(calibration_slope(np.ones(5), probability[:5])[0])
    target, probability = np.repeat([0.0, 1.0], 50), np.full(100, 0.5)
    assert expected_calibration_error(target, probability) == 0, "the order of ties has no effect"
    assert calibration_curve(target, probability)["observed"] == [0.5] * 10
