import numpy as np
import pytest
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from ldae.metrics.roc import area_under_curve, roc_areas, roc_difference


def labelled(rng, n, *, scans=1, effect=1.0, within=0.0):
    """Two scores of subjects with `scans` each; their noise is shared within a subject by the fraction `within`."""
    rows = np.repeat(np.arange(n), scans)
    target = np.repeat(rng.random(n) < 0.4, scans).astype(int)
    subject, visit = rng.normal(size=(2, n))[:, rows], rng.normal(size=(2, n * scans))
    noise = np.sqrt(within) * subject + np.sqrt(1 - within) * visit
    shared = rng.normal(size=n)[rows]
    scores = effect * target + 0.7 * noise + 0.7 * shared
    return target, scores, [f"sub-{i}" for i in rows]


def test_area_counts_ties_by_half():
    rng = np.random.default_rng(3)
    target, scores = rng.integers(0, 2, 60), rng.integers(0, 8, 60) / 8
    weights = np.stack([np.ones(60), rng.integers(0, 3, 60)])
    expected = [roc_auc_score(target, scores, sample_weight=each) for each in weights]
    np.testing.assert_allclose(area_under_curve(target, scores, weights), expected, atol=1e-12)
    assert np.isnan(area_under_curve(np.ones(4, dtype=int), scores[:4], weights[:, :4])).all()


def test_covariance_is_that_of_the_structural_components():
    """DeLong et al. 1988 by their definition: every pair of a positive and a negative, counted one by one."""
    target, scores, subjects = labelled(np.random.default_rng(0), 60)
    scores = np.round(scores, 1)
    positive, negative = scores[:, target == 1], scores[:, target == 0]
    wins = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    expected = np.cov(wins.mean(axis=2)) / positive.shape[1] + np.cov(wins.mean(axis=1)) / negative.shape[1]
    areas = roc_areas(target, scores, subjects)
    np.testing.assert_allclose(areas.values, wins.mean(axis=(1, 2)))
    np.testing.assert_allclose(areas.covariance, expected)


def test_repeating_every_scan_adds_no_certainty():
    target, scores, subjects = labelled(np.random.default_rng(1), 80)
    once = roc_areas(target, scores, subjects)
    thrice = roc_areas(np.tile(target, 3), np.tile(scores, 3), subjects * 3)
    np.testing.assert_allclose(thrice.values, once.values)
    np.testing.assert_allclose(thrice.covariance, once.covariance)
    unclustered = roc_areas(np.tile(target, 3), np.tile(scores, 3), [str(i) for i in range(3 * len(target))])
    assert (np.diag(unclustered.covariance) < 0.5 * np.diag(once.covariance)).all()


def test_a_score_is_no_better_than_itself_and_order_turns_the_sign():
    target, scores, subjects = labelled(np.random.default_rng(2), 50)
    same = roc_difference(roc_areas(target, scores[[0, 0]], subjects))
    assert (same.value, same.p) == (0.0, 1.0)
    areas = roc_areas(target, scores, subjects)
    there, back = roc_difference(areas), roc_difference(areas, 1, 0)
    assert there.value == -back.value
    assert there.p == pytest.approx(back.p)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_intervals_over_clusters_cover_the_truth():
    """Two scans a subject, noise shared within subjects; the truth is the limit of many subjects."""
    rng = np.random.default_rng(4)
    target, scores, _ = labelled(rng, 200_000, within=0.8)
    truth = [area_under_curve(target, score, np.ones((1, len(target))))[0] for score in scores]
    covered, trials, zero = 0, 500, 0
    for _ in range(trials):
        target, scores, subjects = labelled(rng, 120, scans=2, within=0.8)
        areas = roc_areas(target, scores, subjects)
        value, error = areas.values[0], np.sqrt(areas.covariance[0, 0])
        # On the logit scale, which keeps an interval inside 0 and 1 (Pepe 2003, section 5.2).
        covered += abs(logit(value) - logit(truth[0])) <= 1.96 * error / (value * (1 - value))
        # Both scores are equally good, so that zero is the true difference.
        difference = roc_difference(areas)
        zero += difference.low <= 0 <= difference.high
    assert 0.93 <= covered / trials <= 0.97
    assert 0.93 <= zero / trials <= 0.97
