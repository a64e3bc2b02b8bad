"""The probe's protocol: one target, several embeddings of the same scans, the same folds and resamples for all of them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldae.errors import TaskError
from ldae.metrics.calibration import calibration_curve, calibration_slope, expected_calibration_error
from ldae.metrics.roc import roc_areas, roc_band, roc_difference
from ldae.metrics.scores import HIGHER_IS_BETTER, PRIMARY, Predictions, compare_predictions, score_predictions
from ldae.metrics.statistics import FEWEST, Difference, holm, permutation_p, rows_by_subject
from ldae.tasks.probe.confounds import demographics, encode_confounds, match_classes, without_age_bias
from ldae.tasks.probe.embeddings import Embeddings, keys_of
from ldae.tasks.probe.folds import cross_validation, frozen_split
from ldae.tasks.probe.learning_curve import learning_curve
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.models import Features
from ldae.tasks.probe.result import CODES, MEDIAN, Comparison, ProbeReport, ProbeSettings, Scored
from ldae.tasks.probe.targets import Target, check_column, values_of

__all__ = ["evaluate_probe"]

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]

DEMOGRAPHICS = ("age", "sex", "site")
FEW_SUBJECTS = 10
"""A site or a sex with fewer subjects is not scored by itself."""


def evaluate_probe(
    target: Target,
    codes: Embeddings,
    others: Mapping[str, Embeddings] | None = None,
    settings: ProbeSettings | None = None,
    *,
    progress: Progress = lambda done, total: None,
) -> ProbeReport:
    """Train and test probes on the codes and on everything that they are to be compared with.

    Demographics (age, sex and site, as far as they are known and not the target) are always among the others, and for numbers
    the median of the training subjects.

    Args:
        target: what to predict.
        codes: under test.
        others: further embeddings of the same scans, by name.
        settings: of the protocol.
        progress: called with (done, total) fits.

    Raises:
        TaskError: if scans lack embeddings, a side lacks subjects or classes, or the settings do not suit the target.

    >>> from ldae.data.manifest import build_manifest
    >>> from ldae.tasks.probe.embeddings import embeddings_of
    >>> from ldae.tasks.probe.targets import choose_target
    >>> rows = {"participant_id": map(str, range(40)), "session_id": "1", "image": "a.nii", "diagnosis": ["CN", "AD"] * 20}
    >>> cohort = build_manifest(pd.DataFrame(rows), "cohort.tsv")
    >>> codes = embeddings_of(cohort.records, np.tile([[0.0, 1.0], [3.0, 1.0]], (20, 1)))
    >>> settings = ProbeSettings(protocol="cv", repeats=1, resamples=20, permutations=0)
    >>> evaluate_probe(choose_target(cohort, "diagnosis"), codes, settings=settings).scored["codes"].metrics["auc"].value
    1.0
    """
    settings = settings or ProbeSettings()
    _check_settings(target, settings)
    target = target.first_scans() if settings.scans == "first" else target
    embeddings = {CODES: codes, **(others or {})}
    known = demographics(target, tuple(name for name in DEMOGRAPHICS if name not in settings.confounds))
    if known is not None:
        embeddings.setdefault("demographics", known)
    confounds = encode_confounds(target, settings.confounds)
    if settings.control == "match":
        target = _matched(target, settings)
        confounds = np.empty((len(target), 0))
    if settings.protocol == "split":
        folds = frozen_split(target)
    else:
        folds = cross_validation(target, folds=settings.folds, repeats=settings.repeats, seed=settings.seed)
    pooled = settings.model == "attention"
    features = {name: _features(target, each, name, confounds, pooled=pooled) for name, each in embeddings.items()}
    if pooled and features[CODES].tokens == 1:
        msg = (
            "attention pools the tokens of a scan, but the embeddings have one vector a scan; give an NPZ file whose values are "
            "(scans, tokens, features), or give --probe linear"
        )
        raise TaskError(msg)
    tested = np.unique(np.concatenate([fold.tested for fold in folds]))
    places = [(fold.repeat, np.searchsorted(tested, fold.tested)) for fold in folds]
    shape = (1 + max(fold.repeat for fold in folds), len(tested))
    of_classes = (len(target.classes),) if target.kind == "multiclass" else ()
    subjects = tuple(target.subjects[tested].tolist())
    names = [*features, MEDIAN] if target.kind == "regression" else [*features]
    values = {name: np.full(shape + of_classes, np.nan) for name in names}
    corrected = {name: np.full(shape, np.nan) for name in features}
    penalties: dict[str, list[float]] = {name: [] for name in names}
    attention: list[Array] = []
    probe = None
    done = 0
    for name, each in features.items():
        for fold, at in zip(folds, places, strict=True):
            trained, held_out = each.values[fold.trained], each.values[fold.tested]
            fitted = each.fit(target, fold.trained, settings.model)
            values[name][at] = fitted.predict(held_out)
            if target.name == "age" and target.kind == "regression":
                corrected[name][at] = without_age_bias(values[name][at], fitted, trained, target.select(fold.trained))
            penalties[name].append(fitted.penalty)
            if name == CODES and settings.protocol == "split":
                probe = LinearProbe.of(fitted, trained, codes.origin)
            if name == CODES and pooled:
                attention.append(fitted.attention(held_out).mean(axis=0))
            done += 1
            progress(done, len(features) * len(folds))
    tested_in = np.zeros(shape, dtype=np.int64)
    for number, (fold, at) in enumerate(zip(folds, places, strict=True)):
        tested_in[at] = number
        if MEDIAN in values:
            values[MEDIAN][at] = np.median(target.values[fold.trained])
    several = tested_in if settings.protocol == "cv" else None
    predicted = {
        name: Predictions(target.kind, target.outcome[tested], each, subjects, several) for name, each in values.items()
    }
    curve = None
    if settings.learning_curve:
        curved = {name: features[name] for name in features if name == CODES or name in (others or {})}
        curve = learning_curve(target, curved, folds, model=settings.model, seed=settings.seed)
    learnt = np.unique(np.concatenate([fold.trained for fold in folds]))
    counts = {
        "trained_subjects": len(set(target.subjects[learnt])),
        "trained_scans": len(learnt),
        "tested_subjects": len(set(subjects)),
        "tested_scans": len(tested),
        "left_out_scans": target.left_out,
    }
    if target.events is not None:
        counts["events"] = int(target.events[tested].sum())
    return ProbeReport(
        target={"name": target.name, "kind": target.kind, "classes": list(target.classes)},
        settings=settings,
        counts=counts,
        scored={
            name: _score(target, tested, each, settings, penalties[name], corrected.get(name))
            for name, each in predicted.items()
        },
        comparisons=_compare(predicted, settings),
        permutation_p=_permute(predicted[CODES], settings),
        curve=curve,
        table=_table(target, tested, predicted),
        probe=probe,
        attention=np.mean(attention, axis=0).tolist() if attention else None,
    )


def _check_settings(target: Target, settings: ProbeSettings) -> None:
    if (settings.control == "none") != (not settings.confounds):
        msg = "to control for confounds, name them and say how: --confounds age sex --control residualise (or match)"
        raise TaskError(msg)
    if target.kind == "survival":
        if settings.confounds:
            msg = "confounds of a time to an event are not controlled here; compare with the demographics row instead"
            raise TaskError(msg)
        if settings.model != "linear" or settings.learning_curve:
            msg = "a time to an event has a Cox regression only, and no learning curve; leave --probe and --learning-curve out"
            raise TaskError(msg)
    for name in (*settings.by, *settings.confounds):
        check_column(target.records, name)


def _matched(target: Target, settings: ProbeSettings) -> Target:
    """The scans of matched subjects; of a frozen split each side is matched by itself, so that it is balanced in itself."""
    sides = [np.arange(len(target))]
    if settings.protocol == "split":
        (fold,) = frozen_split(target)
        sides = [fold.trained, fold.tested]
    rows = np.sort(np.concatenate([side[match_classes(target.select(side), settings.confounds)] for side in sides]))
    return replace(target.select(rows), left_out=target.left_out + len(target) - len(rows))


def _features(target: Target, embeddings: Embeddings, name: str, confounds: Array, *, pooled: bool) -> Features:
    """Embeddings of the target's scans with the confounds: tokens side by side if they are pooled, else averaged."""
    values = embeddings.of(target.records, what="the embeddings" if name == CODES else f"the {name} embeddings")
    tokens = embeddings.tokens if pooled and embeddings.components is None else 1
    if values.ndim == 3:
        values = values.mean(axis=1) if tokens == 1 else values.reshape(len(values), -1)
    impute = not np.isfinite(values).all()
    both = np.concatenate([values, confounds], axis=1)
    return Features(both, confounds.shape[1], embeddings.components, tokens, impute)


