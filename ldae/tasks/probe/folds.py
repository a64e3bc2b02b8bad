"""Who is fitted on and who is asked: the frozen split, or repeated cross-validation, always by subject."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from ldae.errors import TaskError
from ldae.tasks.probe.targets import Target

__all__ = ["Fold", "cross_validation", "frozen_split", "inner_folds"]

Rows = npt.NDArray[np.int64]
FITTED = ("train", "validation")


@dataclass(frozen=True)
class Fold:
    """Rows of a target.

    Attributes:
        repeat: 0, 1, ...; within a repeat every row is asked at most once.
        fitted: rows that everything is fitted on.
        asked: rows of other subjects.
    """

    repeat: int
    fitted: Rows
    asked: Rows


def frozen_split(target: Target) -> list[Fold]:
    """Fitted on train and validation subjects, asked on test subjects; the split was frozen before any label was looked at.

    Raises:
        TaskError: if a side is empty.
    """
    splits = np.array([record.split or "" for record in target.records])
    fitted, asked = np.flatnonzero(np.isin(splits, FITTED)), np.flatnonzero(splits == "test")
    if not len(fitted) or not len(asked):
        if not any(splits):
            msg = (
                "the manifest has no split to keep to: cross-validate (--protocol cv), or say in a column split who is to train, "
                "validation and test ('ldae cohort split' does, where there are images)"
            )
            raise TaskError(msg)
        msg = (
            f"{len(fitted)} scans to fit on and {len(asked)} to test on have a value of {target.name}; both are needed: "
            "cross-validate (--protocol cv), or give the split people of both"
        )
        raise TaskError(msg)
    return [Fold(0, fitted, asked)]


def cross_validation(target: Target, *, folds: int = 5, repeats: int = 5, seed: int = 0) -> list[Fold]:
    """Repeated cross-validation grouped by subject, stratified by class where there are classes.

    Args:
        target: whose rows.
        folds: a repeat.
        repeats: with other folds.
        seed: of the folds.

    Raises:
        TaskError: if there are fewer subjects than folds.
    """
    people = len(set(target.subjects))
    if people < 2 * folds:
        msg = f"{people} subjects are too few for {folds} folds; use at most {max(2, people // 2)}, or more subjects"
        raise TaskError(msg)
    strata = target.events if target.kind == "survival" else target.values
    found = []
    for repeat in range(repeats):
        splitter: GroupKFold | StratifiedGroupKFold
        if target.kind == "regression":
            splitter = GroupKFold(folds, shuffle=True, random_state=seed + repeat)
        else:
            splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + repeat)
        rows = splitter.split(np.zeros(len(target)), strata, target.subjects)
        found += [Fold(repeat, fitted, asked) for fitted, asked in rows]
    return found


def inner_folds(kind: str, subjects: int) -> GroupKFold | StratifiedGroupKFold:
    """Folds of fitting subjects, to choose a penalty by."""
    count = min(5, subjects)
    return GroupKFold(count) if kind == "regression" else StratifiedGroupKFold(count)
