"""Probe: linear models on codes. It sees arrays only; every statistic is fitted on training subjects."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn import metrics
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ldae.errors import TaskError
from ldae.evaluation.statistics import Interval, rows_by_subject, subject_bootstrap
from ldae.io.files import write_json

__all__ = ["AgeResult", "DiagnosisResult", "LinearProbe", "Samples", "probe_age", "probe_diagnosis"]

Array = npt.NDArray[np.float64]

MIN_SUBJECTS = 10


@dataclass(frozen=True)
class Samples:
    """Feature vectors with what they are to predict.

    Attributes:
        features: (N, S).
        target: (N,): 1 for the positive class and 0 for the other, or years.
        subjects: of each row.
    """

    features: Array
    target: Array
    subjects: tuple[str, ...]

    @property
    def subject_count(self) -> int:
        """Number of different subjects."""
        return len(set(self.subjects))


@dataclass(frozen=True)
class LinearProbe:
    """A fitted linear model w . (y - mean) / scale + intercept, on standardised features.

    Attributes:
        mean: of the training features, (S,).
        scale: their standard deviation, (S,).
        weights: w, (S,).
        intercept: of the model.
        spread: standard deviation of the training features along w / norm(w), in standardised units; the unit of a
            manipulation's step.
        logistic: whether the value is a logit.
        penalty: chosen on training subjects.
    """

    mean: Array
    scale: Array
    weights: Array
    intercept: float
    spread: float
    logistic: bool
    penalty: float

    def value(self, features: Array) -> Array:
        """Logit or years, (N,)."""
        return (features - self.mean) / self.scale @ self.weights + self.intercept

    def predict(self, features: Array) -> Array:
        """Probability of the positive class, or years, (N,)."""
        value = self.value(features)
        return 1.0 / (1.0 + np.exp(-value)) if self.logistic else value

    @property
    def step(self) -> Array:
        """The change of y that moves it by one standard deviation of the training cohort along the probe, (S,)."""
        return self.spread * self.scale * self.weights / np.linalg.norm(self.weights)

    def save(self, path: Path) -> Path:
        """Write as JSON."""
        return write_json(path, {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()})

    @classmethod
    def load(cls, path: Path) -> "LinearProbe":
        """Read what :meth:`save` wrote.

        Raises:
            TaskError: if it is no probe.
        """
        try:
            plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            plain |= {name: np.asarray(plain[name], dtype=np.float64) for name in ("mean", "scale", "weights")}
            return cls(**plain)
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"{path}: not a saved probe ({error}); give the probe JSON that 'ldae probe' wrote"
            raise TaskError(msg) from error


@dataclass(frozen=True)
class DiagnosisResult:
    """A diagnosis probe on test subjects.

    Attributes:
        positive: the class that a high probability means.
        negative: the other class.
        auc: area under the ROC curve.
        balanced_accuracy: at probability 0.5.
        sensitivity: share of positive scans found.
        specificity: share of negative scans left alone.
        train_subjects: that the probe was fitted on.
        test_subjects: that it was tested on.
        test_scans: their scans.
        probability: of each test scan.
        target: 1 for positive, of each test scan.
        roc: false and true positive rates, and the 95 % band of the latter over subjects.
    """

    positive: str
    negative: str
    auc: Interval
    balanced_accuracy: Interval
    sensitivity: Interval
    specificity: Interval
    train_subjects: int
    test_subjects: int
    test_scans: int
    probability: list[float]
    target: list[int]
    roc: dict[str, list[float]]


@dataclass(frozen=True)
class AgeResult:
    """An age probe on test subjects; errors in years.

    Attributes:
        mae: mean absolute error.
        rmse: root mean squared error.
        r2: coefficient of determination.
        train_subjects: that the probe was fitted on.
        test_subjects: that it was tested on.
        test_scans: their scans.
        predicted: of each test scan.
        target: true age of each test scan.
    """

    mae: Interval
    rmse: Interval
    r2: Interval
    train_subjects: int
    test_subjects: int
    test_scans: int
    predicted: list[float]
    target: list[float]


def probe_diagnosis(
    train: Samples,
    test: Samples,
    *,
    positive: str = "AD",
    negative: str = "CN",
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[DiagnosisResult, LinearProbe]:
    """Logistic regression with balanced classes; its penalty maximises the AUC over folds of training subjects.

    Args:
        train: of training subjects.
        test: of test subjects.
        positive: name of class 1.
        negative: name of class 0.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        TaskError: if a class or subjects are lacking.
    """
    for name, samples in (("training", train), ("test", test)):
        classes = {int(value) for value in samples.target}
        if classes != {0, 1}:
            msg = (
                f"the {name} subjects hold classes {sorted(classes)}, both {negative} (0) and {positive} (1) are needed; "
                "check the split"
            )
            raise TaskError(msg)
    model = LogisticRegression(class_weight="balanced", max_iter=5000)
    grid = {"logisticregression__C": np.logspace(-5, 2, 15)}
    probe = _fit(train, model, grid, scoring="roc_auc")
    probability, target = probe.predict(test.features), test.target.astype(int)

    def interval(statistic: Any) -> Interval:
        return subject_bootstrap(
            lambda rows: statistic(target[rows], probability[rows]),
            test.subjects,
            generator=np.random.default_rng(seed),
            resamples=resamples,
        )

    result = DiagnosisResult(
        positive=positive,
        negative=negative,
        auc=interval(_auc),
        balanced_accuracy=interval(lambda t, p: (_sensitivity(t, p) + _sensitivity(1 - t, 1 - p)) / 2),
        sensitivity=interval(_sensitivity),
        specificity=interval(lambda t, p: _sensitivity(1 - t, 1 - p)),
        train_subjects=train.subject_count,
        test_subjects=test.subject_count,
        test_scans=len(target),
        probability=probability.tolist(),
        target=target.tolist(),
        roc=_roc_band(target, probability, test.subjects, np.random.default_rng(seed), min(resamples, 500)),
    )
    return result, probe


def probe_age(train: Samples, test: Samples, *, seed: int = 0, resamples: int = 1000) -> tuple[AgeResult, LinearProbe]:
    """Ridge regression; its penalty minimises the absolute error over folds of training subjects.

    Args:
        train: of training subjects, target in years.
        test: of test subjects.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        TaskError: if subjects are lacking.
    """
    probe = _fit(train, Ridge(), {"ridge__alpha": np.logspace(-1, 6, 22)}, scoring="neg_mean_absolute_error")
    return age_result(probe.predict(test.features), train, test, seed=seed, resamples=resamples), probe


def age_result(predicted: Array, train: Samples, test: Samples, *, seed: int = 0, resamples: int = 1000) -> AgeResult:
    """Errors of predicted ages, (N,), with intervals over subjects."""
    target = test.target

    def interval(statistic: Any) -> Interval:
        return subject_bootstrap(
            lambda rows: statistic(target[rows], predicted[rows]),
            test.subjects,
            generator=np.random.default_rng(seed),
            resamples=resamples,
        )

    return AgeResult(
        mae=interval(lambda t, p: float(np.abs(t - p).mean())),
        rmse=interval(lambda t, p: float(np.sqrt(np.square(t - p).mean()))),
        r2=interval(lambda t, p: float(metrics.r2_score(t, p)) if len(t) > 1 else np.nan),
        train_subjects=train.subject_count,
        test_subjects=test.subject_count,
        test_scans=len(target),
        predicted=predicted.tolist(),
        target=target.tolist(),
    )


def _fit(train: Samples, model: Any, grid: dict[str, Any], *, scoring: str) -> LinearProbe:
    """Standardise and fit, with the penalty chosen by cross-validation over training subjects."""
    if train.subject_count < MIN_SUBJECTS:
        msg = (
            f"{train.subject_count} training subjects are too few for a probe with a chosen penalty, at least "
            f"{MIN_SUBJECTS} are needed; add subjects, or give embeddings of a larger cohort"
        )
        raise TaskError(msg)
    folds = GroupKFold(n_splits=5)
    search = GridSearchCV(make_pipeline(StandardScaler(), model), grid, scoring=scoring, cv=folds)
    search.fit(train.features, train.target, groups=np.asarray(train.subjects))
    best: Pipeline = search.best_estimator_
    scaler, linear = best[0], best[-1]
    weights = np.ravel(linear.coef_).astype(np.float64)
    standardised = scaler.transform(train.features)
    direction = weights / max(float(np.linalg.norm(weights)), 1e-12)
    return LinearProbe(
        mean=scaler.mean_,
        scale=scaler.scale_,
        weights=weights,
        intercept=float(np.ravel(linear.intercept_)[0]),
        spread=float(np.std(standardised @ direction)),
        logistic=isinstance(linear, LogisticRegression),
        penalty=float(next(iter(search.best_params_.values()))),
    )


def _auc(target: npt.NDArray[np.int64], probability: Array) -> float:
    """Area under the ROC curve as the Mann-Whitney statistic of mid-ranks (Hanley and McNeil 1982), quick enough to resample."""
    positive = int(target.sum())
    pairs = positive * (len(target) - positive)
    if not pairs:
        return float("nan")
    return float((rankdata(probability)[target == 1].sum() - positive * (positive + 1) / 2) / pairs)


def _sensitivity(target: npt.NDArray[np.int64], probability: Array) -> float:
    positive = target == 1
    return float((probability[positive] > 0.5).mean()) if positive.any() else float("nan")


def _roc_band(
    target: npt.NDArray[np.int64],
    probability: Array,
    subjects: Sequence[str],
    generator: np.random.Generator,
    resamples: int,
) -> dict[str, list[float]]:
    """The ROC curve on 101 false positive rates, with its pointwise 95 % band over subjects."""
    rates = np.linspace(0.0, 1.0, 101)

    def curve(rows: npt.NDArray[np.int64]) -> Array | None:
        if not 0 < target[rows].mean() < 1:
            return None
        false, true, _ = metrics.roc_curve(target[rows], probability[rows])
        return np.interp(rates, false, true)

    groups = rows_by_subject(subjects)
    draws = []
    for _ in range(resamples):
        drawn = generator.integers(len(groups), size=len(groups))
        draws.append(curve(np.concatenate([groups[index] for index in drawn])))
    low, high = np.percentile([draw for draw in draws if draw is not None], [2.5, 97.5], axis=0)
    false, true, _ = metrics.roc_curve(target, probability)
    return {
        "false_positive_rate": false.tolist(),
        "true_positive_rate": true.tolist(),
        "band_rate": rates.tolist(),
        "band_low": low.tolist(),
        "band_high": high.tolist(),
    }
