"""Usage of the semantic code: the spread of codes, and the denoising error that they explain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import entropy

from ldae.errors import TaskError
from ldae.metrics.statistics import FEWEST, Interval, Rows, rows_by_subject, subject_bootstrap

__all__ = [
    "VERDICTS",
    "CodeSpread",
    "CodeUse",
    "ThreeWays",
    "active_dimensions",
    "effective_rank",
    "measure_spread",
    "measure_use",
    "principal_components",
    "share_between_subjects",
    "step_variation",
    "strangers",
]

Array = npt.NDArray[np.float64]

Verdict = Literal["used", "unhelpful", "collapsed", "undecided"]
"""See :func:`measure_use`."""

VERDICTS: dict[Verdict, str] = {
    "used": "a scan's own code explains more than no code, and more than another subject's code",
    "unhelpful": "a scan's own code is better than another subject's code, but no better than no code",
    "collapsed": "a scan's own code is no better than another subject's code, so it holds nothing of the scan",
    "undecided": "there are too few subjects to tell",
}

ACTIVE_ABOVE = 0.01
"""Of Burda et al. 2016, where the prior variance is 1."""


@dataclass(frozen=True)
class CodeSpread:
    """Spread of codes over scans; each metric is that of the function of its name.

    Attributes:
        scans: number of codes.
        width: S, dimensions of a code.
        effective_rank: at most the smaller of S and scans - 1.
        components_95: principal components for 95 % of the variance.
        active_dimensions: at most S.
        between_subjects: share of the variance between subjects.
    """

    scans: int
    width: int
    effective_rank: float
    components_95: int
    active_dimensions: int
    between_subjects: float | None


@dataclass(frozen=True)
class ThreeWays:
    """One metric of the same scans with three codes; every other input is equal.

    Attributes:
        right: with the scan's own code, (N, ...).
        shuffled: with the code of another subject's scan.
        none: without a code.
    """

    right: Array
    shuffled: Array
    none: Array


@dataclass(frozen=True)
class CodeUse:
    """Share of the squared error without a code that codes remove, on average over L noise levels and at each.

    Attributes:
        verdict: `used`, `unhelpful` or `collapsed`; with fewer than five subjects not `used` or `unhelpful`, but `undecided`.
        share: of the right code.
        shuffled_share: of another subject's code; negative where it misleads.
        gap: share - shuffled_share, the part that is specific to the scan.
        share_by_level: of the right code at each level, L.
        shuffled_share_by_level: of another subject's code, L.
        gap_by_level: their difference, L.
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

    Rows are laid out subject by subject, in drawn order, and rotated by the size of the largest subject. No row then
    meets its own subject, unless one subject has more than half of the rows; its surplus rows take rows of others again.

    Raises:
        TaskError: if all rows are of one subject.
    """
    groups = [generator.permutation(rows) for rows in rows_by_subject(subjects)]
    if len(groups) < 2:
        msg = f"codes cannot be shuffled between subjects: there are {len(groups)}; give scans of two or more subjects"
        raise TaskError(msg)
    groups = [groups[index] for index in generator.permutation(len(groups))]
    largest = max(range(len(groups)), key=lambda index: len(groups[index]))
    order = np.concatenate([*groups[largest:], *groups[:largest]])
    size = len(groups[largest])
    partners = np.empty_like(order)
    partners[order] = np.roll(order, -size)
    partners[order[:size]] = np.resize(order[size:], size)
    return partners


def effective_rank(codes: Array) -> float:
    """Exponential of the entropy of the normalised singular values of centred codes, (N, S) (Roy and Vetterli 2007).

    k directions of equal variance give k. Rotating or scaling all codes changes nothing; a constant code gives 0.
    """
    values = _singular_values(codes)
    return float(np.exp(entropy(values))) if values.size else 0.0


def principal_components(codes: Array, share: float = 0.95) -> int:
    """Number of principal components that hold this share of the variance of codes, (N, S); 0 for a constant code."""
    variances = np.square(_singular_values(codes))
    return int(np.searchsorted(np.cumsum(variances), (share - 1e-9) * variances.sum()) + 1) if variances.size else 0


def active_dimensions(codes: Array) -> int:
    """Number of dimensions whose variance over scans exceeds 1 % of the mean square of codes, (N, S).

    Burda et al. 2016 count Cov_x(E[u | x]) > 0.01 where the prior variance is 1. y has no prior, but its layer norm holds
    its mean square at about 1, so that is the unit. The count is free of scale, and codes that have shrunk to nearly one
    point have no active dimension.
    """
    return int(np.count_nonzero(codes.var(axis=0) > ACTIVE_ABOVE * np.square(codes).mean()))


def share_between_subjects(codes: Array, subjects: Sequence[str]) -> float | None:
    """Share of the codes' variance between subjects: the intraclass correlation ICC(1) (Shrout and Fleiss 1979).

    Sums of squares run over all dimensions of the codes, (N, S), so rotation and scale change nothing. 1: all sessions of a
    subject share one code; 0: they are no closer than those of different subjects. None if no subject has two sessions, or
    there is only one subject.
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
    """Every metric of the spread of codes, (N, S), of the given subjects, (N,)."""
    return CodeSpread(
        len(codes),
        codes.shape[1],
        effective_rank(codes),
        principal_components(codes),
        active_dimensions(codes),
        share_between_subjects(codes, subjects),
    )


