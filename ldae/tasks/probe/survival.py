"""Time to conversion: a Cox regression on baseline codes, asked of people it was not fitted on."""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from ldae.errors import TaskError
from ldae.metrics.scores import Predictions, score_predictions
from ldae.tasks.probe.confounds import demographics
from ldae.tasks.probe.embeddings import Embeddings
from ldae.tasks.probe.evaluate import DEMOGRAPHICS, choose_folds, compare_all, feature_matrix
from ldae.tasks.probe.result import CODES, ProbeReport, ProbeSettings, Scored
from ldae.tasks.probe.targets import Target

__all__ = ["evaluate_conversion"]

Array = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

COMPONENTS = 10
"""Features are reduced to so many principal components, or to a fifth of the people: events are few."""
PENALTIES = (0.01, 0.1, 1.0)


def evaluate_conversion(
    target: Target,
    codes: Embeddings,
    others: Mapping[str, Embeddings] | None = None,
    settings: ProbeSettings | None = None,
    *,
    progress: Progress = lambda done, total: None,
) -> ProbeReport:
    """Cox regressions with a ridge penalty on principal components, all fitted on fitting people (lifelines; Cox 1972).

    Args:
        target: from :func:`~ldae.tasks.probe.targets.find_conversions`.
        codes: under test, of the baseline scans.
        others: further embeddings of the same scans, by name.
        settings: protocol, folds, repeats, resamples and seed are used.
        progress: told (done, total) fits.

    Raises:
        TaskError: if scans lack embeddings, people are too few, or confounds are to be controlled, which is not offered here.
    """
    settings = settings or ProbeSettings()
    if settings.control != "none" or settings.confounds:
        msg = "confounds of a time to an event are not controlled here; compare with the demographics row instead"
        raise TaskError(msg)
    if settings.model != "linear" or settings.learning_curve:
        msg = "a time to an event has a Cox regression only, and no learning curve; leave --probe and --learning-curve out"
        raise TaskError(msg)
    features = {CODES: codes, **(others or {})}
    known = demographics(target, DEMOGRAPHICS)
    if known is not None:
        features.setdefault("demographics", known)
    folds = choose_folds(target, settings)
    asked = np.unique(np.concatenate([fold.asked for fold in folds]))
    position = np.full(len(target), -1)
    position[asked] = np.arange(len(asked))
    events = np.zeros(len(target)) if target.events is None else target.events
    outcome = np.stack([target.values, events], axis=1)
    people = tuple(np.array(target.subjects)[asked])
    repeats = 1 + max(fold.repeat for fold in folds)
    predicted: dict[str, Predictions] = {}
    penalties: dict[str, list[float]] = {}
    done, total = 0, len(features) * len(folds)
    for name, each in features.items():
        matrix = feature_matrix(target, each, name)
        values = np.full((repeats, len(asked)), np.nan)
        penalties[name] = []
        for fold in folds:
            risk, penalty = _fit_and_ask(matrix, outcome, fold.fitted, fold.asked)
            values[fold.repeat, position[fold.asked]] = risk
            penalties[name].append(penalty)
            done += 1
            progress(done, total)
        predicted[name] = Predictions("survival", outcome[asked], values, people)
    scored = {
        name: Scored(score_predictions(each, seed=settings.seed, resamples=settings.resamples), penalties[name])
        for name, each in predicted.items()
    }
    return ProbeReport(
        target={"name": target.name, "kind": target.kind, "classes": list(target.classes)},
        settings=settings,
        counts={
            "fitted_subjects": len(np.unique(np.concatenate([fold.fitted for fold in folds]))),
            "asked_subjects": len(set(people)),
            "asked_scans": len(asked),
            "events": int(events[asked].sum()),
            "left_out_scans": target.left_out,
        },
        scored=scored,
        comparisons=compare_all(predicted, settings),
        permutation_p=None,
        curve=None,
        table=_table(target, asked, outcome, predicted),
        probe=None,
    )


def _fit_and_ask(
    matrix: Array, outcome: Array, fitted: npt.NDArray[np.int64], asked: npt.NDArray[np.int64]
) -> tuple[Array, float]:
    """Log hazards of people, by the penalty that ranks folds of the fitting people best."""
    events = outcome[fitted, 1]
    smallest = int(min(events.sum(), len(events) - events.sum()))
    if smallest < 2:
        msg = (
            f"{len(fitted)} people to fit on hold {int(events.sum())} conversions; two who convert and two who do not are "
            "needed"
        )
        raise TaskError(msg)
    best = PENALTIES[len(PENALTIES) // 2]
    if smallest >= 3:
        folds = StratifiedGroupKFold(min(5, smallest))
        parts = list(folds.split(fitted, events.astype(int), fitted))
        ranked = []
        for penalty in PENALTIES:
            risks = np.full(len(fitted), np.nan)
            for inside, outside in parts:
                risks[outside] = _risks(matrix, outcome, fitted[inside], fitted[outside], penalty)
            ranked.append(
                Predictions("survival", outcome[fitted], risks[None], ()).metric("concordance", np.arange(len(fitted)))
            )
        best = PENALTIES[int(np.nanargmax(ranked))]
    return _risks(matrix, outcome, fitted, asked, best), best


def _risks(
    matrix: Array, outcome: Array, fitted: npt.NDArray[np.int64], asked: npt.NDArray[np.int64], penalty: float
) -> Array:
    """Log hazards, (len(asked),), relative to the mean of the fitting people."""
    from lifelines import CoxPHFitter

    width = max(1, min(COMPONENTS, matrix.shape[1], len(fitted) // 5))
    reduce = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("standardise", StandardScaler()),
            ("reduce", PCA(width, svd_solver="full", whiten=True)),
        ]
    )
    frame = pd.DataFrame(reduce.fit_transform(matrix[fitted])).rename(columns=str)
    covariates = list(frame.columns)
    frame["months"], frame["event"] = outcome[fitted, 0], outcome[fitted, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = CoxPHFitter(penalizer=penalty).fit(frame, "months", "event")
        asked_frame = pd.DataFrame(reduce.transform(matrix[asked])).rename(columns=str)[covariates]
        return np.asarray(model.predict_log_partial_hazard(asked_frame), dtype=np.float64)


def _table(
    target: Target, asked: npt.NDArray[np.int64], outcome: Array, predicted: Mapping[str, Predictions]
) -> pd.DataFrame:
    records = [target.records[row] for row in asked]
    return pd.DataFrame(
        {
            "participant_id": [record.participant_id for record in records],
            "session_id": [record.session_id for record in records],
            "months": outcome[asked, 0],
            "event": outcome[asked, 1],
            **{name: each.values.mean(axis=0) for name, each in predicted.items()},
        }
    )
