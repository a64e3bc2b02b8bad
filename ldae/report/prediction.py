"""The report's pages on what the semantic code predicts: diagnosis and age, beside every baseline."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ldae.evaluation.figures import RocCurve, draw_age_scatter, draw_roc
from ldae.report.blocks import Absence, Beside, Block, Picture, Row, Section, Table, Text
from ldae.report.run_folder import RunFolder
from ldae.report.wording import (
    SHORT_BASELINES,
    baseline_name,
    cell,
    class_names,
    fixed,
    interval_cell,
    joined,
    long_class,
    rivals,
)

__all__ = ["age", "diagnosis"]

CODE = "semantic code"


def diagnosis(run: RunFolder) -> Section:
    """ROC curve, and AUC of the code and every baseline."""
    title = "Diagnosis from the semantic code"
    own = run.result("probe", "diagnosis")
    if not isinstance(own, Mapping):
        return Section("diagnosis", title, [_absence(run, "diagnosis")])
    positive, negative = class_names(run)
    operating = Table(
        "At probability 0.5",
        ("", "Value", "95 % interval"),
        [
            Row(
                name, [cell(run, "probe", "diagnosis", key), interval_cell(run, "probe", "diagnosis", "intervals", key)]
            )
            for key, name in (
                ("sensitivity", f"Sensitivity ({positive} scans found)"),
                ("specificity", f"Specificity ({negative} scans left alone)"),
                ("balanced_accuracy", "Balanced accuracy (their mean)"),
            )
        ],
    )
    scores = _score_table(
        run,
        "diagnosis",
        "auc",
        3,
        f"Area under the ROC curve (AUC), {positive} against {negative}",
        higher_is_better=True,
    )
    verdict = _verdict(own.get("auc"), own.get("baselines"), 3, higher_is_better=True)
    introduction = Text(
        f"A logistic regression on the semantic code tells {long_class(positive)} from {long_class(negative)}. It "
        f"was fitted on {own.get('train_subjects')} subjects and tested on {own.get('test_scans')} scans of "
        f"{own.get('test_subjects')} others; {positive} is the positive class. Every baseline had the same subjects "
        "and the same probe."
    )
    return Section("diagnosis", title, [introduction, Beside([_roc(run)], [scores, verdict, operating])])


def _roc(run: RunFolder) -> Block:
    shown = run.shown("probe_diagnosis")
    positive, negative = class_names(run)
    try:
        curves = [_curve(CODE, shown["result"])]
        curves += [_curve(SHORT_BASELINES.get(name, name), each) for name, each in shown["baselines"].items()]
    except (KeyError, TypeError):
        return Absence(
            "There is no ROC curve: tasks/probe_diagnosis.json is missing or incomplete; run 'ldae study' again."
        )
    return Picture(
        draw_roc(curves, positive=positive, negative=negative),
        "image/svg+xml",
        "ROC curves, sensitivity against 1 - specificity, with the line of chance: "
        f"{'; '.join(c.label for c in curves)}.",
        "ROC curve: each point is a threshold on the probability. Up and left is better; the dotted diagonal is "
        "chance. The band holds 95 % of the curves over resampled subjects, at each false positive rate by itself.",
    )


def _curve(name: str, result: Any) -> RocCurve:
    roc = result["roc"]
    return RocCurve(
        f"{name} (AUC {result['auc']['value']:.3f})",
        roc["false_positive_rate"],
        roc["true_positive_rate"],
        (roc["band_rate"], roc["band_low"], roc["band_high"]),
    )


def age(run: RunFolder) -> Section:
    """Predicted against true age, and the error of the code and every baseline."""
    title = "Age from the semantic code"
    own = run.result("probe", "age")
    if not isinstance(own, Mapping):
        return Section("age", title, [_absence(run, "age")])
    scores = _score_table(
        run,
        "age",
        "mae",
        2,
        "Mean absolute error of the predicted age, years; smaller is better",
        higher_is_better=False,
    )
    further = Table(
        "Other measures of the semantic code",
        ("", "Value", "95 % interval"),
        [
            Row(
                name,
                [
                    cell(run, "probe", "age", key, form=partial(fixed, digits=digits, unit=unit)),
                    interval_cell(run, "probe", "age", "intervals", key, digits=digits, unit=unit),
                ],
            )
            for key, name, digits, unit in (
                ("rmse", "Root mean squared error (large errors weigh more)", 2, " years"),
                ("r2", "R\u00b2 (1 is perfect, 0 is guessing the mean)", 2, ""),
            )
        ],
    )
    introduction = Text(
        "A ridge regression on the semantic code predicts age at the scan. It was fitted on "
        f"{own.get('train_subjects')} subjects and tested on {own.get('test_scans')} scans of "
        f"{own.get('test_subjects')} others. Every baseline had the same subjects and the same probe."
    )
    verdict = _verdict(own.get("mae"), own.get("baselines"), 2, higher_is_better=False, unit=" years")
    return Section("age", title, [introduction, Beside([_scatter(run)], [scores, verdict, further, *_doubt(run)])])


def _doubt(run: RunFolder) -> list[Text]:
    """That the code may know nothing of age, where the interval of R2 says so."""
    low = run.result("probe", "age", "intervals", "r2", "low")
    if not isinstance(low, int | float) or low > 0:
        return []
    words = (
        "The interval of R\u00b2 reaches 0 or below: these scans do not show that the code tells age better than their "
        "mean does."
    )
    return [Text(words, "note")]


def _scatter(run: RunFolder) -> Block:
    try:
        result = run.shown("probe_age")["result"]
        target, predicted = result["target"], result["predicted"]
    except (KeyError, TypeError):
        return Absence(
            "There is no scatter plot: tasks/probe_age.json is missing or incomplete; run 'ldae study' again."
        )
    return Picture(
        draw_age_scatter(target, predicted),
        "image/svg+xml",
        f"Predicted against true age of {len(target)} test scans, with the line of identity.",
        "Each dot is a scan; on the dashed line the prediction is right. A cloud flatter than the line is usual: the "
        "regression makes the youngest look older and the oldest younger.",
    )


def _score_table(run: RunFolder, task: str, metric: str, digits: int, caption: str, *, higher_is_better: bool) -> Table:
    """The code and every baseline, the best value marked, whoever has it."""
    others = run.result("probe", task, "baselines") or {}
    values = {None: run.result("probe", task, metric, "value"), **others}
    known = [value for value in values.values() if isinstance(value, int | float)]
    best = (max if higher_is_better else min)(known, default=None)

    form = partial(fixed, digits=digits)
    rows = [
        Row(
            f"{CODE} (this method)".capitalize(),
            [
                cell(run, "probe", task, metric, "value", form=form, best=form(values[None]) == form(best)),
                interval_cell(run, "probe", task, metric, digits=digits),
            ],
        )
    ]
    rows += [
        Row(
            _sentence(baseline_name(name)),
            [
                cell(run, "probe", task, "baselines", name, form=form, best=form(value) == form(best)),
                interval_cell(run, "probe", task, "baseline_intervals", name, digits=digits),
            ],
        )
        for name, value in others.items()
    ]
    return Table(f"{caption}. Best value in bold.", ("Features", metric.upper(), "95 % interval"), rows)


def _verdict(own: Any, others: Any, digits: int, *, higher_is_better: bool, unit: str = "") -> Text:
    """Which baselines beat the code, in words."""
    value = own.get("value") if isinstance(own, Mapping) else None
    if not isinstance(others, Mapping) or not others:
        return Text("No baseline was run, so the code cannot be ranked.", "note")
    better = rivals(value, others, higher_is_better=higher_is_better)
    if not better:
        return Text(f"No baseline does better than the {CODE} ({fixed(value, digits, unit)}).")
    names = joined([f"{name} ({fixed(each, digits, unit)})" for name, each in better.items()])
    return Text(f"Better than the {CODE} ({fixed(value, digits, unit)}): {names}.", "note")


def _absence(run: RunFolder, task: str) -> Absence:
    return run.skipped(f"probe.{task}") or Absence(
        f"results.json holds no {task} probe; run 'ldae study' on a manifest with that column."
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
