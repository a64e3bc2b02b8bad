"""Metrics of predictions by the kind of target, with intervals over subjects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.stats import pearsonr
from sklearn import metrics

from ldae.metrics.roc import area_under_curve
from ldae.metrics.statistics import Difference, Interval, paired_difference, subject_bootstrap

__all__ = ["HIGHER_IS_BETTER", "PRIMARY", "Predictions", "compare_predictions", "concordance", "score_predictions"]

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Metric = Callable[[Array, Array], float]

PRIMARY = {"binary": "auc", "multiclass": "auc", "regression": "mae", "survival": "concordance"}
"""The metric by which embeddings are compared."""
HIGHER_IS_BETTER = {"auc": True, "mae": False, "concordance": True}


@dataclass(frozen=True)
class Predictions:
    """Predictions of a probe for scans that it was not trained on.

    Attributes:
        kind: binary, multiclass, regression or survival.
        target: of each scan, (N,); months and event, (N, 2), of survival.
        values: of each repeat, (R, N) or (R, N, K); every scan was tested in every repeat.
        subjects: of each scan.
    """

    kind: str
    target: Array
    values: Array
    subjects: tuple[str, ...]

    def metric(self, name: str, rows: Rows) -> float:
        """A metric of some scans, averaged over repeats; NaN where it is undefined."""
        metric = METRICS[self.kind][name]
        return float(np.mean([metric(self.target[rows], values[rows]) for values in self.values]))


def score_predictions(
    predictions: Predictions, names: Sequence[str] = (), *, seed: int = 0, resamples: int = 1000
) -> dict[str, Interval]:
    """Metrics with their 95 % intervals, all on the same resamples of subjects.

    Args:
        predictions: of scans.
        names: of the metrics; all that the kind has, if none is named.
        seed: of the resamples.
        resamples: number of draws.

    Raises:
        TaskError: if a metric is undefined on more than half of the resamples.
    """
    return {
        name: subject_bootstrap(
            partial(predictions.metric, name),
            predictions.subjects,
            generator=np.random.default_rng(seed),
            resamples=resamples,
        )
        for name in names or METRICS[predictions.kind]
    }


def compare_predictions(
    first: Predictions, second: Predictions, metric: str, *, seed: int = 0, resamples: int = 1000
) -> Difference:
    """A metric of the first minus that of the second, both of the same scans, by the paired bootstrap over subjects."""
    return paired_difference(
        partial(first.metric, metric),
        partial(second.metric, metric),
        first.subjects,
        generator=np.random.default_rng(seed),
        resamples=resamples,
    )


def _recall(index: int, target: Array, values: Array) -> float:
    predicted = values.argmax(axis=1) if values.ndim == 2 else (values > 0.5).astype(int)
    true = target == index
    return float((predicted[true] == index).mean()) if true.any() else float("nan")


def _balanced(target: Array, values: Array) -> float:
    classes = values.shape[1] if values.ndim == 2 else 2
    return float(np.mean([_recall(index, target, values) for index in range(classes)]))


def _one_against_rest(target: Array, values: Array) -> float:
    areas = [area_under_curve((target == index).astype(int), values[:, index]) for index in range(values.shape[1])]
    return float(np.mean(areas))


def _log_loss(target: Array, values: Array) -> float:
    chosen = values[np.arange(len(target)), target.astype(int)]
    return float(-np.log(np.clip(chosen, 1e-12, 1)).mean())


def concordance(target: Array, risk: Array) -> float:
    """Share of comparable pairs in which the earlier event had the higher risk (Harrell et al. 1982); ties count by half.

    Args:
        target: months and event indicator, (N, 2).
        risk: higher for an earlier event, (N,).
    """
    from lifelines.utils import concordance_index

    try:
        return float(concordance_index(target[:, 0], -risk, target[:, 1]))
    except ZeroDivisionError:  # no pair is comparable
        return float("nan")


METRICS: Mapping[str, Mapping[str, Metric]] = {
    "binary": {
        "auc": lambda target, values: area_under_curve(target.astype(int), values),
        "balanced_accuracy": _balanced,
        "sensitivity": partial(_recall, 1),
        "specificity": partial(_recall, 0),
        "brier": lambda target, values: float(np.square(values - target).mean()),
    },
    "multiclass": {"auc": _one_against_rest, "balanced_accuracy": _balanced, "log_loss": _log_loss},
    "regression": {
        "mae": lambda target, values: float(np.abs(target - values).mean()),
        "rmse": lambda target, values: float(np.sqrt(np.square(target - values).mean())),
        "r2": lambda target, values: float(metrics.r2_score(target, values)) if len(target) > 1 else float("nan"),
        "r": lambda target, values: float(pearsonr(target, values)[0]) if np.ptp(values) > 0 else 0.0,
    },
    "survival": {"concordance": concordance},
}
