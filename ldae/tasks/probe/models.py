"""The probes: scikit-learn pipelines whose every statistic and hyperparameter comes from training subjects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from ldae.errors import TaskError
from ldae.tasks.probe.attention_pooling import AttentionPoolingClassifier, AttentionPoolingRegressor
from ldae.tasks.probe.cox import choose_cox
from ldae.tasks.probe.folds import inner_folds
from ldae.tasks.probe.targets import Target

__all__ = ["MIN_SUBJECTS", "Features", "FittedProbe", "ProbeModel", "Residualise", "fit_probe"]

Array = npt.NDArray[np.float64]
ProbeModel = Literal["linear", "knn", "attention"]

MIN_SUBJECTS = 10
"""Subjects that a hyperparameter can be chosen on; with fewer it is given."""
GIVEN = {"logistic": 0.01, "ridge": 1000.0, "knn": 3, "attention": 0.1}
NEIGHBOURS = (1, 3, 5, 9, 15, 25)
TRIED = {"ridge": np.logspace(-1, 6, 12).tolist(), "logistic": np.logspace(-5, 2, 9).tolist()}
"""Hyperparameters that are tried. With half as many, the AUC of 378 labelled subjects was 0.913 and not 0.935."""
SCORING = {"binary": "neg_log_loss", "multiclass": "neg_log_loss", "regression": "neg_mean_absolute_error"}
"""A proper score: over few subjects the AUC is so coarse that it chooses almost at random."""


class CommonScaler(StandardScaler):  # type: ignore[misc]
    """Features less their means, all divided by one number: those that vary most stay the largest.

    Principal components, and codes that begin as such, are ordered by their variance. Made alike, the many that hold little
    drown the few that matter where labels are few; measured, 64 labelled subjects gave an AUC of 0.87 and not 0.73.
    """

    def fit(self, X: Array, y: Any = None, sample_weight: Any = None) -> "CommonScaler":
        """Learn means and the root mean square of the standard deviations."""
        super().fit(X, y, sample_weight)
        self.scale_ = np.full_like(self.mean_, np.sqrt(self.var_.mean()) or 1.0)
        return self


class Residualise(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features less their linear regression on confounds (Snoek et al. 2019: inside the fold).

    Features keep their means over the training rows, by which tokens of different places differ.

    Args:
        confounds: the last so many columns are confounds, and are dropped.
    """

    def __init__(self, confounds: int = 0) -> None:
        self.confounds = confounds

    def fit(self, X: Array, y: Any = None) -> Self:
        """Regress every feature on the confounds of the training rows."""
        X = validate_data(self, X)
        if self.confounds:
            self.regression_ = LinearRegression().fit(X[:, -self.confounds :], X[:, : -self.confounds])
            self.mean_ = X[:, : -self.confounds].mean(axis=0)
        return self

    def transform(self, X: Array) -> Array:
        """Residuals of the features, (N, S - confounds)."""
        check_is_fitted(self, "n_features_in_")
        X = validate_data(self, X, reset=False)
        if not self.confounds:
            return X
        return X[:, : -self.confounds] - self.regression_.predict(X[:, -self.confounds :]) + self.mean_


