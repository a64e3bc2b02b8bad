"""Charts of a probe: ROC curve, calibration, predicted against true values, learning curve."""

from typing import Any

import numpy as np

from ldae.report.blocks import Beside, Block, ChartFigure, Row, Table
from ldae.report.plots.chart import Axis, Chart, Series
from ldae.report.probe_file import CODES, METRICS, ProbeFile
from ldae.report.wording import capital, joined

__all__ = ["charts", "learning_curve"]

UNIT_INTERVAL = (-0.02, 1.02)


def charts(probe: ProbeFile) -> list[Block]:
    """Charts of the predictions, by the kind of target."""
    if probe.kind == "binary":
        return [_roc(probe), _calibration(probe)]
    return [_scatter(probe)] if probe.kind == "regression" else []


def _roc(probe: ProbeFile) -> ChartFigure:
    series = []
    for name, each in probe.scored.items():
        roc = each.get("roc")
        if roc:
            area = (roc.get("auc") or [probe.values[name]])[0]
            band = (roc["band_rate"], roc["band_low"], roc["band_high"]) if name == CODES else None
            label = f"{probe.briefly(name)} (AUC {area:.3f})"
            series.append(Series(label, roc["false_positive_rate"], roc["true_positive_rate"], band=band, method=name))
    negative, positive = probe.classes
    chart = Chart(
        [*series, Series("chance", [0, 1], [0, 1], "reference")],
        Axis(f"1 - specificity ({negative} predicted {positive})", UNIT_INTERVAL),
        Axis(f"sensitivity for {positive}", UNIT_INTERVAL),
        square=True,
    )
    averaged = " Curves are of predictions averaged over the repeats; their AUC differs slightly from the table's mean."
    return ChartFigure(
        chart,
        f"ROC curves, sensitivity against 1 - specificity: {'; '.join(each.name for each in series)}.",
        "ROC curves; up and left is better. The band is the pointwise 95 % interval over subjects."
        + (averaged if probe.document["settings"]["protocol"] == "cv" else ""),
    )


def _calibration(probe: ProbeFile) -> ChartFigure:
    curve, positive = probe.scored[CODES]["calibration"], probe.classes[-1]
    labels = [f"{count} scans" for count in curve["counts"]]
    chart = Chart(
        [
            Series("groups of scans", curve["predicted"], curve["observed"], "both", labels=labels),
            Series("perfect calibration", [0, 1], [0, 1], "reference"),
        ],
        Axis(f"predicted probability of {positive}", UNIT_INTERVAL),
        Axis(f"observed share of {positive}", UNIT_INTERVAL),
    )
    balanced = " Classes are balanced in training, so the probabilities do not contain the prevalence."
    return ChartFigure(
        chart,
        f"Observed share of {positive} against predicted probability in {len(labels)} groups of scans.",
        f"Calibration of the {probe.own} in groups of equally many scans."
        + (balanced if probe.document["settings"]["model"] == "linear" else ""),
    )


def _scatter(probe: ProbeFile) -> ChartFigure:
    predictions = probe.document["predictions"]
    target, predicted = predictions["target"], predictions[CODES]
    subjects, sessions = predictions["participant_id"], predictions.get("session_id")
    labels = subjects if sessions is None else [f"{a}, {b}" for a, b in zip(subjects, sessions, strict=True)]
    values = np.asarray([*target, *predicted], dtype=float)
    margin = 0.05 * max(float(np.ptp(values)), 1e-9)
    ends = (float(values.min()) - margin, float(values.max()) + margin)
    name = f"{probe.name} ({probe.unit.strip()})" if probe.unit else probe.name
    chart = Chart(
        [
            Series("one scan", target, predicted, "points", labels=labels),
            Series("predicted = true", ends, ends, "reference"),
        ],
        Axis(f"true {name}", ends),
        Axis(f"predicted {name}", ends),
        square=True,
    )
    return ChartFigure(
        chart,
        f"Predicted against true {probe.name} of {len(target)} test scans, with the line of identity.",
        f"Predicted against true {probe.name}; each point is a scan. A slope below the line's is usual: a regression shrinks "
        "predictions toward the mean.",
    )


def learning_curve(probe: ProbeFile) -> list[Block]:
    """Primary metric by the number of labelled subjects, as a chart and a table; nothing for less than two numbers."""
    curve: dict[str, Any] = probe.document.get("learning_curve") or {}
    subjects = curve.get("subjects") or []
    if len(subjects) < 2:
        return []
    short, names = METRICS[probe.primary][0], list(curve["mean"])
    series = [
        Series(
            probe.briefly(name),
            subjects,
            curve["mean"][name],
            "both",
            (subjects, curve["low"][name], curve["high"][name]) if index == 0 else None,
            method=name,
        )
        for index, name in enumerate(names)
    ]
    ticks = {count: str(count) for count in subjects}
    figure = ChartFigure(
        Chart(
            series,
            Axis("labelled subjects", ticks=ticks, logarithmic=True),
            Axis(f"{short}{probe.unit and ' (years)'}"),
        ),
        f"{short} against the number of labelled subjects, for {joined([each.name for each in series])}.",
        f"{short} by number of labelled training subjects, tested on the same scans. Means over draws of the labelled "
        "subjects; the band holds 95 % of the draws.",
    )
    per_class = curve["per_class"]
    rows = [
        Row(
            f"{count}" if per_class is None else f"{per_class[index]} of each class",
            [probe.cell("learning_curve", "mean", name, index, digits=probe.digits) for name in names],
        )
        for index, count in enumerate(subjects)
    ]
    columns = ("Labelled subjects", *(capital(probe.briefly(name)) for name in names))
    table = Table(f"{short} by number of labelled subjects, means over draws", columns, rows)
    return [Beside([[figure], [table]])]
