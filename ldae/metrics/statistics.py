"""Uncertainty over subjects: the bootstrap draws whole subjects, because scans of one subject are not independent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldae.errors import TaskError

__all__ = [
    "Difference",
    "Interval",
    "draw_subjects",
    "holm",
    "paired_difference",
    "permutation_p",
    "rows_by_subject",
    "subject_bootstrap",
]

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        value: on all subjects.
        low: 2.5th percentile over resamples.
        high: 97.5th percentile over resamples.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """One estimate minus another on the same subjects, with a two-sided p.

    By the bootstrap, p is twice the share of resamples beyond zero, the estimate itself counted as one.
    """

    p: float


def rows_by_subject(subjects: Sequence[str]) -> list[Rows]:
    """Row indices of each subject, in order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, subject in enumerate(subjects):
        rows.setdefault(subject, []).append(row)
    return [np.asarray(indices, dtype=np.int64) for indices in rows.values()]


def draw_subjects(subjects: Sequence[str], generator: np.random.Generator, resamples: int) -> list[Rows]:
    """Rows of subjects drawn with replacement, for each resample; a subject comes with all its rows."""
    groups = rows_by_subject(subjects)
    return [
        np.concatenate([groups[index] for index in generator.integers(len(groups), size=len(groups))])
        for _ in range(resamples)
    ]


def subject_bootstrap(
    statistic: Callable[[Rows], float],
    subjects: Sequence[str],
    *,
    generator: np.random.Generator,
    resamples: int = 1000,
) -> Interval:
    """Percentile bootstrap over subjects (Efron and Tibshirani 1993).

    Args:
        statistic: of row indices; draws where it is NaN (one class only) are left out.
        subjects: the subject of each row, (N,).
        generator: of the draws.
        resamples: number of draws.

    Raises:
        TaskError: if there are no rows, or the statistic is defined on fewer than half of the draws.
    """
    value, defined = _resample(statistic, subjects, generator, resamples)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def paired_difference(
    first: Callable[[Rows], float],
    second: Callable[[Rows], float],
    subjects: Sequence[str],
    *,
    generator: np.random.Generator,
    resamples: int = 1000,
) -> Difference:
    """First statistic minus second on the same resamples (paired percentile bootstrap, Efron and Tibshirani 1993).

    Arguments and errors as of :func:`subject_bootstrap`.
    """
    value, defined = _resample(lambda rows: first(rows) - second(rows), subjects, generator, resamples)
    low, high = np.percentile(defined, [2.5, 97.5])
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p = min(1.0, 2 * (1 + beyond) / (1 + len(defined)))
    return Difference(value, float(low), float(high), p)


def _resample(
    statistic: Callable[[Rows], float], subjects: Sequence[str], generator: np.random.Generator, resamples: int
) -> tuple[float, Array]:
    """The statistic of all rows, and of those resamples on which it is defined."""
    if not len(subjects):
        msg = "no rows to compute a statistic on; check the split and the labels"
        raise TaskError(msg)
    value = float(statistic(np.arange(len(subjects))))
    draws = np.array([statistic(rows) for rows in draw_subjects(subjects, generator, resamples)])
    defined = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(defined) < resamples / 2:
        msg = (
            f"{len(set(subjects))} subjects are too few, or of one class only: {len(defined)} of {resamples} resamples "
            "give a value; use a larger test split"
        )
        raise TaskError(msg)
    return value, defined


def permutation_p(
    statistic: Callable[[Array], float], target: Array, *, generator: np.random.Generator, permutations: int = 1000
) -> float:
    """One-sided p of a permutation test (Phipson and Smyth 2010: the true labels count as one permutation).

    Args:
        statistic: of the labels, (N,), with fixed predictions; larger is better. Rows must be exchangeable: one a subject.
        target: the true labels, (N,).
        generator: of the permutations.
        permutations: number of them.
    """
    own = statistic(target)
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