def _score(
    target: Target,
    tested: Rows,
    predicted: Predictions,
    settings: ProbeSettings,
    penalties: list[float],
    corrected: Array | None,
) -> Scored:
    metrics = score_predictions(predicted, seed=settings.seed, resamples=settings.resamples)
    groups = (
        {}
        if target.kind == "survival"
        else {name: _by_group(target, tested, predicted, settings, name) for name in settings.by if name != target.name}
    )
    roc = calibration = age_bias = None
    if target.kind == "binary":
        mean, labels = predicted.values.mean(axis=0), predicted.target
        roc = roc_band(labels.astype(int), mean, predicted.subjects, seed=settings.seed)
        # Of this curve; metrics are means over repeats.
        roc["auc"] = roc_areas(labels.astype(int), mean, predicted.subjects).values.tolist()
        slope, intercept = calibration_slope(labels, mean)
        calibration = {
            **calibration_curve(labels, mean),
            "slope": slope,
            "intercept": intercept,
            # No interval: resampling adds noise to every group, which raises it.
            "ece": expected_calibration_error(labels, mean),
        }
    if corrected is not None and np.isfinite(corrected).all():
        age_bias = _age_bias(predicted, corrected)
    return Scored(metrics, penalties, {name: each for name, each in groups.items() if each}, roc, calibration, age_bias)


