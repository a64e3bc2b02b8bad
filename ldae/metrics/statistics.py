"""Uncertainty over subjects: the bootstrap draws whole subjects, because scans of one subject are not independent."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldae.errors import TaskError

__all__ = [
    "FEWEST",
    "Difference",
    "Interval",
    "Statistic",
    "draw_subjects",
    "holm",
    "mean_of",
    "paired_difference",
    "permutation_p",
    "rows_by_subject",
    "subject_bootstrap",
]

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Seed = int | np.random.Generator
"""As of `numpy.random.default_rng`: the same number draws the same, a generator goes on."""

Statistic = Callable[[Array], Array]
"""Of how often each row counts, (R, N), to R values; NaN where it is undefined."""

ROUNDING = 1e-12
FEWEST = 5
"""Subjects from which on there are intervals: those of fewer are far too narrow."""
AT_ONCE = 100
"""Resamples whose statistic is computed together; more need more memory."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        value: on all subjects.
        low: 2.5th percentile over resamples; None where there is no interval.
        high: 97.5th percentile over resamples; None likewise.
        reason: why there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    reason: str | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends; the value itself where there is no interval."""
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """One estimate minus another on the same subjects, with a two-sided p.

    By the bootstrap, p is twice the share of resamples beyond zero, the estimate itself counted as one; 1 where there is no
    interval.
    """

    p: float


def rows_by_subject(subjects: Sequence[str]) -> list[Rows]:
    """Row indices of each subject, in order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, subject in enumerate(subjects):
        rows.setdefault(subject, []).append(row)
    return [np.asarray(indices, dtype=np.int64) for indices in rows.values()]


def draw_subjects(subjects: Sequence[str], generator: np.random.Generator, resamples: int) -> Iterator[Array]:
    """How often each row is drawn where subjects are drawn with replacement, in parts of (R, N).

    A subject comes with all its rows.
    """
    number = {subject: index for index, subject in enumerate(dict.fromkeys(subjects))}
    of_row = np.array([number[subject] for subject in subjects])
    for start in range(0, resamples, AT_ONCE):
        drawn = generator.integers(len(number), size=(min(AT_ONCE, resamples - start), len(number)))
        counts = np.zeros(drawn.shape)
        np.add.at(counts, (np.arange(len(drawn))[:, None], drawn), 1.0)
        yield counts[:, of_row]


def mean_of(values: Array) -> Statistic:
    """Mean of those values, (N,), that are known; NaN where none is."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)

    def statistic(weights: Array) -> Array:
        with np.errstate(invalid="ignore"):
            mean: Array = weights @ filled / (weights @ known.astype(np.float64))
        return mean

    return statistic


def subject_bootstrap(
    statistic: Statistic, subjects: Sequence[str], *, seed: Seed = 0, resamples: int = 1000
) -> Interval:
    """Percentile bootstrap over the subjects of rows, (N,) (Efron and Tibshirani 1993).

    Draws where the statistic is NaN (one class only) are left out.

    Raises:
        TaskError: if there are no rows, or the statistic is defined on fewer than half of the draws.
    """
    value, defined = _resample(statistic, subjects, seed, resamples)
    return Interval(value, *_ends(defined, subjects))


def paired_difference(
    first: Statistic,
    second: Statistic,
    subjects: Sequence[str],
    *,
    seed: Seed = 0,
    resamples: int = 1000,
) -> Difference:
    """First statistic minus second on the same resamples (paired percentile bootstrap, Efron and Tibshirani 1993).

    Arguments and errors as of :func:`subject_bootstrap`.
    """
    value, defined = _resample(lambda weights: first(weights) - second(weights), subjects, seed, resamples)
    low, high, reason = _ends(defined, subjects)
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p = 1.0 if reason else min(1.0, 2 * (1 + beyond) / (1 + len(defined)))
    return Difference(value, low, high, reason, p=p)


def _ends(draws: Array, subjects: Sequence[str]) -> tuple[float | None, float | None, str | None]:
    """Both ends of the interval, or the reason that there is none."""
    if len(set(subjects)) < FEWEST:
        return None, None, f"fewer than {FEWEST} subjects"
    if np.ptp(draws) <= ROUNDING * np.abs(draws).max():
        return None, None, "the same in every resample"
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high), None


def _resample(statistic: Statistic, subjects: Sequence[str], seed: Seed, resamples: int) -> tuple[float, Array]:
    """The statistic of all rows, and of those resamples on which it is defined."""
    if not len(subjects):
        msg = "no rows to compute a statistic on; check the split and the labels"
        raise TaskError(msg)
    value = float(statistic(np.ones((1, len(subjects))))[0])
    drawn = draw_subjects(subjects, np.random.default_rng(seed), resamples)
    draws = np.concatenate([statistic(weights) for weights in drawn])
    defined = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(defined) < resamples / 2:
        msg = (
            f"{len(set(subjects))} subjects are too few, or of one class only: {len(defined)} of {resamples} resamples "
            "give a value; use a larger test split"
        )
        raise TaskError(msg)
    return value, defined


def permutation_p(
    statistic: Callable[[Array], float], target: Array, *, seed: Seed = 0, permutations: int = 1000
) -> float:
    """One-sided p of a permutation test (Phipson and Smyth 2010: the true labels count as one permutation).

    The statistic is of labels, (N,), with fixed predictions; larger is better. Rows must be exchangeable: one a subject.
    """
    own, generator = statistic(target), np.random.default_rng(seed)
    # Permutations on which the statistic is undefined count as equally good, which is conservative.
    as_good = sum(not statistic(generator.permutation(target)) < own - 1e-12 for _ in range(permutations))
    return (1 + as_good) / (1 + permutations)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values of one family of comparisons (Holm 1979), in the order given."""
    # Not statsmodels' function of the same result: it collects garbage at each call, which costs a study seconds.
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return [float(value) for value in adjusted]