def measure_use(errors: ThreeWays, subjects: Sequence[str], *, seed: int = 0, resamples: int = 1000) -> CodeUse:
    """Explained share of the denoising error, with intervals over subjects, and a verdict.

    At one level the share is 1 - mean error with the right code / mean error without; over levels it is averaged plainly.
    The verdict reads the two 95 % intervals of the averages:

    - `collapsed`: the interval of the gap reaches 0: the own code helps no more than another subject's;
    - `unhelpful`: the gap lies above 0, but the share does not: the code is read, to no advantage;
    - `used`: both lie above 0.

    Args:
        errors: mean squared error of each scan at each level, (N, L).
        subjects: the subject of each scan, (N,).
        seed: of the resamples; every interval sees the same ones.
        resamples: number of them.
    """

    def interval(name: str, levels: slice) -> Interval:
        def statistic(weights: Array) -> Array:
            none = weights @ errors.none[:, levels]
            right, shuffled = (weights @ each[:, levels] / none for each in (errors.right, errors.shuffled))
            mean: Array = {"share": 1.0 - right, "shuffled": 1.0 - shuffled, "gap": shuffled - right}[name].mean(axis=1)
            return mean

        return subject_bootstrap(statistic, subjects, seed=seed, resamples=resamples)

    single = [slice(level, level + 1) for level in range(errors.none.shape[1])]
    share, shuffled, gap = (interval(name, slice(None)) for name in ("share", "shuffled", "gap"))
    levels = [[interval(name, level) for level in single] for name in ("share", "shuffled", "gap")]
    verdict: Verdict = "collapsed" if gap.ends[0] <= 0 else "unhelpful" if share.ends[0] <= 0 else "used"
    if verdict != "collapsed" and len(set(subjects)) < FEWEST:
        verdict = "undecided"
    return CodeUse(verdict, share, shuffled, gap, *levels)


def step_variation(images: npt.NDArray[np.float32]) -> float:
    """Standard deviation over mean of the lengths of the steps from image to image (after Guo et al. 2024); 0 for even steps.

    Images, (P, D, H, W), are decoded from evenly spaced codes on a line.
    """
    steps = np.sqrt(np.square(np.diff(images.astype(np.float64), axis=0)).reshape(len(images) - 1, -1).sum(axis=1))
    return float(steps.std() / steps.mean()) if steps.any() else 0.0


def _singular_values(codes: Array) -> Array:
    """Singular values of centred codes above the rounding errors of the codes themselves, largest first."""
    values: Array = np.linalg.svd(codes - codes.mean(axis=0), compute_uv=False)
    # Networks compute in float32, whatever the type of the array is.
    floor = np.linalg.norm(codes) * max(codes.shape) * np.finfo(np.float32).eps
    return values[values > floor]
