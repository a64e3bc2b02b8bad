"""Metrics of predictions by the kind of target, with intervals over subjects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ldae.metrics.roc import area_under_curve
from ldae.metrics.statistics import Difference, Interval, mean_of, paired_difference, subject_bootstrap

__all__ = [
    "HIGHER_IS_BETTER",
    "METRICS",
    "PRIMARY",
    "Predictions",
    "compare_predictions",
    "concordance",
    "score_predictions",
]

Array = npt.NDArray[np.float64]
Metric = Callable[[Array, Array, Array], Array]
"""Of a target, predictions and how often each row counts, (R, N), to R values; NaN where it is undefined."""

PRIMARY = {"binary": "auc", "multiclass": "auc", "regression": "mae", "survival": "concordance"}
"""The metric by which embeddings are compared."""
TINY = 1e-12
"""Variance below this share of that of all scans is rounding."""
HIGHER_IS_BETTER = {"auc": True, "mae": False, "concordance": True}


@dataclass(frozen=True)
class Predictions:
    """Predictions of a probe for scans that it was not trained on.

    Attributes:
        kind: binary, multiclass, regression or survival.
        target: of each scan, (N,); months and event, (N, 2), of survival.
        values: of each repeat, (R, N) or (R, N, K); every scan was tested in every repeat.
        subjects: of each scan.
        folds: number of the fold in which each scan was tested, in each repeat, (R, N); None for one fold.
    """

    kind: str
    target: Array
    values: Array
    subjects: tuple[str, ...]
    folds: npt.NDArray[np.int64] | None = None

    def metric(self, name: str, weights: Array) -> Array:
        """A metric averaged over repeats, (R,); NaN where it is undefined. Weights are how often each scan counts, (R, N)."""
        metric = METRICS[self.kind][name]
        pairs = [(self.target, values) for values in self.values]
        if name == "r" and self.folds is not None:
            # The higher the mean that a fold is tested on, the lower the mean that it was trained on: over all folds even
            # constant predictions correlate, and negatively (Parker et al. 2007).
            pairs = [
                (_within(self.target, folds), _within(values, folds))
                for values, folds in zip(self.values, self.folds, strict=True)
            ]
        mean: Array = np.mean([metric(*pair, weights) for pair in pairs], axis=0)
        return mean

    def overall(self, name: str) -> float:
        """A metric of all scans, averaged over repeats."""
        return float(self.metric(name, np.ones((1, len(self.target))))[0])


def score_predictions(
    predictions: Predictions, names: Sequence[str] = (), *, seed: int = 0, resamples: int = 1000
) -> dict[str, Interval]:
    """Metrics with their 95 % intervals, all on the same resamples of subjects; all that the kind has, if none is named.

    Raises:
        TaskError: if a metric is undefined on more than half of the resamples.
    """
    return {
        name: subject_bootstrap(partial(predictions.metric, name), predictions.subjects, seed=seed, resamples=resamples)
        for name in names or METRICS[predictions.kind]
    }


def compare_predictions(
    first: Predictions, second: Predictions, metric: str, *, seed: int = 0, resamples: int = 1000
) -> Difference:
    """A metric of the first minus that of the second, both of the same scans, by the paired bootstrap over subjects."""
    return paired_difference(
        partial(first.metric, metric), partial(second.metric, metric), first.subjects, seed=seed, resamples=resamples
    )


def _recall(index: int, target: Array, values: Array, weights: Array) -> Array:
    predicted = values.argmax(axis=1) if values.ndim == 2 else (values > 0.5).astype(int)
    return mean_of(np.where(target == index, predicted == index, np.nan))(weights)


def _balanced(target: Array, values: Array, weights: Array) -> Array:
    classes = values.shape[1] if values.ndim == 2 else 2
    mean: Array = np.mean([_recall(index, target, values, weights) for index in range(classes)], axis=0)
    return mean


def _one_against_rest(target: Array, values: Array, weights: Array) -> Array:
    classes = range(values.shape[1])
    areas = [area_under_curve((target == index).astype(int), values[:, index], weights) for index in classes]
    mean: Array = np.mean(areas, axis=0)
    return mean


def _log_loss(target: Array, values: Array, weights: Array) -> Array:
    chosen = values[np.arange(len(target)), target.astype(int)]
    return mean_of(-np.log(np.clip(chosen, 1e-12, 1)))(weights)


def _covariance(first: Array, second: Array, weights: Array) -> Array:
    a, b = first - first.mean(), second - second.mean()
    return mean_of(a * b)(weights) - mean_of(a)(weights) * mean_of(b)(weights)


def _explained(target: Array, values: Array, weights: Array) -> Array:
    """R2; undefined for a target without variance."""
    variance = _covariance(target, target, weights)
    missed = mean_of(np.square(target - values))(weights)
    return 1 - np.divide(missed, variance, out=np.full_like(missed, np.nan), where=variance > TINY * target.var())


def _within(values: Array, folds: npt.NDArray[np.int64]) -> Array:
    """Values minus the mean of their fold."""
    means = np.bincount(folds, values) / np.bincount(folds).clip(1)
    centred = values - means[folds]
    return np.where(np.abs(centred) > TINY * np.abs(values).max(), centred, 0.0)


def _correlation(target: Array, values: Array, weights: Array) -> Array:
    """Pearson's r; 0 for predictions without variance."""
    variances = [_covariance(each, each, weights) for each in (target, values)]
    known, varied = (of > TINY * each.var() for of, each in zip(variances, (target, values), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = _covariance(target, values, weights) / np.sqrt(variances[0] * variances[1])
    return np.where(known, np.where(varied, found, 0.0), np.nan)


def concordance(target: Array, risk: Array) -> float:
    """Share of comparable pairs in which the earlier event had the higher risk (Harrell et al. 1982); ties count by half.

    The target is months and event indicator, (N, 2).
    """
    from lifelines.utils import concordance_index

    try:
        return float(concordance_index(target[:, 0], -risk, target[:, 1]))
    except ZeroDivisionError:  # no pair is comparable
        return float("nan")


def _concordance(target: Array, risk: Array, weights: Array) -> Array:
    drawn = [np.repeat(np.arange(len(risk)), each.astype(int)) for each in weights]
    return np.array([concordance(target[rows], risk[rows]) for rows in drawn])


METRICS: Mapping[str, Mapping[str, Metric]] = {
    "binary": {
        "auc": lambda target, values, weights: area_under_curve(target.astype(int), values, weights),
        "balanced_accuracy": _balanced,
        "sensitivity": partial(_recall, 1),
        "specificity": partial(_recall, 0),
        "brier": lambda target, values, weights: mean_of(np.square(values - target))(weights),
    },
    "multiclass": {"auc": _one_against_rest, "balanced_accuracy": _balanced, "log_loss": _log_loss},
    "regression": {
        "mae": lambda target, values, weights: mean_of(np.abs(target - values))(weights),
        "rmse": lambda target, values, weights: np.sqrt(mean_of(np.square(target - values))(weights)),
        "r2": _explained,
        "r": _correlation,
    },
    "survival": {"concordance": _concordance},
}
