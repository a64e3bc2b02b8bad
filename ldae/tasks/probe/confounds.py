"""Confounds of a target: as features, matched between classes, and removed from predicted ages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_predict

from ldae.data.manifest import Record
from ldae.errors import TaskError
from ldae.metrics.statistics import rows_by_subject
from ldae.tasks.probe.embeddings import Embeddings, embeddings_of
from ldae.tasks.probe.models import FittedProbe
from ldae.tasks.probe.targets import Target, check_column, values_of

__all__ = ["demographics", "encode_columns", "encode_confounds", "match_classes", "without_age_bias"]

Array = npt.NDArray[np.float64]

CALIPER_SD = 0.2
"""Numbers of matched subjects differ by no more than this share of their standard deviation (Austin 2011)."""


def encode_columns(records: Sequence[Record], columns: Sequence[str]) -> Array:
    """Columns as numbers, (N, F): numeric ones as they are, text as indicators of all values but the first; missing is NaN.

    Raises:
        TaskError: if a column has no value at all, or none that differs.
    """
    parts = []
    for name in columns:
        check_column(records, name)
        values = values_of(records, name)
        different = _different(values)
        if different < 2:
            msg = f"column {name} holds {different} different values for these scans; leave it out"
            raise TaskError(msg)
        if _numeric(values):
            parts.append(np.array(values, dtype=np.float64)[:, None])
        else:
            text = pd.Series(values, dtype=object).map(str, na_action="ignore")
            coded = pd.get_dummies(text).to_numpy(dtype=np.float64, copy=True)[:, 1:]
            coded[text.isna()] = np.nan
            parts.append(coded)
    return np.concatenate(parts, axis=1)


def _different(values: Sequence[Any]) -> int:
    return len({str(value) for value in values if value is not None})


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values if value is not None)


def demographics(target: Target, columns: Sequence[str]) -> Embeddings | None:
    """Those of the columns that vary and are not the target's own, as a baseline without a scan; None if there are none."""
    useful = [name for name in columns if name != target.name and _different(values_of(target.records, name)) > 1]
    return embeddings_of(target.records, encode_columns(target.records, useful)) if useful else None


def match_classes(target: Target, columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """Rows of a binary target in which each positive subject has a negative one like it.

    Text columns agree, numbers differ by a fifth of their standard deviation at most, and the total distance of these pairs
    is the smallest (optimal matching, Rosenbaum 1989). Other subjects are left out. Subjects are compared at their first scan.

    Raises:
        TaskError: if the target is not binary, or fewer than two pairs match.
    """
    if target.kind != "binary":
        msg = f"{target.name} is {target.kind}; only two classes can be matched: residualise instead"
        raise TaskError(msg)
    first = target.select(np.array([rows[0] for rows in rows_by_subject(target.subjects.tolist())]))
    distance = np.zeros((len(first), len(first)))
    for name in columns:
        values = values_of(first.records, name)
        if _numeric(values):
            numbers = np.array(values, dtype=np.float64)
            apart = np.abs(numbers[:, None] - numbers[None]) / max(float(np.nanstd(numbers)), 1e-12)
            distance += np.where(apart <= CALIPER_SD, apart, np.inf)
        else:
            text = np.array([str(value) for value in values])
            distance += np.where(text[:, None] == text[None], 0.0, np.inf)
    positive = first.values == 1
    between = distance[np.ix_(positive, ~positive)]
    # A forbidden pair costs more than all allowed ones together, so that as many as possible are made.
    forbidden = (np.nanmax(between[np.isfinite(between)], initial=0.0) + 1) * (between.size + 1)
    cost = np.where(np.isfinite(between), between, forbidden)
    ill, well = linear_sum_assignment(cost)
    made = np.isfinite(between[ill, well])
    if made.sum() < 2:
        msg = f"{made.sum()} pairs of {target.name} agree in {', '.join(columns)}; match on fewer columns"
        raise TaskError(msg)
    kept = [*first.subjects[positive][ill[made]], *first.subjects[~positive][well[made]]]
    return np.flatnonzero(np.isin(target.subjects, kept))


def without_age_bias(predicted: Array, fitted: FittedProbe, features: Array, target: Target) -> Array:
    """Predicted ages without their shrinkage toward the mean (Smith et al. 2019), (M,); NaN if they do not rise with age.

    The line of predicted on true ages, over folds of training subjects, is undone, which needs no true age of what is tested.

    Args:
        predicted: ages in years, (M,).
        fitted: the probe, whose hyperparameter is kept.
        features: of the N training scans, (N, S).
        target: their true ages.
    """
    subjects = len(set(target.subjects))
    if subjects < 2:
        return np.full_like(predicted, np.nan)
    folds = GroupKFold(min(5, subjects))
    # Steps that need no labels stay; scale and model are trained in each fold.
    before, model = fitted.pipeline[:-2], fitted.pipeline[-2:]
    prepared = before.transform(features) if len(before) else features
    held_out = cross_val_predict(clone(model), prepared, target.values, groups=target.subjects, cv=folds)
    slope, intercept = np.polyfit(target.values, held_out, 1)
    return (predicted - intercept) / slope if slope > 0 else np.full_like(predicted, np.nan)


def encode_confounds(target: Target, columns: Sequence[str]) -> Array:
    """Confounds as numbers, (N, F), F = 0 where none are controlled.

    Raises:
        TaskError: if one is the target, or is missing for a scan.
    """
    if not columns:
        return np.empty((len(target), 0))
    if target.name in columns:
        msg = f"{target.name} is the target; it cannot be a confound of itself"
        raise TaskError(msg)
    for name in columns:
        values = values_of(target.records, name)
        missing = [record.key for record, value in zip(target.records, values, strict=True) if value is None]
        if missing:
            msg = f"confound {name} is missing for {len(missing)} scans (first: {missing[0]}); leave these or the column out"
            raise TaskError(msg)
    return encode_columns(target.records, columns)
