"""The probe's protocol: one target, several embeddings of the same scans, the same folds and resamples for all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldae.errors import TaskError
from ldae.metrics.calibration import calibration_curve, calibration_slope, expected_calibration_error
from ldae.metrics.roc import area_under_curve, roc_areas, roc_band, roc_difference
from ldae.metrics.scores import HIGHER_IS_BETTER, PRIMARY, Predictions, compare_predictions, score_predictions
from ldae.metrics.statistics import Difference, holm, permutation_p, rows_by_subject
from ldae.tasks.probe.confounds import demographics, encode_columns, fit_age_bias, match_classes
from ldae.tasks.probe.embeddings import Embeddings
from ldae.tasks.probe.folds import Fold, cross_validation, frozen_split
from ldae.tasks.probe.learning_curve import learning_curve
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.models import FittedProbe, fit_probe
from ldae.tasks.probe.result import CODES, MEDIAN, Comparison, ProbeReport, ProbeSettings, Scored
from ldae.tasks.probe.targets import Target, check_column, column_of

__all__ = ["DEMOGRAPHICS", "choose_folds", "compare_all", "evaluate_probe", "feature_matrix"]

Array = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

DEMOGRAPHICS = ("age", "sex", "site")
FEW_SUBJECTS = 10
"""A site or a sex with fewer people is not scored by itself."""


def evaluate_probe(
    target: Target,
    codes: Embeddings,
    others: Mapping[str, Embeddings] | None = None,
    settings: ProbeSettings | None = None,
    *,
    progress: Progress = lambda done, total: None,
) -> ProbeReport:
    """Fit and ask probes on the codes and on everything that they are to be compared with.

    Demographics (age, sex and site, as far as they are known and not the target) are always among the others, and for numbers
    the median of the fitting subjects.

    Args:
        target: what to predict.
        codes: under test.
        others: further embeddings of the same scans, by name.
        settings: of the protocol.
        progress: told (done, total) fits.

    Raises:
        TaskError: if scans lack embeddings, or a side lacks subjects or classes.
    """
    if target.kind == "survival":
        msg = f"{target.name} is a time to an event; evaluate it with evaluate_conversion"
        raise TaskError(msg)
    settings = settings or ProbeSettings()
    for name in (*settings.by, *settings.confounds):
        check_column(target.records, name)
    target = target.first_scans() if settings.scans == "first" else target
    features = {CODES: codes, **(others or {})}
    known = demographics(target, tuple(name for name in DEMOGRAPHICS if name not in settings.confounds))
    if known is not None:
        features.setdefault("demographics", known)
    confounds = _confounds(target, settings)
    if settings.control == "match":
        target = _matched(target, settings)
        confounds = np.empty((len(target), 0))
    folds = choose_folds(target, settings)
    pooled = settings.model == "attention"
    tokens = {name: each.tokens if pooled and each.components is None else 1 for name, each in features.items()}
    if pooled and tokens[CODES] == 1:
        msg = (
            "attention pools the tokens of a scan, but the embeddings have one vector a scan; give an NPZ file whose values are "
            "(scans, tokens, features), or give --probe linear"
        )
        raise TaskError(msg)
    matrices = {
        name: np.concatenate([feature_matrix(target, each, name, apart=tokens[name] > 1), confounds], axis=1)
        for name, each in features.items()
    }
    widths = {name: each.components for name, each in features.items()}

    total, done = len(matrices) * len(folds), 0
    asked = np.unique(np.concatenate([fold.asked for fold in folds]))
    position = np.full(len(target), -1)
    position[asked] = np.arange(len(asked))
    repeats = 1 + max(fold.repeat for fold in folds)
    subjects = tuple(np.array(target.subjects)[asked])
    shape = (repeats, len(asked), *((len(target.classes),) if target.kind == "multiclass" else ()))
    predicted: dict[str, Predictions] = {}
    penalties: dict[str, list[float]] = {}
    corrected: dict[str, Array] = {}
    probe = None
    attention: list[Array] = []
    for name, matrix in matrices.items():
        values, unbiased = np.full(shape, np.nan), np.full(shape, np.nan)
        penalties[name] = []
        for fold in folds:
            fitted = _fit(target, matrix, fold.fitted, settings, confounds.shape[1], widths[name], tokens[name])
            values[fold.repeat, position[fold.asked]] = said = fitted.predict(matrix[fold.asked])
            if target.name == "age" and target.kind == "regression":
                people = np.array(target.subjects)[fold.fitted].tolist()
                bias = fit_age_bias(fitted, matrix[fold.fitted], target.values[fold.fitted], people)
                if bias is not None:
                    unbiased[fold.repeat, position[fold.asked]] = bias.correct(said)
            penalties[name].append(fitted.penalty)
            if name == CODES and settings.protocol == "split":
                probe = LinearProbe.of(fitted, matrix[fold.fitted], codes.origin)
            if name == CODES and pooled:
                attention.append(fitted.attention(matrix[fold.asked]).mean(axis=0))
            done += 1
            progress(done, total)
        predicted[name] = Predictions(target.kind, target.values[asked], values, subjects)
        corrected[name] = unbiased
    if target.kind == "regression":
        predicted[MEDIAN] = _median(target, folds, position, shape, subjects)
        penalties[MEDIAN] = []

    scored = {
        name: _score(target, asked, each, settings, penalties[name], corrected.get(name))
        for name, each in predicted.items()
    }
    curve = None
    if settings.learning_curve:
        reduced = {name: matrices[name] for name in matrices if name == CODES or name in (others or {})}
        curve = learning_curve(
            target,
            reduced,
            folds,
            widths,
            model=settings.model,
            confounds=confounds.shape[1],
            tokens=tokens,
            seed=settings.seed,
        )
    fitted_on = {subject for fold in folds for subject in np.array(target.subjects)[fold.fitted]}
    return ProbeReport(
        target={"name": target.name, "kind": target.kind, "classes": list(target.classes)},
        settings=settings,
        counts={
            "fitted_subjects": len(fitted_on),
            "fitted_scans": len(np.unique(np.concatenate([fold.fitted for fold in folds]))),
            "asked_subjects": len(set(subjects)),
            "asked_scans": len(asked),
            "left_out_scans": target.left_out,
        },
        scored=scored,
        comparisons=compare_all(predicted, settings),
        permutation_p=_permute(predicted[CODES], settings),
        curve=curve,
        table=_table(target, asked, predicted),
        probe=probe,
        attention=np.mean(attention, axis=0).tolist() if attention else None,
    )


def _confounds(target: Target, settings: ProbeSettings) -> Array:
    """The confounds as numbers, (N, F), F = 0 where none are controlled."""
    if settings.control == "none" or not settings.confounds:
        if settings.control != "none" or settings.confounds:
            msg = (
                "to control for confounds, name them and say how: --confounds age sex --control residualise (or match)"
            )
            raise TaskError(msg)
        return np.empty((len(target), 0))
    if target.name in settings.confounds:
        msg = f"{target.name} is the target; it cannot be a confound of itself"
        raise TaskError(msg)
    for name in settings.confounds:
        missing = [record.key for record in target.records if column_of(name)(record) is None]
        if missing:
            msg = f"confound {name} is not known of {len(missing)} scans (first: {missing[0]}); leave these or the column out"
            raise TaskError(msg)
    return encode_columns(target.records, settings.confounds)


def _matched(target: Target, settings: ProbeSettings) -> Target:
    """The scans of matched people; of a frozen split each side is matched by itself, so that it is balanced in itself."""
    sides = [np.arange(len(target))]
    if settings.protocol == "split":
        (fold,) = frozen_split(target)
        sides = [fold.fitted, fold.asked]
    rows = np.sort(np.concatenate([side[match_classes(target.select(side), settings.confounds)] for side in sides]))
    return replace(target.select(rows), left_out=target.left_out + len(target) - len(rows))


def choose_folds(target: Target, settings: ProbeSettings) -> list[Fold]:
    """The folds of the protocol."""
    if settings.protocol == "split":
        return frozen_split(target)
    return cross_validation(target, folds=settings.folds, repeats=settings.repeats, seed=settings.seed)


def feature_matrix(target: Target, embeddings: Embeddings, name: str, *, apart: bool = False) -> Array:
    """The embeddings of the target's scans, (N, S): tokens averaged, or side by side if they are to be kept apart.

    Errors call the embeddings by their name.
    """
    values = embeddings.of(target.records, what="the embeddings" if name == CODES else f"the {name} embeddings")
    if values.ndim == 2:
        return values
    return values.reshape(len(values), -1) if apart else values.mean(axis=1)


def _fit(
    target: Target,
    matrix: Array,
    rows: npt.NDArray[np.int64],
    settings: ProbeSettings,
    taken_out: int,
    width: int | None,
    tokens: int,
) -> FittedProbe:
    return fit_probe(
        matrix[rows],
        target.values[rows],
        np.array(target.subjects)[rows].tolist(),
        target.kind,
        model=settings.model,
        confounds=taken_out,
        components=width,
        classes=len(target.classes) or None,
        impute=not np.isfinite(matrix).all(),
        tokens=tokens,
    )


def _median(
    target: Target,
    folds: Sequence[Fold],
    position: npt.NDArray[np.int64],
    shape: tuple[int, ...],
    subjects: tuple[str, ...],
) -> Predictions:
    values = np.full(shape, np.nan)
    for fold in folds:
        values[fold.repeat, position[fold.asked]] = np.median(target.values[fold.fitted])
    return Predictions(target.kind, target.values[position >= 0], values, subjects)


def _score(
    target: Target,
    asked: npt.NDArray[np.int64],
    predicted: Predictions,
    settings: ProbeSettings,
    penalties: list[float],
    unbiased: Array | None,
) -> Scored:
    figures = score_predictions(predicted, seed=settings.seed, resamples=settings.resamples)
    groups = {name: _by_group(target, asked, predicted, settings, name) for name in settings.by if name != target.name}
    roc = calibration = age_bias = None
    if target.kind == "binary":
        mean, labels = predicted.values.mean(axis=0), predicted.target
        roc = roc_band(labels.astype(int), mean, predicted.subjects, seed=settings.seed)
        roc["auc"] = [area_under_curve(labels.astype(int), mean)]  # of this curve; figures are means over repeats
        slope, intercept = calibration_slope(labels, mean)
        calibration = {
            **asdict(calibration_curve(labels, mean)),
            "slope": slope,
            "intercept": intercept,
            # No interval: resampling adds noise to every group, which raises it.
            "ece": expected_calibration_error(labels, mean),
        }
    if unbiased is not None and np.isfinite(unbiased).all():
        age_bias = _age_bias(predicted, unbiased)
    return Scored(figures, penalties, {name: each for name, each in groups.items() if each}, roc, calibration, age_bias)


def _age_bias(predicted: Predictions, unbiased: Array) -> dict[str, float]:
    """What the correction does to the brain-age gap, which must not follow age, and to the error, which it costs."""
    age = predicted.target
    plain, mended = predicted.values.mean(axis=0), unbiased.mean(axis=0)
    return {
        "gap_age_correlation": _correlation(plain - age, age),
        "gap_age_correlation_corrected": _correlation(mended - age, age),
        "mae_corrected": float(np.abs(mended - age).mean()),
    }


def _correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


def _by_group(
    target: Target, asked: npt.NDArray[np.int64], predicted: Predictions, settings: ProbeSettings, column: str
) -> dict[str, dict[str, Any]]:
    """The first figure of each value of a column."""
    values = np.array([str(column_of(column)(target.records[row])) for row in asked])
    names = sorted(set(values) - {"None"})
    if len(names) < 2:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        rows = np.flatnonzero(values == name)
        people = tuple(predicted.subjects[row] for row in rows)
        part = Predictions(predicted.kind, predicted.target[rows], predicted.values[:, rows], people)
        found[name] = {"subjects": len(set(people)), "scans": len(rows)}
        if len(set(people)) < FEW_SUBJECTS:
            found[name]["reason"] = f"fewer than {FEW_SUBJECTS} people"
            continue
        primary = PRIMARY[target.kind]
        try:
            figures = score_predictions(part, (primary,), seed=settings.seed, resamples=settings.resamples)
        except TaskError:
            found[name]["reason"] = "too few people of a class"
        else:
            found[name][primary] = asdict(figures[primary])
    return found


def compare_all(predicted: Mapping[str, Predictions], settings: ProbeSettings) -> list[Comparison]:
    """Codes against each of the others, in the first figure, with p values adjusted together."""
    own = predicted[CODES]
    metric = PRIMARY[own.kind]
    names = [name for name in predicted if name != CODES]
    differences = [
        compare_predictions(own, predicted[name], metric, seed=settings.seed, resamples=settings.resamples)
        for name in names
    ]
    tests: list[Difference | None] = [None for _ in names]
    if own.kind == "binary" and settings.protocol == "split":
        # In cross-validation predictions of different folds come from different models, which the test knows nothing of.
        scores = np.stack([own.values[0], *(predicted[name].values[0] for name in names)])
        areas = roc_areas(own.target.astype(int), scores, own.subjects)
        tests = [roc_difference(areas, 0, 1 + index) for index in range(len(names))]
    adjusted = holm([each.p for each in differences])
    return [Comparison(*each) for each in zip(names, differences, adjusted, tests, strict=True)]


def _permute(own: Predictions, settings: ProbeSettings) -> float | None:
    """Labels exchanged between subjects, one scan each, against predictions that stay: of the frozen split only."""
    if not settings.permutations or settings.protocol != "split":
        return None
    first = np.array([rows[0] for rows in rows_by_subject(own.subjects)])
    metric = PRIMARY[own.kind]
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0

    def statistic(labels: Array) -> float:
        people = tuple(own.subjects[row] for row in first)
        return sign * Predictions(own.kind, labels, own.values[:, first], people).metric(metric, np.arange(len(first)))

    if not np.isfinite(statistic(own.target[first])):  # first scans of one class
        return None

    generator = np.random.default_rng(settings.seed)
    return permutation_p(statistic, own.target[first], generator=generator, permutations=settings.permutations)


def _table(target: Target, asked: npt.NDArray[np.int64], predicted: Mapping[str, Predictions]) -> pd.DataFrame:
    """Predictions of every scan that was asked, averaged over repeats."""
    records = [target.records[row] for row in asked]
    columns: dict[str, Any] = {
        "participant_id": [record.participant_id for record in records],
        "session_id": [record.session_id for record in records],
        "target": target.values[asked],
    }
    for name, each in predicted.items():
        mean = each.values.mean(axis=0)
        if mean.ndim == 1:
            columns[name] = mean
        else:
            columns |= {f"{name}_{label}": mean[:, index] for index, label in enumerate(target.classes)}
    return pd.DataFrame(columns)