@dataclass(frozen=True)
class FittedProbe:
    """A trained pipeline with the hyperparameter that was chosen.

    Attributes:
        pipeline: trained.
        penalty: C, alpha, the penaliser of a Cox regression, or the number of neighbours.
    """

    pipeline: Pipeline
    penalty: float

    def predict(self, features: Array) -> Array:
        """Probability of the positive class (N,), probabilities of all classes (N, K), or the number (N,)."""
        if not hasattr(self.pipeline, "predict_proba"):
            return np.asarray(self.pipeline.predict(features), dtype=np.float64)
        probabilities = np.asarray(self.pipeline.predict_proba(features), dtype=np.float64)
        return probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities

    def attention(self, features: Array) -> Array:
        """Weight of each token of each scan, (N, K), for a model that pools them."""
        *_, model = self.pipeline.named_steps.values()
        return np.asarray(model.attention(self.pipeline[:-1].transform(features)), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of scans, ready for probes.

    Attributes:
        values: (N, S); a missing number is NaN.
        confounds: the last so many columns are confounds, taken out of the others by regression.
        components: principal components that features are reduced to; None keeps them.
        tokens: of each scan; the features before the confounds are so many blocks of equal width.
        impute: whether a missing number takes the median of the training rows; test rows may lack some, too.
    """

    values: Array
    confounds: int = 0
    components: int | None = None
    tokens: int = 1
    impute: bool = False

    def fit(self, target: Target, rows: npt.NDArray[np.int64], model: ProbeModel = "linear") -> FittedProbe:
        """A probe of these features, trained on some rows of the target; of a time to an event a Cox regression.

        Raises:
            TaskError: if a class is lacking.
        """
        if target.kind == "survival":
            return FittedProbe(*choose_cox(self.values[rows], target.outcome[rows]))
        trained, subjects = replace(self, values=self.values[rows]), target.subjects[rows].tolist()
        return fit_probe(
            trained, target.values[rows], subjects, target.kind, model=model, classes=len(target.classes) or 2
        )


def fit_probe(
    features: Features,
    target: Array,
    subjects: Sequence[str],
    kind: str,
    *,
    model: ProbeModel = "linear",
    classes: int = 2,
) -> FittedProbe:
    """Impute, take out confounds, reduce, scale, and fit.

    The hyperparameter, and whether features are scaled each by itself or all alike, are chosen over folds of these subjects.

    Args:
        features: of N training scans.
        target: (N,), as in :class:`~ldae.tasks.probe.targets.Target`.
        subjects: of each row.
        kind: binary, multiclass or regression.
        model: logistic or ridge regression, nearest neighbours by cosine, or regression on attention-pooled tokens; without
            tokens the last is the first.
        classes: number of classes.

    Raises:
        TaskError: if a class is lacking.
    """
    if model == "attention" and features.tokens == 1:
        model = "linear"
    present = np.unique(target)
    if kind != "regression" and len(present) < classes:
        msg = (
            f"the training subjects are of {len(present)} of {classes} classes; use more subjects, other folds, or "
            "leave the rare class out (--positive, --negative)"
        )
        raise TaskError(msg)
    before: list[tuple[str, Any]] = []
    if features.impute:
        before.append(("impute", SimpleImputer(strategy="median", keep_empty_features=True)))
    if features.confounds:
        before.append(("residualise", Residualise(features.confounds)))
    if features.components is not None:
        most = min(len(target) - 1, features.values.shape[1] - features.confounds)
        before.append(("reduce", PCA(min(features.components, most), svd_solver="full")))
    # Steps that need no labels are fitted once; folds of training subjects choose the hyperparameter alone.
    prepared = Pipeline(before).fit_transform(features.values) if before else features.values
    estimator, name, penalties, penalty = _estimator(kind, model, len(target), features.tokens)
    # Attention standardises by itself: the differences between tokens are what it attends to.
    scalers = ["passthrough"] if model == "attention" else [StandardScaler(), CommonScaler()]
    pipeline = Pipeline([("standardise", scalers[0]), ("model", estimator)])
    labels = target if kind == "regression" else target.astype(int)
    count = len(set(subjects))
    smallest = min(len({s for s, t in zip(subjects, target, strict=True) if t == c}) for c in present)
    if count < MIN_SUBJECTS or (kind != "regression" and smallest < 2):
        best = pipeline.set_params(**{f"model__{name}": penalty}).fit(prepared, labels)
    else:
        folds = inner_folds(kind, count if kind == "regression" else smallest)
        tried = {"standardise": scalers, f"model__{name}": penalties}
        search = GridSearchCV(pipeline, tried, scoring=SCORING[kind], cv=folds)
        # Values were checked when they were prepared; checking them again in every fold takes most of a small fit's time.
        with config_context(assume_finite=True, skip_parameter_validation=True):
            search.fit(prepared, labels, groups=np.asarray(subjects))
        best, penalty = search.best_estimator_, search.best_params_[f"model__{name}"]
    return FittedProbe(Pipeline([*before, *best.steps]), float(penalty))


def _estimator(kind: str, model: ProbeModel, rows: int, tokens: int) -> tuple[Any, str, Sequence[float], float]:
    """The model, the name of its hyperparameter, the values to try, and the one that few subjects have."""
    if model == "attention":
        pooling = AttentionPoolingRegressor if kind == "regression" else AttentionPoolingClassifier
        return pooling(tokens=tokens), "alpha", np.logspace(-4, 0, 5).tolist(), GIVEN["attention"]
    if model == "knn":
        neighbours = [count for count in NEIGHBOURS if count <= rows * 3 // 5] or [1]
        make = KNeighborsRegressor if kind == "regression" else KNeighborsClassifier
        return make(weights="distance", metric="cosine"), "n_neighbors", neighbours, min(GIVEN["knn"], rows)
    if kind == "regression":
        return Ridge(), "alpha", TRIED["ridge"], GIVEN["ridge"]
    return LogisticRegression(class_weight="balanced", max_iter=5000), "C", TRIED["logistic"], GIVEN["logistic"]
