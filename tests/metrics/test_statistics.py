import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from ldae.errors import TaskError
from ldae.metrics.statistics import (
    draw_subjects,
    holm,
    mean_of,
    paired_difference,
    permutation_p,
    rows_by_subject,
    subject_bootstrap,
)


def people(n, scans=2):
    return [f"sub-{i}" for i in range(n) for _ in range(scans)]


def test_a_subject_comes_with_all_its_rows():
    drawn = np.concatenate(list(draw_subjects(people(7, 3), np.random.default_rng(0), 120)))
    assert drawn.shape == (120, 21)
    assert (drawn.sum(axis=1) == 21).all()
    assert (drawn.reshape(120, 7, 3) == drawn.reshape(120, 7, 3)[:, :, :1]).all()
    assert drawn.std(axis=0).min() > 0.5
    assert [rows.tolist() for rows in rows_by_subject(["a", "b", "a", "c"])] == [[0, 2], [1], [3]]


def test_intervals_of_a_mean_cover_it():
    """Two scans a person, half of their variance shared: intervals that took scans as independent would be too short."""
    rng, covered, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        values = np.repeat(rng.normal(size=80), 2) + rng.normal(size=160)
        interval = subject_bootstrap(mean_of(values), people(80), seed=rng, resamples=400)
        covered += interval.low <= 0 <= interval.high
    assert 0.93 <= covered / trials <= 0.97


def test_pairing_takes_out_what_both_share():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=100) * 10
    first, second = shared + rng.normal(size=100), shared + 1 + rng.normal(size=100)

    difference = paired_difference(mean_of(second), mean_of(first), people(100, 1), seed=rng)
    assert 0 < difference.low < 1 < difference.high < 2
    assert difference.p < 0.01
    alone = subject_bootstrap(mean_of(second), people(100, 1), seed=rng)
    assert difference.high - difference.low < 0.3 * (alone.high - alone.low)
    same = paired_difference(mean_of(first), mean_of(first), people(100, 1), seed=rng)
    assert (same.value, same.low, same.reason, same.p) == (0, None, "the same in every resample", 1)


def test_degenerate_cases_have_no_interval_and_say_why():
    generator = np.random.default_rng(0)
    few = subject_bootstrap(mean_of(np.arange(8.0)), people(4), seed=generator)
    assert (few.value, few.low, few.high, few.reason) == (3.5, None, None, "fewer than 5 subjects")
    enough = subject_bootstrap(mean_of(np.arange(10.0)), people(5), seed=generator)
    assert enough.low < 4.5 < enough.high
    constant = subject_bootstrap(mean_of(np.ones(12)), people(6), seed=generator)
    assert (constant.value, constant.reason, constant.ends) == (1, "the same in every resample", (1, 1))
    apart = paired_difference(mean_of(np.arange(8.0)), mean_of(np.zeros(8)), people(4), seed=generator)
    assert (apart.value, apart.low, apart.p) == (3.5, None, 1.0)


def test_p_values_are_uniform_where_nothing_is_there():
    rng = np.random.default_rng(2)
    values = []
    for _ in range(300):
        score, target = rng.normal(size=40), rng.normal(size=40)
        values.append(
            permutation_p(lambda t, score=score: np.corrcoef(t, score)[0, 1], target, seed=rng, permutations=99)
        )
    assert np.mean(np.array(values) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(values) == pytest.approx(0.5, abs=0.06)
    assert permutation_p(lambda t: float("nan"), target, seed=rng, permutations=99) == 1.0
    certain = permutation_p(lambda t: np.corrcoef(t, target)[0, 1], target, seed=rng, permutations=99)
    assert certain == 0.01


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_values_are_those_of_statsmodels_bit_for_bit(p):
    assert holm(p) == multipletests(p, method="holm")[1].tolist()
    assert holm([]) == []


def test_too_few_subjects_are_refused():
    with pytest.raises(TaskError, match="no rows"):
        subject_bootstrap(mean_of(np.empty(0)), [])
    with pytest.raises(TaskError, match="too few"):
        subject_bootstrap(mean_of(np.full(2, np.nan)), ["a", "b"])
