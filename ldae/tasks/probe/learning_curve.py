"""How many labelled people a probe needs: few-shot to all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.metrics.scores import PRIMARY, Predictions
from ldae.tasks.probe.folds import Fold
from ldae.tasks.probe.models import ProbeModel, fit_probe
from ldae.tasks.probe.targets import Target

__all__ = ["LearningCurve", "learning_curve"]

Array = npt.NDArray[np.float64]
DRAWS = 10
SHOTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class LearningCurve:
    """The first figure against the number of labelled people.

    Attributes:
        subjects: labelled, at each point.
        per_class: labelled of each class; None for numbers.
        mean: by name of the features, over draws of who is labelled; None where no draw has an answer.
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
    features: Mapping[str, Array],
    folds: Sequence[Fold],
    components: Mapping[str, int | None],
    *,
    model: ProbeModel = "linear",
    confounds: int = 0,
    tokens: Mapping[str, int] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> LearningCurve:
    """Fit on 1, 2, 4, ... labelled people of each class (of all people, for numbers), and ask the same scans as ever.

    Args:
        target: what to predict.
        features: (N, S) each, by name.
        folds: whose fitting subjects are drawn from; the draws go through those of the first repeat in turn.
        components: principal components of each, or None.
        model: the probe.
        confounds: last columns of the features, which are regressed out of the others.
        tokens: of each of the features; 1 where it is not named.
        draws: of who is labelled, the same for all features.
        seed: of the draws.
    """
    classes = np.arange(len(target.classes)) if target.classes else np.array([-1])
    subjects = np.array(target.subjects)
    folds = [fold for fold in folds if fold.repeat == 0]
    pools = [[_people(target, subjects, fold.fitted, int(each)) for each in classes] for fold in folds]
    most = min(len(pool) for fold in pools for pool in fold)
    smallest = 1 if target.classes else 4
    shots = [count for count in SHOTS if smallest <= count < most] + [most]
    found: dict[str, list[list[float]]] = {name: [] for name in features}
    for count in shots:
        values: dict[str, list[float]] = {name: [] for name in features}
        for draw in range(draws):
            generator = np.random.default_rng([seed, count, draw])
            fold, of_class = folds[draw % len(folds)], pools[draw % len(folds)]
            chosen = np.concatenate([generator.choice(pool, size=count, replace=False) for pool in of_class])
            rows = fold.fitted[np.isin(subjects[fold.fitted], chosen)]
            for name, matrix in features.items():
                fitted = fit_probe(
                    matrix[rows],
                    target.values[rows],
                    subjects[rows].tolist(),
                    target.kind,
                    model=model,
                    confounds=confounds,
                    components=components[name],
                    impute=not np.isfinite(matrix).all(),
                    tokens=(tokens or {}).get(name, 1),
                    fine=False,
                )
                said = Predictions(
                    target.kind,
                    target.values[fold.asked],
                    fitted.predict(matrix[fold.asked])[None],
                    tuple(subjects[fold.asked]),
                )
                values[name].append(said.metric(PRIMARY[target.kind], np.arange(len(fold.asked))))
        for name in features:
            found[name].append(values[name])

    def over_draws(figure: Callable[[Array], Any]) -> dict[str, list[float | None]]:
        return {name: [_of_answers(figure, each) for each in points] for name, points in found.items()}

    return LearningCurve(
        subjects=[count * len(classes) for count in shots],
        per_class=shots if target.classes else None,
        mean=over_draws(np.mean),
        low=over_draws(partial(np.percentile, q=2.5)),
        high=over_draws(partial(np.percentile, q=97.5)),
    )


def _of_answers(figure: Callable[[Array], Any], values: Sequence[float]) -> float | None:
    known = np.array([value for value in values if np.isfinite(value)])
    return float(figure(known)) if len(known) else None


def _people(
    target: Target, subjects: npt.NDArray[np.str_], rows: npt.NDArray[np.int64], label: int
) -> npt.NDArray[np.str_]:
    """Fitting subjects of a class, by their first scan; all of them for a number."""
    first = {str(subjects[row]): row for row in rows[::-1]}
    return np.array([name for name, row in sorted(first.items()) if label < 0 or target.values[row] == label])