def _age_bias(predicted: Predictions, corrected: Array) -> dict[str, float]:
    """Effect of the correction on the brain-age gap, which must not follow age, and on the error, which it costs."""
    age = predicted.target
    plain, mended = predicted.values.mean(axis=0), corrected.mean(axis=0)
    return {
        "gap_age_correlation": _correlation(plain - age, age),
        "gap_age_correlation_corrected": _correlation(mended - age, age),
        "mae_corrected": float(np.abs(mended - age).mean()),
    }


def _correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


def _by_group(
    target: Target, tested: Rows, predicted: Predictions, settings: ProbeSettings, column: str
) -> dict[str, dict[str, Any]]:
    """The primary metric of each value of a column."""
    values = np.array(list(map(str, values_of(target.select(tested).records, column))))
    names = sorted(set(values) - {"None"})
    if len(names) < 2:
        return {}
    primary = PRIMARY[target.kind]
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        rows = np.flatnonzero(values == name)
        subjects = tuple(predicted.subjects[row] for row in rows)
        folds = None if predicted.folds is None else predicted.folds[:, rows]
        part = Predictions(predicted.kind, predicted.target[rows], predicted.values[:, rows], subjects, folds)
        found[name] = {"subjects": len(set(subjects)), "scans": len(rows)}
        if len(set(subjects)) < FEW_SUBJECTS:
            found[name]["reason"] = f"fewer than {FEW_SUBJECTS} subjects"
            continue
        try:
            metrics = score_predictions(part, (primary,), seed=settings.seed, resamples=settings.resamples)
            found[name][primary] = asdict(metrics[primary])
        except TaskError:
            found[name]["reason"] = "too few subjects of a class"
    return found


def _compare(predicted: Mapping[str, Predictions], settings: ProbeSettings) -> list[Comparison]:
    """Codes against each of the others, in the primary metric, with p values adjusted together."""
    own = predicted[CODES]
    names = [name for name in predicted if name != CODES]
    differences = [
        compare_predictions(own, predicted[name], PRIMARY[own.kind], seed=settings.seed, resamples=settings.resamples)
        for name in names
    ]
    tests: list[Difference | None] = [None for _ in names]
    if own.kind == "binary" and settings.protocol == "split" and len(set(own.subjects)) >= FEWEST:
        # In cross-validation predictions of different folds come from different models, which the test does not model.
        scores = np.stack([own.values[0], *(predicted[name].values[0] for name in names)])
        areas = roc_areas(own.target.astype(int), scores, own.subjects)
        tests = [roc_difference(areas, 0, 1 + index) for index in range(len(names))]
    adjusted = holm([each.p for each in differences])
    return [Comparison(*each) for each in zip(names, differences, adjusted, tests, strict=True)]


def _permute(own: Predictions, settings: ProbeSettings) -> float | None:
    """Labels exchanged between subjects, one scan each, against predictions that stay: of the frozen split only."""
    if not settings.permutations or settings.protocol != "split" or own.kind == "survival":
        return None
    first = np.array([rows[0] for rows in rows_by_subject(own.subjects)])
    subjects = tuple(own.subjects[row] for row in first)
    metric = PRIMARY[own.kind]
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0

    def statistic(labels: Array) -> float:
        return sign * Predictions(own.kind, labels, own.values[:, first], subjects).overall(metric)

    if not np.isfinite(statistic(own.target[first])):  # first scans of one class
        return None
    return permutation_p(statistic, own.target[first], seed=settings.seed, permutations=settings.permutations)


def _table(target: Target, tested: Rows, predicted: Mapping[str, Predictions]) -> pd.DataFrame:
    """Predictions of every tested scan, averaged over repeats."""
    seen = target.select(tested)
    table = keys_of(seen.records)
    if seen.events is None:
        table["target"] = seen.values
    else:
        table["months"], table["event"] = seen.values, seen.events
    for name, each in predicted.items():
        mean = each.values.mean(axis=0)
        columns = [name] if mean.ndim == 1 else [f"{name}_{label}" for label in target.classes]
        table[columns] = mean.reshape(len(seen), -1)
    return table
