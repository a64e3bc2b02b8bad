"""Uncertainty over subjects: the bootstrap that draws whole subjects, because scans of one subject are not independent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldae.errors import TaskError

__all__ = ["Interval", "rows_by_subject", "subject_bootstrap"]

Rows = npt.NDArray[np.int64]


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


def rows_by_subject(subjects: Sequence[str]) -> list[Rows]:
    """Row indices of each subject, in order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, subject in enumerate(subjects):
        rows.setdefault(subject, []).append(row)
    return [np.asarray(indices, dtype=np.int64) for indices in rows.values()]


def subject_bootstrap(
    statistic: Callable[[Rows], float],
    subjects: Sequence[str],
    *,
    generator: np.random.Generator,
    resamples: int = 1000,
) -> Interval:
    """Percentile bootstrap over subjects (Efron and Tibshirani 1993).

    Args:
        statistic: of row indices; NaN where a draw cannot answer (one class only), such draws are left out.
        subjects: the subject of each row, (N,).
        generator: of the draws.
        resamples: number of draws.

    Raises:
        TaskError: if there are no rows, or fewer than half of the draws have an answer.
    """
    if not len(subjects):
        msg = "no rows to compute a statistic on; check the split and the labels"
        raise TaskError(msg)
    everything = np.arange(len(subjects))
    value = float(statistic(everything))
    groups = rows_by_subject(subjects)
    draws = []
    for _ in range(resamples):
        drawn = generator.integers(len(groups), size=len(groups))
        draws.append(statistic(np.concatenate([groups[index] for index in drawn])))
    answered = np.asarray(draws)[np.isfinite(draws)]
    if not np.isfinite(value) or len(answered) < resamples / 2:
        msg = (
            f"{len(groups)} subjects are too few, or of one class only: {len(answered)} of {resamples} resamples give "
            "a value; use a larger test split"
        )
        raise TaskError(msg)
    low, high = np.percentile(answered, [2.5, 97.5])
    return Interval(value, float(low), float(high))
