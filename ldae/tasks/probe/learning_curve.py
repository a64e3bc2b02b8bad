"""Learning curve of a probe: few-shot to all labelled subjects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.metrics.scores import PRIMARY, Predictions
from ldae.tasks.probe.folds import Fold
from ldae.tasks.probe.models import Features, ProbeModel
from ldae.tasks.probe.targets import Target

__all__ = ["LearningCurve", "learning_curve"]

Array = npt.NDArray[np.float64]
DRAWS = 10
SHOTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class LearningCurve:
    """Primary metric against the number of labelled subjects.

    Attributes:
        subjects: labelled, at each point.
        per_class: labelled of each class; None for numbers.
        mean: by name of the features, over draws of labelled subjects; None where no draw has a value.
        low: 2.5th percentile over draws.
        high: 97.5th percentile over draws.
    """

    subjects: list[int]
    per_class: list[int] | None
    mean: dict[str, list[float | None]]
    low: dict[str, list[float | None]]
    high: dict[str, list[float | None]]


def learning_curve(
    target: Target,
    features: Mapping[str, Features],
    folds: Sequence[Fold],
    *,
    model: ProbeModel = "linear",
    draws: int = DRAWS,
    seed: int = 0,
) -> LearningCurve:
    """Train on 1, 2, 4, ... labelled subjects of each class (of all subjects, for numbers), and test on the same scans.

    The draws, the same for all features, go through the training subjects of the folds of the first repeat in turn.
    """
    subjects = target.subjects
    folds = [fold for fold in folds if fold.repeat == 0]
    pools = [_pools(target, fold.trained) for fold in folds]
    most = min(len(pool) for fold in pools for pool in fold)
    smallest = 1 if target.classes else 4
    shots = [count for count in SHOTS if smallest <= count < most] + [most]
    found: dict[str, list[list[float]]] = {name: [[] for _ in shots] for name in features}
    for point, count in enumerate(shots):
        for draw in range(draws):
            generator = np.random.default_rng([seed, count, draw])
            fold, of_class = folds[draw % len(folds)], pools[draw % len(folds)]
            chosen = np.concatenate([generator.choice(pool, size=count, replace=False) for pool in of_class])
            rows = fold.trained[np.isin(subjects[fold.trained], chosen)]
            for name, each in features.items():
                predicted = Predictions(
                    target.kind,
                    target.values[fold.tested],
                    each.fit(target, rows, model).predict(each.values[fold.tested])[None],
                    tuple(subjects[fold.tested]),
                )
                found[name][point].append(predicted.overall(PRIMARY[target.kind]))

    known = {name: [np.array(each)[np.isfinite(each)] for each in points] for name, points in found.items()}

    def over_draws(statistic: Callable[[Array], Any]) -> dict[str, list[float | None]]:
        return {
            name: [float(statistic(each)) if len(each) else None for each in points] for name, points in known.items()
        }

    return LearningCurve(
        subjects=[count * len(pools[0]) for count in shots],
        per_class=shots if target.classes else None,
        mean=over_draws(np.mean),
        low=over_draws(partial(np.percentile, q=2.5)),
        high=over_draws(partial(np.percentile, q=97.5)),
    )


def _pools(target: Target, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.str_]]:
    """Training subjects of each class, by their first scan; of numbers all in one pool."""
    subjects, first = np.unique(target.subjects[rows], return_index=True)
    if not target.classes:
        return [subjects]
    return [subjects[target.values[rows[first]] == label] for label in range(len(target.classes))]
