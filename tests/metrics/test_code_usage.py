"""What codes carry: closed forms, invariances, and the derangement that never stays in the family."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from ldae.errors import TaskError
from ldae.metrics.code_usage import (
    ThreeWays,
    active_dimensions,
    effective_rank,
    measure_spread,
    measure_use,
    principal_components,
    share_between_subjects,
    step_variation,
    strangers,
)


def directions(k: int, width: int = 12) -> np.ndarray:
    """Codes that go one step to and fro along k orthogonal directions."""
    steps = np.eye(width)[:k]
    return np.concatenate([steps, -steps]) + 3.0


def random_codes(n: int = 40, width: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) * np.geomspace(1, 0.01, width) + rng.normal(size=width)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_equal_directions_are_counted(k):
    codes = directions(k)
    assert effective_rank(codes) == pytest.approx(k)
    assert principal_components(codes) == np.ceil(0.95 * k)
    assert principal_components(codes, 1.0) == k


def test_rank_knows_neither_rotation_nor_scale_nor_place():
    codes, rotation = random_codes(), ortho_group.rvs(12, random_state=0)
    subjects = [f"s{row // 4}" for row in range(len(codes))]
    before = measure_spread(codes, subjects)
    for changed in (codes @ rotation, 1e4 * codes, codes + 7.0):
        after = measure_spread(changed, subjects)
        assert after.effective_rank == pytest.approx(before.effective_rank)
        assert after.components_95 == before.components_95
        assert after.between_subjects == pytest.approx(before.between_subjects)
    assert 1 < before.effective_rank < 12
    codes = np.random.default_rng(0).normal(size=(200, 10))
    codes[:, 6:] = 0.05 * codes[:, 6:] + 1.0
    assert active_dimensions(codes) == active_dimensions(1e3 * codes) == 6


def test_a_constant_code_has_nothing_and_nearly_one_point_no_active_dimension():
    constant = np.full((30, 8), 1.7)
    # A network's rounding is no information.
    jittered = constant * (1 + 1e-7 * np.random.default_rng(0).normal(size=constant.shape))
    for codes in (constant, jittered, np.zeros((30, 8)), constant[:1]):
        assert active_dimensions(codes) == effective_rank(codes) == principal_components(codes) == 0
    rng = np.random.default_rng(0)
    point = rng.normal(size=(1, 8)) + 1e-3 * rng.normal(size=(50, 8))
    assert active_dimensions(point) == 0
    assert effective_rank(point) > 7, "what is left spreads evenly, which is why both are told"


def test_between_subjects_is_the_intraclass_correlation():
    rng = np.random.default_rng(0)
    subjects = [f"s{row // 2}" for row in range(4000)]
    people = np.repeat(rng.normal(size=(2000, 3)), 2, axis=0)
    visits = people + 0.5 * rng.normal(size=people.shape)
    # Variance 1 between people and 0.25 within: 0.8 of it all lies between.
    assert share_between_subjects(visits, subjects) == pytest.approx(0.8, abs=0.02)
    assert share_between_subjects(people, subjects) == pytest.approx(1.0)
    assert share_between_subjects(rng.normal(size=people.shape), subjects) == pytest.approx(0.0, abs=0.05)
    assert share_between_subjects(people[:10], [str(row) for row in range(10)]) is None
    assert share_between_subjects(people[:10], ["one"] * 10) is None
    assert share_between_subjects(np.ones((4, 2)), ["a", "a", "b", "b"]) is None


@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=8), seed=st.integers(0, 99))
def test_a_stranger_is_never_of_the_same_subject(sizes, seed):
    subjects = [f"s{index}" for index, size in enumerate(sizes) for _ in range(size)]
    subjects = np.random.default_rng(seed).permutation(subjects).tolist()
    partners = strangers(subjects, np.random.default_rng(seed))
    assert all(subjects[row] != subjects[partner] for row, partner in enumerate(partners))
    if 2 * max(sizes) <= len(subjects):
        assert sorted(partners) == list(range(len(subjects))), "every code is given away once"
    np.testing.assert_array_equal(partners, strangers(subjects, np.random.default_rng(seed)))
    with pytest.raises(TaskError, match="give scans of two or more"):
        strangers(["a", "a"], np.random.default_rng(0))


def errors(right: float, shuffled: float, n: int = 24, levels: int = 3) -> ThreeWays:
    """Errors of scans that differ by 1 percent, relative to 1, 2, 3, ... without a code."""
    rng = np.random.default_rng(0)
    scale = np.arange(1.0, levels + 1)
    return ThreeWays(*(value * scale * rng.normal(1, 0.01, (n, levels)) for value in (right, shuffled, 1.0)))


SUBJECTS = [f"s{row // 2}" for row in range(24)]


@pytest.mark.parametrize(
    ("right", "shuffled", "verdict"),
    [
        (0.7, 1.2, "used"),
        (0.7, 0.7, "collapsed"),
        (1.0, 1.0, "collapsed"),
        (0.9, 0.7, "collapsed"),
        (1.1, 1.3, "unhelpful"),
    ],
)
def test_the_verdict_follows_its_rule(right, shuffled, verdict):
    use = measure_use(errors(right, shuffled), SUBJECTS, resamples=100)
    assert use.verdict == verdict
    assert use.share.value == pytest.approx(1 - right, abs=0.01)
    assert use.shuffled_share.value == pytest.approx(1 - shuffled, abs=0.01)
    assert use.gap.value == pytest.approx(use.share.value - use.shuffled_share.value)
    assert use.gap.low <= use.gap.value <= use.gap.high


def test_levels_average_to_the_whole_and_units_do_not_matter():
    one = errors(0.8, 1.0)
    use = measure_use(one, SUBJECTS, resamples=50)
    assert np.mean([level.value for level in use.share_by_level]) == pytest.approx(use.share.value)
    assert np.mean([level.value for level in use.gap_by_level]) == pytest.approx(use.gap.value)
    # Velocity, noise and clean latent differ by a factor at each level.
    units = np.array([1e-3, 1.0, 50.0])
    other = measure_use(ThreeWays(one.right * units, one.shuffled * units, one.none * units), SUBJECTS, resamples=50)
    assert other.share.value == pytest.approx(use.share.value)
    assert other.gap.low == pytest.approx(use.gap.low)


@given(st.floats(0.1, 10), st.floats(-1, 1))
def test_steps_vary_by_their_lengths_alone(scale, start):
    ends = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    even = ends[0] + np.linspace(0, 1, 6, dtype=np.float32)[:, None, None, None] * (ends[1] - ends[0])
    assert step_variation(scale * even + start) == pytest.approx(0, abs=1e-4)
    # Steps of one and three: standard deviation 1, mean 2.
    assert step_variation((scale * even + start)[[0, 1, 4]]) == pytest.approx(0.5, abs=1e-4)
    assert step_variation(np.repeat(even[:1], 4, axis=0)) == 0
