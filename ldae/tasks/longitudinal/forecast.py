"""Forecast: a measured value at later months, from a subject's visits so far and from what its codes tell of its stage."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm
from sklearn.model_selection import GroupKFold

from ldae.base.files import atomic_file, write_json
from ldae.data.manifest import Manifest, Record
from ldae.errors import TaskError
from ldae.metrics.statistics import Difference, Interval, holm, mean_of, paired_difference, subject_bootstrap
from ldae.tasks.longitudinal.trajectory import fit_trajectory_prior, line_weights, sessions_of
from ldae.tasks.probe.embeddings import Embeddings
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.models import Features
from ldae.tasks.probe.targets import Target, choose_target, values_of

__all__ = ["ForecastResult", "StageSource", "forecast"]

Array = npt.NDArray[np.float64]

StageSource = Literal["code", "record"]
METHODS = ("stage from the code", "stage on record", "mixed model", "own line", "mean slope", "last value")
"""The line through the subject's visits, drawn toward the mean slope of subjects whose code tells the same stage, of those of the
same class, or of all; that line itself, of one visit its value; the last value, changed by the mean slope; the last value."""
OWN: dict[StageSource, str] = {"code": METHODS[0], "record": METHODS[1]}
COVERAGE = 0.9
FOLDS = 5


@dataclass(frozen=True, eq=False)
class ForecastResult:
    """A value forecast for all subjects, and how well test subjects' later visits were forecast from earlier ones.

    Attributes:
        target: column of the manifest.
        stage: column that tells how fast subjects change.
        own: the method of the forecasts.
        future: a row for each subject and month ahead: the value with its 90 % prediction interval.
        cases: a row for each later visit of a test subject and the visits known before it: its value, and each method's.
        errors: mean absolute error by method, over subjects.
        differences: of the own method minus each other one, with p adjusted by Holm.
        coverage: share of the values inside their 90 % intervals.
    """

    target: str
    stage: str
    own: str
    future: pd.DataFrame
    cases: pd.DataFrame
    errors: Mapping[str, Interval]
    differences: Mapping[str, Difference]
    coverage: Interval

    def write(self, folder: Path) -> list[Path]:
        """Write the forecasts, the cases (CSV) and the evaluation (JSON)."""
        name = f"forecast_{self.target}"
        written = []
        for table, path in ((self.future, folder / f"{name}.csv"), (self.cases, folder / f"{name}_cases.csv")):
            with atomic_file(path) as temporary:
                table.to_csv(temporary, index=False, float_format="%.6g")
            written.append(path)
        return [*written, write_json(folder / f"{name}.json", self.plain())]

    def plain(self) -> dict[str, Any]:
        """The evaluation as plain values."""
        adjusted = holm([each.p for each in self.differences.values()])
        return {
            "target": self.target,
            "stage": self.stage,
            "own": self.own,
            "cases": len(self.cases),
            "subjects": int(self.cases["participant_id"].nunique()),
            "mean_absolute_error": {name: asdict(each) for name, each in self.errors.items()},
            "differences": {
                name: asdict(each) | {"p_holm": p}
                for (name, each), p in zip(self.differences.items(), adjusted, strict=True)
            },
            "coverage_of_90_percent_intervals": asdict(self.coverage),
        }


def forecast(
    codes: Embeddings,
    manifest: Manifest,
    target: str,
    *,
    stage: str = "diagnosis",
    stage_from: StageSource = "code",
    ahead: Sequence[float] = (12, 24, 36),
    resamples: int = 2000,
    seed: int = 0,
) -> ForecastResult:
    """Forecast a measured value, such as the ventricles' volume.

    A subject's values lie on a line (a mixed model: Laird and Ware 1982) whose mean slope depends on the subject's stage, on
    record or as a linear probe of the code tells it. Probe, slopes and noise come from the subjects that are not in the test
    split; the stage of each of them from a probe that was trained on others (5 folds).

    Args:
        codes: of scans.
        manifest: with months, splits, and the target's values at the visits so far.
        target: column of numbers.
        stage: column that tells how fast subjects change: a diagnosis or another one of two classes, or a number.
        stage_from: whether the forecasts take it from the code or from the column; both are tested.
        ahead: months after the last visit to forecast.
        resamples: of the bootstrap.
        seed: of the resamples.

    Raises:
        TaskError: if a column or a split is missing, or there are too few visits.
    """
    wanted = choose_target(manifest, target, kind="regression")
    rows = [row for row, record in enumerate(wanted.records) if record.months is not None]
    records, values = [wanted.records[row] for row in rows], wanted.values[rows]
    features = codes.of(records, what="the codes")
    if features.ndim != 2 or not np.isfinite(codes.values).all():
        msg = "a forecast needs one vector a scan without missing numbers; leave out scans or columns that lack them"
        raise TaskError(msg)
    tested = np.array([record.split == "test" for record in records])
    learning = manifest.select((manifest.table["split"] != "test").to_numpy(dtype=bool))
    if not tested.any() or tested.all():
        msg = f"{manifest.path}: a forecast needs training and test subjects; run 'ldae cohort split'"
        raise TaskError(msg)
    stages = _stages(_stage_target(learning, stage), codes, records, features)
    training = [record for record, test in zip(records, tested, strict=True) if not test]
    priors = {
        name: (fit_trajectory_prior(training, values[~tested, None], x[~tested]), x)
        for name, x in _covariates(records, stage, stages).items()
    }
    own = OWN[stage_from]
    if own not in priors:
        msg = f"{manifest.path}: column {stage} is no class of every scan with {target}; fill it, or take the stage from the code"
        raise TaskError(msg)
    sessions = sessions_of(records)
    months = np.array([float(record.months or 0.0) for record in records])
    half = float(norm.ppf(0.5 + COVERAGE / 2))

    def predict(name: str, known: npt.NDArray[np.int64], month: float) -> float:
        made, x = priors[name]
        return float(made.predict(values[known, None], months[known], month, x[known[-1]])[0])

    def sd(known: npt.NDArray[np.int64], month: float) -> float:
        return float(np.sqrt(priors[own][0].variance(months[known], month)[0]))

    future = []
    for subject, known in sessions.items():
        for step in ahead:
            month = months[known[-1]] + step
            value, margin = predict(own, known, month), half * sd(known, month)
            last = records[known[-1]]
            key = {"participant_id": subject, "last_session": last.session_id, "split": last.split}
            future.append({**key, "months_ahead": step, target: value, "low": value - margin, "high": value + margin})
    mean_slope = float(priors["mixed model"][0].slope[0, 0])
    cases = []
    for subject, known in sessions.items():
        if not tested[known[0]]:
            continue
        for n in range(1, len(known)):
            seen = known[:n]
            for row in known[n:]:
                last, month = seen[-1], months[row]
                line = line_weights(months[seen], month) @ values[seen] if np.ptp(months[seen]) else values[last]
                cases.append(
                    {
                        "participant_id": subject,
                        "visits": n,
                        "last_session": records[last].session_id,
                        "session_id": records[row].session_id,
                        "months_ahead": month - months[last],
                        target: values[row],
                        "last value": values[last],
                        "mean slope": values[last] + mean_slope * (month - months[last]),
                        "own line": line,
                        **{name: predict(name, seen, month) for name in priors},
                        "margin": half * sd(seen, month),
                    }
                )
    if not cases:
        msg = f"{manifest.path}: no test subject has two visits with months and {target}; use a longitudinal cohort"
        raise TaskError(msg)
    return _scored(target, stage, own, pd.DataFrame(future), pd.DataFrame(cases), resamples, seed)


def _stage_target(learning: Manifest, stage: str) -> Target:
    """The stage of the training subjects: two classes, or numbers even where few of them differ."""
    found = set(values_of(learning.records, stage)) - {None}
    numbers = len(found) > 2 and all(isinstance(each, int | float) for each in found)
    target = choose_target(learning, stage, kind="regression" if numbers else "auto")
    if target.kind == "multiclass":
        msg = f"the column {stage} has {len(target.classes)} classes; give one of two classes, or of numbers"
        raise TaskError(msg)
    return target


def _stages(target: Target, codes: Embeddings, records: Sequence[Record], features: Array) -> Array:
    """Logit or number of the stage, (N,), of all scans; those of training subjects from probes of other subjects."""
    known = codes.of(target.records, what="the codes")
    subjects, own = target.subjects, np.array([record.participant_id for record in records])

    def probe(rows: npt.NDArray[np.int64]) -> LinearProbe:
        linear = LinearProbe.of(Features(known).fit(target, rows), known[rows])
        assert linear is not None
        return linear

    found = probe(np.arange(len(known))).value(features)
    for train, _ in GroupKFold(FOLDS).split(known, groups=subjects):
        others = np.isin(own, subjects) & ~np.isin(own, subjects[train])
        if others.any():
            found[others] = probe(train).value(features[others])
    return found


def _covariates(records: Sequence[Record], stage: str, stages: Array) -> dict[str, Array]:
    """Covariates of the slope by method, (N, K) each; the recorded stage only where it is a class of each scan."""
    one = np.ones((len(records), 1))
    found = {"mixed model": one}
    recorded = values_of(records, stage)
    classes = sorted({each for each in recorded if isinstance(each, str)})
    if len(classes) > 1 and None not in recorded:
        indicators = [[float(each == name) for name in classes[1:]] for each in recorded]
        found[OWN["record"]] = np.hstack([one, np.array(indicators)])
    return {**found, OWN["code"]: np.column_stack([one, stages])}


def _scored(
    target: str, stage: str, own: str, future: pd.DataFrame, cases: pd.DataFrame, resamples: int, seed: int
) -> ForecastResult:
    subjects = cases["participant_id"].tolist()
    truth = cases[target].to_numpy(dtype=np.float64)
    errors = {
        name: mean_of(np.abs(cases[name].to_numpy(dtype=np.float64) - truth)) for name in METHODS if name in cases
    }
    inside = np.abs(cases[own] - truth) <= cases["margin"]
    return ForecastResult(
        target,
        stage,
        own,
        future,
        cases,
        {name: subject_bootstrap(each, subjects, seed=seed, resamples=resamples) for name, each in errors.items()},
        {
            name: paired_difference(errors[own], each, subjects, seed=seed, resamples=resamples)
            for name, each in errors.items()
            if name != own
        },
        subject_bootstrap(mean_of(inside.to_numpy(dtype=np.float64)), subjects, seed=seed, resamples=resamples),
    )
