"""Settings and result of a probe's evaluation."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ldae.base.files import write_json, write_text
from ldae.errors import TaskError
from ldae.metrics.scores import HIGHER_IS_BETTER, PRIMARY
from ldae.metrics.statistics import Difference, Interval
from ldae.tasks.probe.learning_curve import LearningCurve
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.models import ProbeModel

__all__ = ["CODES", "MEDIAN", "Comparison", "ProbeReport", "ProbeSettings", "Scored"]

CODES = "codes"
"""Name of the embeddings under test."""
MEDIAN = "median"
"""Name of the guess that needs no scan."""


@dataclass(frozen=True)
class ProbeSettings:
    """Protocol of a probe's evaluation.

    Attributes:
        protocol: the manifest's frozen split, or cross-validation grouped by subject.
        folds: number of folds of the cross-validation.
        repeats: of the cross-validation, each with other folds.
        scans: all, with intervals over subjects, or the first of each subject.
        model: logistic or ridge regression, nearest neighbours, or attention over the tokens of each scan.
        confounds: columns to control for.
        control: regress confounds out of the features, or match subjects of both classes on them.
        by: columns whose values are scored one by one.
        learning_curve: measure how many labelled subjects are needed.
        resamples: number of bootstrap resamples.
        permutations: number of permutations of the labels; 0 leaves the test out.
        seed: of folds, resamples and permutations.
    """

    protocol: Literal["split", "cv"] = "split"
    folds: int = 5
    repeats: int = 5
    scans: Literal["all", "first"] = "all"
    model: ProbeModel = "linear"
    confounds: tuple[str, ...] = ()
    control: Literal["none", "residualise", "match"] = "none"
    by: tuple[str, ...] = ("sex", "site")
    learning_curve: bool = False
    resamples: int = 1000
    permutations: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("repeats", 1), ("resamples", 20), ("permutations", 0)):
            if getattr(self, name) < least:
                msg = f"{name} must be {least} or more, got {getattr(self, name)}; give more"
                raise TaskError(msg)


@dataclass(frozen=True)
class Scored:
    """Metrics of one kind of features.

    Attributes:
        metrics: by name, with intervals over subjects.
        penalties: hyperparameters that were chosen, one a fold.
        by_group: of each column and value: number of subjects and scans, and the primary metric, or the reason for none.
        roc: the curve and its band; binary only.
        calibration: the curve, slope, intercept and expected calibration error; binary only.
        age_bias: shrinkage of predicted ages; ages only.
    """

    metrics: dict[str, Interval]
    penalties: list[float] = field(default_factory=list)
    by_group: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    roc: dict[str, list[float]] | None = None
    calibration: dict[str, Any] | None = None
    age_bias: dict[str, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """The embeddings under test against others, in the primary metric.

    Attributes:
        against: name of the others.
        difference: codes minus the others, by the paired bootstrap over subjects.
        p_holm: of that difference, adjusted for all others (Holm 1979).
        delong: the difference and p of DeLong et al. 1988 for clustered scans; binary targets of the frozen split only.
    """

    against: str
    difference: Difference
    p_holm: float
    delong: Difference | None = None


@dataclass(frozen=True)
class ProbeReport:
    """A probe beside its baselines.

    Attributes:
        target: its name, kind and classes.
        settings: of the protocol.
        counts: subjects and scans trained on (`trained_`), tested on (`tested_`) and left out; conversions.
        scored: by name of the features, `codes` first.
        comparisons: of `codes` with each of the others.
        permutation_p: that exchanged labels do as well as the true ones; None without that test.
        curve: learning curve, if the settings ask for it.
        table: participant_id, session_id, target (months and event, of a time to conversion) and predictions of the tested
            scans, averaged over repeats.
        probe: the linear probe on codes, trained on the frozen split's training subjects; None for other models.
        attention: mean weight of each token of the codes in the tested scans; None for other models.
    """

    target: dict[str, Any]
    settings: ProbeSettings
    counts: dict[str, int]
    scored: dict[str, Scored]
    comparisons: list[Comparison]
    permutation_p: float | None
    curve: LearningCurve | None
    table: pd.DataFrame
    probe: LinearProbe | None
    attention: list[float] | None = None

    @property
    def primary(self) -> str:
        """The metric by which features are compared."""
        return PRIMARY[self.target["kind"]]

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "target": self.target,
            "settings": asdict(self.settings),
            "counts": self.counts,
            "primary": self.primary,
            "higher_is_better": HIGHER_IS_BETTER[self.primary],
            "scored": {name: asdict(each) for name, each in self.scored.items()},
            "comparisons": [asdict(each) for each in self.comparisons],
            "permutation_p": self.permutation_p,
            "attention": self.attention,
            "learning_curve": None if self.curve is None else asdict(self.curve),
            "predictions": self.table.to_dict(orient="list"),
        }

    def summary(self) -> dict[str, Any]:
        """Metrics for the results of a run, as plain values."""
        own, first = self.scored[CODES].metrics, self.primary
        others = {name: each.metrics[first] for name, each in self.scored.items() if name != CODES}
        further = {name: each for name, each in own.items() if name != first}
        return {
            first: asdict(own[first]),
            **{name: each.value for name, each in further.items()},
            "intervals": {name: asdict(each) for name, each in further.items()},
            "baselines": {name: each.value for name, each in others.items()},
            "baseline_intervals": {name: asdict(each) for name, each in others.items()},
            "differences": {
                each.against: asdict(each.difference) | {"p_holm": each.p_holm} for each in self.comparisons
            },
            "train_subjects": self.counts["trained_subjects"],
            "test_subjects": self.counts["tested_subjects"],
            "test_scans": self.counts["tested_scans"],
        }

    def write(self, folder: Path, inputs: Mapping[str, str] | None = None) -> list[Path]:
        """Write probe_TARGET.json, the predictions as probe_TARGET.csv, and the linear probe as probe_TARGET_model.json.

        A probe of a former run is removed where this one leaves none.

        Args:
            folder: to write to.
            inputs: files that it was made from, by name.
        """
        name = "probe_" + re.sub(r"[^A-Za-z0-9_.+-]+", "_", self.target["name"])
        paths = [
            write_json(folder / f"{name}.json", self.plain() | {"inputs": dict(inputs or {})}),
            write_text(folder / f"{name}.csv", self.table.to_csv(index=False)),
        ]
        model = folder / f"{name}_model.json"
        if self.probe is not None:
            return [*paths, self.probe.save(model)]
        model.unlink(missing_ok=True)
        return paths
