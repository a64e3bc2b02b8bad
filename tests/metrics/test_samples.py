import numpy as np
import pytest

from ldae.metrics.samples import coverage, kernel_distance, novelty


def test_distance_is_the_mean_over_pairs():
    first, second = np.random.default_rng(1).normal(size=(2, 5, 3))
    pairs = [[(a @ b / 3 + 1) ** 3 for b in (*first, *second)] for a in (*first, *second)]
    own, other, across = (np.array(pairs)[part] for part in (np.s_[:5, :5], np.s_[5:, 5:], np.s_[:5, 5:]))
    off = ~np.eye(5, dtype=bool)
    assert kernel_distance(first, second) == pytest.approx(own[off].mean() + other[off].mean() - 2 * across.mean())


def test_coverage_counts_the_real_scans_that_are_met():
    real = np.array([[0.0], [1.0], [2.0], [100.0], [101.0], [102.0]])
    assert coverage(real, real, 1) == 1
    assert coverage(real, np.array([[1.1]]), 1) == pytest.approx(2 / 6)
    assert coverage(real, np.full((50, 1), -500.0), 5) == 0


def test_copies_are_not_new():
    training, other = np.random.default_rng(2).normal(size=(2, 40, 3))
    assert novelty(training[:10], training, other) == 0
    assert novelty(other, training, other) == 1
