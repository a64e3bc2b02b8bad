"""Time to conversion: a Cox regression on principal components of baseline codes, as a scikit-learn estimator."""

import warnings
from typing import Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ldae.errors import TaskError
from ldae.metrics.scores import concordance
from ldae.tasks.probe.folds import inner_folds

__all__ = ["CoxRegression", "choose_cox"]

Array = npt.NDArray[np.float64]

COMPONENTS = 10
"""Features are reduced to so many principal components, or to a fifth of the subjects: events are few."""
PENALISERS = (0.01, 0.1, 1.0)


class CoxRegression(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Cox regression with a ridge penaliser on whitened principal components (Cox 1972; lifelines).

    Args:
        penaliser: of the squared coefficients.
    """

    def __init__(self, penaliser: float = 0.1) -> None:
        self.penaliser = penaliser

    def fit(self, X: Array, y: Array) -> Self:
        """Fit on features (N, S), and months with whether the event was seen, (N, 2)."""
        from lifelines import CoxPHFitter

        width = max(1, min(COMPONENTS, X.shape[1], len(X) // 5))
        self.reduce_ = make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            StandardScaler(),
            PCA(width, svd_solver="full", whiten=True),
        ).set_output(transform="pandas")
        frame = self.reduce_.fit_transform(X)
        frame["months"], frame["event"] = y[:, 0], y[:, 1]
        with warnings.catch_warnings(action="ignore"):
            self.model_ = CoxPHFitter(penalizer=self.penaliser).fit(frame, "months", "event")
        return self

    def predict(self, X: Array) -> Array:
        """Log hazards relative to the mean of the training subjects, (N,)."""
        return np.asarray(self.model_.predict_log_partial_hazard(self.reduce_.transform(X)), dtype=np.float64)


def choose_cox(features: Array, outcome: Array) -> tuple[Pipeline, float]:
    """A Cox regression with the penaliser that ranks held-out folds of these subjects best: fitted, and its penaliser.

    Args:
        features: (N, S), one row a subject.
        outcome: months and whether the event was seen, (N, 2).

    Raises:
        TaskError: if fewer than two subjects convert, or fewer than two do not.
    """
    events = outcome[:, 1].astype(int)
    smallest = min(events.sum(), len(events) - events.sum())
    if smallest < 2:
        msg = f"{len(events)} training subjects hold {events.sum()} conversions; two who convert and two who do not are needed"
        raise TaskError(msg)
    best = PENALISERS[len(PENALISERS) // 2]
    if smallest >= 3:
        parts = list(inner_folds("survival", int(smallest)).split(features, events, np.arange(len(events))))
        ranked = [
            concordance(outcome, cross_val_predict(CoxRegression(each), features, outcome, cv=parts))
            for each in PENALISERS
        ]
        best = PENALISERS[int(np.nanargmax(ranked))]
    return Pipeline([("model", CoxRegression(best))]).fit(features, outcome), best
