"""Training and test rows: the frozen split, or repeated cross-validation, always by subject."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from ldae.errors import TaskError
from ldae.tasks.probe.targets import Target

__all__ = ["Fold", "cross_validation", "frozen_split", "inner_folds"]

Rows = npt.NDArray[np.int64]
TRAINED = ("train", "validation")
INNER_FOLDS = 5


@dataclass(frozen=True)
class Fold:
    """Rows of a target.

    Attributes:
        repeat: 0, 1, ...; within a repeat every row is tested at most once.
        trained: rows that everything is trained on.
        tested: rows of other subjects.
    """

    repeat: int
    trained: Rows
    tested: Rows


def frozen_split(target: Target) -> list[Fold]:
    """Trained on train and validation subjects, tested on test subjects; the split was frozen before any label was looked at.

    Raises:
        TaskError: if a side is empty.
    """
    splits = np.array([record.split or "" for record in target.records])
    trained, tested = np.flatnonzero(np.isin(splits, TRAINED)), np.flatnonzero(splits == "test")
    if not any(splits):
        msg = (
            "the manifest has no split to keep to: cross-validate (--protocol cv), or fill a column split with train, "
            "validation and test ('ldae cohort split' does, where there are images)"
        )
        raise TaskError(msg)
    if not len(trained) or not len(tested):
        msg = (
            f"{len(trained)} scans to train on and {len(tested)} to test on have a value of {target.name}; both are needed: "
            "give the split subjects of both, or cross-validate with four subjects or more (--protocol cv)"
        )
        raise TaskError(msg)
    return [Fold(0, trained, tested)]


def cross_validation(target: Target, *, folds: int = 5, repeats: int = 5, seed: int = 0) -> list[Fold]:
    """Repeated cross-validation grouped by subject, stratified by class where there are classes; each repeat has other folds.

    Raises:
        TaskError: if there are fewer subjects than folds.
    """
    subjects = len(set(target.subjects))
    if subjects < 2 * folds:
        fewer = f"use --folds {subjects // 2} or less, or give more subjects" if subjects > 3 else "give more subjects"
        msg = f"{subjects} subjects are too few for cross-validation with {folds} folds; {fewer}"
        raise TaskError(msg)
    strata = target.values if target.events is None else target.events
    found = []
    for repeat in range(repeats):
        splitter = _splitter(target.kind, folds, shuffle=True, random_state=seed + repeat)
        rows = splitter.split(np.zeros(len(target)), strata, target.subjects)
        found += [Fold(repeat, trained, tested) for trained, tested in rows]
    return found


def _splitter(kind: str, count: int, **options: Any) -> GroupKFold | StratifiedGroupKFold:
    return (GroupKFold if kind == "regression" else StratifiedGroupKFold)(count, **options)


def inner_folds(kind: str, subjects: int) -> GroupKFold | StratifiedGroupKFold:
    """Folds of training subjects, to choose a hyperparameter by."""
    return _splitter(kind, min(INNER_FOLDS, subjects))
