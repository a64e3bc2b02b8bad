"""Whether the semantic code is used: how far codes spread, and what a decoder that is given them gets right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ldae.errors import TaskError
from ldae.metrics.statistics import Interval, Rows, rows_by_subject, subject_bootstrap

__all__ = [
    "ACTIVE_ABOVE",
    "VERDICTS",
    "CodeSpread",
    "CodeUse",
    "ThreeWays",
    "Verdict",
    "active_dimensions",
    "effective_rank",
    "measure_spread",
    "measure_use",
    "paired_gap",
    "principal_components",
    "share_between_subjects",
    "strangers",
]

Array = npt.NDArray[np.float64]

Verdict = Literal["used", "unhelpful", "collapsed"]
"""See :func:`measure_use`."""

VERDICTS: dict[Verdict, str] = {
    "used": "a scan's own code explains more than no code, and more than the code of somebody else",
    "unhelpful": "a scan's own code does better than the code of somebody else, but no better than no code",
    "collapsed": "a scan's own code does no better than the code of somebody else, so it says nothing of the scan",
}

ACTIVE_ABOVE = 0.01
"""Of Burda et al. 2016, where the prior variance is 1."""


@dataclass(frozen=True)
class CodeSpread:
    """How codes spread over scans.

    Attributes:
        scans: number of codes.
        width: S, numbers a code.
        effective_rank: see :func:`effective_rank`; at most the smaller of S and scans - 1.
        components_95: see :func:`principal_components`.
        active_dimensions: see :func:`active_dimensions`.
        between_subjects: see :func:`share_between_subjects`.
    """

    scans: int
    width: int
    effective_rank: float
    components_95: int
    active_dimensions: int
    between_subjects: float | None


@dataclass(frozen=True)
class ThreeWays:
    """The same figure of the same scans with three codes; every other input is equal.

    Attributes:
        right: with the scan's own code, (N, ...).
        shuffled: with the code of a scan of somebody else.
        none: without a code.
    """

    right: Array
    shuffled: Array
    none: Array


@dataclass(frozen=True)
class CodeUse:
    """What codes explain of a squared error, at each of L noise levels and on average over them.

    Attributes:
        verdict: `used`, `unhelpful` or `collapsed`.
        share: of the error without a code that the right code removes, mean over levels.
        shuffled_share: the same for somebody else's code; negative where it misleads.
        gap: share - shuffled_share: what of the share is specific to the scan.
        share_by_level: with an interval each, L.
        shuffled_share_by_level: the same for somebody else's code, L.
        gap_by_level: the same for the gap, L.
    """

    verdict: Verdict
    share: Interval
    shuffled_share: Interval
    gap: Interval
    share_by_level: list[Interval]
    shuffled_share_by_level: list[Interval]
    gap_by_level: list[Interval]


def strangers(subjects: Sequence[str], generator: np.random.Generator) -> Rows:
    """For each row, a row of another subject; every row is taken once where that is possible.

    Rows are laid out subject by subject, in drawn order, and turned by the size of the largest subject. That is a
    permutation without a row of its own subject unless one subject has more than half of the rows; its surplus rows then
    take rows of others again.

    Args:
        subjects: the subject of each row, (N,).
        generator: of the order.

    Raises:
        TaskError: if all rows are of one subject.
    """
    groups = [generator.permutation(rows) for rows in rows_by_subject(subjects)]
    if len(groups) < 2:
        msg = f"codes cannot be shuffled between people: there are {len(groups)} subjects; give scans of two or more"
        raise TaskError(msg)
    groups = [groups[index] for index in generator.permutation(len(groups))]
    largest = max(range(len(groups)), key=lambda index: len(groups[index]))
    groups = [*groups[largest:], *groups[:largest]]
    order = np.concatenate(groups)
    size = len(groups[0])
    partners = np.empty_like(order)
    partners[order] = np.roll(order, -size)
    others = order[size:]
    partners[order[:size]] = np.resize(others, size)
    return partners


def effective_rank(codes: Array) -> float:
    """Exponential of the entropy of the singular values, divided by their sum, of centred codes (Roy and Vetterli 2007).

    k directions of equal variance give k. Rotating or scaling all codes changes nothing; a constant code gives 0.

    Args:
        codes: y, (N, S).
    """
    values = _singular_values(codes)
    if not values.size:
        return 0.0
    share = values / values.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def principal_components(codes: Array, share: float = 0.95) -> int:
    """Number of principal components that hold this share of the variance of codes, (N, S); 0 for a constant code."""
    variances = np.square(_singular_values(codes))
    if not variances.size:
        return 0
    held = np.cumsum(variances) / variances.sum()
    return int(np.searchsorted(held, share - 1e-9) + 1)


def active_dimensions(codes: Array, threshold: float = ACTIVE_ABOVE) -> int:
    """Number of dimensions whose variance over scans exceeds a share of the codes' mean square.

    Burda et al. 2016 count Cov_x(E[u | x]) > 0.01 where the prior variance is 1. y has no prior, but its layer norm holds
    the mean square over the dimensions of each scan at about 1, so that is the unit: it makes the count free of scale, and a
    code that has shrunk to nearly one point for everybody has no active dimension, however its dimensions compare.

    Args:
        codes: y, (N, S).
        threshold: the share.
    """
    return int(np.count_nonzero(codes.var(axis=0) > threshold * np.square(codes).mean()))


def share_between_subjects(codes: Array, subjects: Sequence[str]) -> float | None:
    """Share of the codes' variance that lies between subjects: the intraclass correlation ICC(1) (Shrout and Fleiss 1979).

    Sums of squares run over all dimensions, so rotation and scale change nothing. 1: all sessions of a subject have one
    code; 0: sessions of one subject are no closer than strangers. None if nobody has two sessions, or only one subject.

    Args:
        codes: y, (N, S).
        subjects: the subject of each row, (N,).
    """
    groups = rows_by_subject(subjects)
    count, n = len(groups), len(codes)
    if count < 2 or count == n:
        return None
    means = np.stack([codes[rows].mean(axis=0) for rows in groups])
    sizes = np.array([len(rows) for rows in groups], dtype=np.float64)
    within = sum(np.square(codes[rows] - mean).sum() for rows, mean in zip(groups, means, strict=True)) / (n - count)
    between = float(sizes @ np.square(means - codes.mean(axis=0)).sum(axis=1)) / (count - 1)
    typical = (n - np.square(sizes).sum() / n) / (count - 1)
    variance = (between - within) / typical
    return float(variance / (variance + within)) if variance + within > 0 else None


def measure_spread(codes: Array, subjects: Sequence[str]) -> CodeSpread:
    """All figures of how codes spread.

    Args:
        codes: y, (N, S).
        subjects: the subject of each row, (N,).
    """
    return CodeSpread(
        scans=len(codes),
        width=codes.shape[1],
        effective_rank=effective_rank(codes),
        components_95=principal_components(codes),
        active_dimensions=active_dimensions(codes),
        between_subjects=share_between_subjects(codes, subjects),
    )


def measure_use(errors: ThreeWays, subjects: Sequence[str], *, seed: int = 0, resamples: int = 1000) -> CodeUse:
    """What codes explain, with intervals over subjects, and a verdict.

    At one level the share is 1 - mean error with the right code / mean error without; over levels it is averaged plainly.
    The verdict reads the two 95 % intervals of the averages:

    - `collapsed`: that of the gap does not lie above 0, so that the own code helps no more than somebody else's;
    - `unhelpful`: that of the gap does, but that of the share does not, so that the code is read, to no advantage;
    - `used`: both lie above 0.

    Args:
        errors: mean squared error of each scan at each level, (N, L).
        subjects: the subject of each scan, (N,).
        seed: of the resamples; every interval sees the same ones.
        resamples: number of them.
    """

    def interval(name: str, levels: slice) -> Interval:
        def statistic(rows: Rows) -> float:
            none = errors.none[rows, levels].mean(axis=0)
            right, shuffled = (each[rows, levels].mean(axis=0) / none for each in (errors.right, errors.shuffled))
            shares = {"share": 1.0 - right, "shuffled": 1.0 - shuffled, "gap": shuffled - right}
            return float(shares[name].mean())

        return subject_bootstrap(statistic, subjects, generator=np.random.default_rng(seed), resamples=resamples)

    everything = slice(None)
    single = [slice(level, level + 1) for level in range(errors.none.shape[1])]
    share, gap = interval("share", everything), interval("gap", everything)
    verdict: Verdict = "collapsed" if gap.low <= 0 else "unhelpful" if share.low <= 0 else "used"
    return CodeUse(
        verdict=verdict,
        share=share,
        shuffled_share=interval("shuffled", everything),
        gap=gap,
        share_by_level=[interval("share", level) for level in single],
        shuffled_share_by_level=[interval("shuffled", level) for level in single],
        gap_by_level=[interval("gap", level) for level in single],
    )


def paired_gap(
    first: Array, second: Array, subjects: Sequence[str], *, seed: int = 0, resamples: int = 1000
) -> Interval:
    """Mean of first - second over scans, both (N,), with its interval over subjects."""
    difference = first - second
    return subject_bootstrap(
        lambda rows: float(difference[rows].mean()),
        subjects,
        generator=np.random.default_rng(seed),
        resamples=resamples,
    )


def _singular_values(codes: Array) -> Array:
    """Those of centred codes that are not rounding errors of the codes themselves, largest first."""
    values: Array = np.linalg.svd(codes - codes.mean(axis=0), compute_uv=False)
    # Networks compute in float32, whatever the type of the array is.
    floor = np.linalg.norm(codes) * max(codes.shape) * np.finfo(np.float32).eps
    return values[values > floor]
