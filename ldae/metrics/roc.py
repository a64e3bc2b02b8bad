"""ROC curve: its area, the area's variance over subjects, and the difference of two areas on the same scans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_curve

from ldae.metrics.statistics import Difference, draw_subjects, rows_by_subject

__all__ = ["Areas", "area_under_curve", "roc_areas", "roc_band", "roc_difference"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Areas:
    """Areas under the ROC curves of several scores on the same scans.

    Attributes:
        values: of each score, (K,).
        covariance: of the areas over samples of subjects, (K, K).
    """

    values: Array
    covariance: Array


def area_under_curve(target: npt.NDArray[np.int64], score: Array, weights: Array) -> Array:
    """Areas under the ROC curve, (R,), as Mann-Whitney statistics (Hanley and McNeil 1982); NaN for one class only.

    Args:
        target: 1 for positive, 0 for negative, (N,).
        score: larger for positive, (N,).
        weights: how often each row counts, (R, N).
    """
    order, positive, last = _steps(target, score)
    first, weights = np.append(0, last[:-1] + 1), weights[:, order]
    true, false = (np.add.reduceat(weights * kind, first, axis=1) for kind in (positive, ~positive))
    below = false.cumsum(axis=1) - false / 2
    with np.errstate(invalid="ignore"):
        area: Array = (true * below).sum(axis=1) / (true.sum(axis=1) * false.sum(axis=1))
    return area


def _steps(
    target: npt.NDArray[np.int64], score: Array
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Order of rising scores, which of them are positive, and the last of equal scores."""
    order = np.argsort(score, kind="stable")
    return order, target[order] == 1, np.flatnonzero(np.diff(score[order], append=np.inf))


def roc_areas(target: npt.NDArray[np.int64], scores: npt.ArrayLike, subjects: Sequence[str]) -> Areas:
    """Areas and their covariance for clustered scans (Obuchowski 1997); with one scan a subject it is DeLong et al. 1988.

    Args:
        target: 1 for positive, 0 for negative, (N,); a subject may have scans of both.
        scores: (K, N), larger for positive.
        subjects: of each scan, (N,).
    """
    all_scores = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    positive = np.asarray(target) == 1
    m, n = int(positive.sum()), int((~positive).sum())
    values = np.empty(len(all_scores))
    # Structural components by mid-ranks (Sun and Xu 2014): of each scan, the share of the other class ranked correctly.
    components = np.empty_like(all_scores)
    for k, score in enumerate(all_scores):
        among_all = rankdata(score)
        components[k, positive] = (among_all[positive] - rankdata(score[positive])) / n
        components[k, ~positive] = 1 - (among_all[~positive] - rankdata(score[~positive])) / m
        values[k] = components[k, positive].mean()
    centred = components - values[:, None]
    groups = rows_by_subject(subjects)
    of_positive = np.stack([np.where(positive[rows], centred[:, rows], 0.0).sum(axis=1) for rows in groups], axis=1)
    of_negative = np.stack([np.where(positive[rows], 0.0, centred[:, rows]).sum(axis=1) for rows in groups], axis=1)
    with_positive = sum(bool(positive[rows].any()) for rows in groups)
    with_negative = sum(not positive[rows].all() for rows in groups)
    spread_positive = of_positive @ of_positive.T * with_positive / max(with_positive - 1, 1) / m**2
    spread_negative = of_negative @ of_negative.T * with_negative / max(with_negative - 1, 1) / n**2
    shared = of_positive @ of_negative.T * len(groups) / max(len(groups) - 1, 1) / (m * n)
    return Areas(values, spread_positive + spread_negative + shared + shared.T)


def roc_band(
    target: npt.NDArray[np.int64], score: Array, subjects: Sequence[str], *, seed: int = 0, resamples: int = 500
) -> dict[str, list[float]]:
    """ROC curve, and its pointwise 95 % band over subjects on 101 false positive rates; arguments as of :func:`roc_areas`."""
    rates = np.linspace(0.0, 1.0, 101)
    order, positive, last = _steps(target, -score)
    curves = []
    for weights in draw_subjects(subjects, np.random.default_rng(seed), resamples):
        for weight in weights[:, order]:
            true, false = ((weight * kind).cumsum()[last] for kind in (positive, ~positive))
            if true[-1] and false[-1]:
                curves.append(np.interp(rates, np.append(0, false / false[-1]), np.append(0, true / true[-1])))
    low, high = np.percentile(curves, [2.5, 97.5], axis=0)
    false, true, _ = roc_curve(target, score)
    return {
        "false_positive_rate": false.tolist(),
        "true_positive_rate": true.tolist(),
        "band_rate": rates.tolist(),
        "band_low": low.tolist(),
        "band_high": high.tolist(),
    }


def roc_difference(areas: Areas, first: int = 0, second: int = 1) -> Difference | None:
    """First area minus second by their indices, with normal interval and two-sided p (DeLong et al. 1988).

    None if the variance of the difference is unknown.
    """
    value = float(areas.values[first] - areas.values[second])
    covariance = areas.covariance
    variance = float(covariance[first, first] + covariance[second, second] - 2 * covariance[first, second])
    if variance <= 0:
        return Difference(value, None, None, "both rank the scans alike", p=1.0) if value == 0 else None
    error = float(np.sqrt(variance))
    half = float(norm.ppf(0.975)) * error
    return Difference(value, value - half, value + half, p=float(2 * norm.sf(abs(value) / error)))
