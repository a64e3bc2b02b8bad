"""The report's pages on what embeddings predict: each target beside every baseline, whoever wins."""

from collections.abc import Mapping, Sequence
from typing import Any

from ldae.report.blocks import Absence, Beside, Block, Cell, Interactive, Picture, Row, Section, Table, Text
from ldae.report.plots.charts import calibration_chart, learning_chart, roc_chart, scatter_chart
from ldae.report.plots.figures import (
    LearningPoints,
    RocCurve,
    draw_calibration,
    draw_learning_curve,
    draw_roc,
    draw_scatter,
)
from ldae.report.probe_file import CODES, FIGURES, ProbeFile
from ldae.report.run_folder import RunFolder
from ldae.report.sections.confusion import confusion
from ldae.report.wording import SHORT_BASELINES, fixed, joined, long_class, rivals

__all__ = ["age", "diagnosis", "probe_section"]

CODE = "semantic code"


def diagnosis(run: RunFolder) -> Section:
    """ROC curve, calibration, and AUC of the code and every baseline."""
    return _of_run(run, "diagnosis", "Diagnosis from the semantic code")


def age(run: RunFolder) -> Section:
    """Predicted against true age, and the error of the code and every baseline."""
    return _of_run(run, "age", "Age from the semantic code")


def _of_run(run: RunFolder, name: str, title: str) -> Section:
    document = run.shown(f"probe_{name}")
    if not isinstance(run.result("probe", name), Mapping) or not isinstance(document, Mapping):
        reason = run.skipped(f"probe.{name}") or Absence(
            f"results.json and tasks/probe_{name}.json hold no {name} probe; run 'ldae study' on a manifest with that column."
        )
        return Section(name, title, [reason])
    return probe_section(document, f"tasks/probe_{name}.json", name, title, own=CODE)


def probe_section(
    document: Mapping[str, Any], source: str, anchor: str, title: str, *, own: str = "codes under test"
) -> Section:
    """Everything that a probe's file holds.

    Args:
        document: content of probe_TARGET.json.
        source: its path, as cells name it.
        anchor: of the section.
        title: of the section.
        own: what the embeddings under test are called.
    """
    try:
        probe = ProbeFile(document, source, own)
        blocks: list[Block] = [
            Text(_introduction(probe)),
        ]
        figures: list[Block] = [_scores(probe), _verdict(probe), *_doubt(probe), *_further(probe), *confusion(probe)]
        pictures = _pictures(probe)
        blocks += [Beside(pictures, figures)] if pictures else figures
        if document.get("comparisons"):
            blocks.append(_differences(probe))
        blocks += [*_attention(probe), *_groups(probe), *_learning(probe)]
    except (KeyError, TypeError) as error:
        blocks = [Absence(f"{source} is incomplete ({error}); run the probe again.")]
    return Section(anchor, title, blocks)


def _introduction(probe: ProbeFile) -> str:
    settings, counts = probe.document["settings"], probe.document["counts"]
    model = {
        ("linear", "regression"): "A ridge regression",
        ("linear", "survival"): "A Cox regression with a ridge penalty, on at most ten principal components,",
    }.get((settings["model"], probe.kind), "A logistic regression" if settings["model"] == "linear" else "")
    if settings["model"] == "attention":
        model = "A regression on tokens (slices, patches) pooled by attention"
    model = model or "A vote of nearest neighbours (cosine distance)"
    if probe.kind == "multiclass":
        what = f"tells {joined(probe.classes)} apart"
    elif probe.kind == "regression":
        what = f"predicts {probe.name}"
    elif probe.kind == "survival":
        what = f"ranks who is {probe.classes[0]} at the first scan by the time until {probe.classes[-1]}"
    else:
        what = f"tells {long_class(probe.classes[-1])} from {long_class(probe.classes[0])}"
    if settings["protocol"] == "split":
        how = (
            f"It was fitted on {counts['fitted_subjects']} subjects and tested on {counts['asked_scans']} scans of "
            f"{counts['asked_subjects']} others (the frozen split)."
        )
    else:
        how = (
            f"{counts['asked_scans']} scans of {counts['asked_subjects']} subjects were asked by cross-validation grouped "
            f"by subject, {settings['folds']} folds, {settings['repeats']} times with other folds; figures are means "
            "over the repeats."
        )
    events = f" {counts['events']} of them convert." if "events" in counts else ""
    control = ""
    if settings["protocol"] == "cv":
        control = " If the model behind the embeddings was trained on some of these people, figures flatter it."
    if settings["control"] == "residualise":
        control += f" What {joined(settings['confounds'])} explain was taken out of the features on fitting subjects."
    elif settings["control"] == "match":
        control += f" Subjects of both classes were matched on {joined(settings['confounds'])}."
    inputs = probe.document.get("inputs") or {}
    source = f" Embeddings: {inputs['codes']}; cohort: {inputs['manifest']}." if inputs.get("codes") else ""
    side = "Every baseline had the same subjects, folds and probe; the penalty was chosen inside the fitting subjects."
    positive = f" {probe.classes[-1]} is the positive class{_asked(probe)}." if probe.kind == "binary" else ""
    if counts.get("left_out_scans"):
        positive += f" {counts['left_out_scans']} scans of other classes or without a value were left out."
    return f"{model} on the {probe.own} {what}. {how}{events}{positive}{control} {side}{source}"


def _asked(probe: ProbeFile) -> str:
    """How many scans and people of each class were asked."""
    predictions = probe.document["predictions"]
    words = []
    for label in (1, 0):
        people = [
            s for s, value in zip(predictions["participant_id"], predictions["target"], strict=True) if value == label
        ]
        words.append(f"{len(people)} {probe.classes[label]} scans of {len(set(people))} people")
    return f" ({' and '.join(words)} were asked)"


def _scores(probe: ProbeFile) -> Table:
    """Every kind of features, the best value marked, whoever has it."""
    short, long, digits = FIGURES[probe.primary]
    values = {name: each["figures"][probe.primary]["value"] for name, each in probe.scored.items()}
    best = (max if probe.document["higher_is_better"] else min)(values.values())
    rows = [
        Row(
            _sentence(f"{probe.own} (this method)" if name == CODES and probe.own == CODE else probe.called(name)),
            [
                probe.cell(
                    "scored", name, "figures", probe.primary, "value",
                    digits=digits, best=fixed(value, digits) == fixed(best, digits),
                ),
                probe.interval("scored", name, "figures", probe.primary, digits=digits),
            ],
        )
        for name, value in values.items()
    ]  # fmt: skip
    smaller = "" if probe.document["higher_is_better"] else "; smaller is better"
    caption = f"{long}{',' + probe.unit if probe.unit else ''}{smaller}. Best value in bold."
    return Table(caption, ("Features", short, "95 % interval"), rows)


def _verdict(probe: ProbeFile) -> Text:
    """Which baselines beat the code, in words."""
    values = {name: probe.scored[name]["figures"][probe.primary]["value"] for name in probe.others}
    own = probe.scored[CODES]["figures"][probe.primary]["value"]
    if not values:
        return Text("No baseline was run, so the code cannot be ranked.", "note")
    shown = fixed(own, probe.digits, probe.unit)
    better = rivals(own, values, higher_is_better=probe.document["higher_is_better"])
    if not better:
        return Text(f"No baseline does better than the {probe.own} ({shown}).")
    names = joined([f"{name} ({fixed(each, probe.digits, probe.unit)})" for name, each in better.items()])
    care = " Whether by more than chance, the paired differences tell." if probe.document.get("comparisons") else ""
    return Text(f"Better than the {probe.own} ({shown}): {names}.{care}", "note")


def _doubt(probe: ProbeFile) -> list[Text]:
    """What the figures do not show."""
    found = []
    p = probe.document.get("permutation_p")
    if isinstance(p, int | float):
        words = (
            f"With labels exchanged between subjects, exchanges do as well: p {probe.p_value('permutation_p').text} "
            "(permutation test)."
        )
        found.append(Text(words, "plain" if p < 0.05 else "note"))
    figures = probe.scored[CODES]["figures"]
    if "r2" in figures and figures["r2"]["low"] <= 0:
        words = (
            f"The interval of R\u00b2 reaches 0 or below: these scans do not show that the {probe.own} tells {probe.name} "
            "better than their mean does."
        )
        found.append(Text(words, "note"))
    return found


def _further(probe: ProbeFile) -> list[Table]:
    """Other figures of the code, where there are any."""
    own = probe.scored[CODES]
    rows = [
        Row(
            FIGURES[name][1],
            [
                probe.cell("scored", CODES, "figures", name, "value", digits=FIGURES[name][2]),
                probe.interval("scored", CODES, "figures", name, digits=FIGURES[name][2]),
            ],
        )
        for name in own["figures"]
        if name != probe.primary
    ]
    if own.get("calibration"):
        names = {
            "ece": "Expected calibration error (0 is perfect; few scans raise it)",
            "slope": "Calibration slope (1 is perfect; below 1, probabilities are too extreme)",
        }
        rows += [
            Row(words, [probe.cell("scored", CODES, "calibration", name), Cell("not computed")])
            for name, words in names.items()
        ]
    if own.get("age_bias"):
        names = {
            "gap_age_correlation": "Correlation of the age gap (predicted minus true) with age",
            "gap_age_correlation_corrected": "The same after correction of the shrinkage (0 is wanted)",
            "mae_corrected": "Mean absolute error after that correction, years (larger: the pull to the mean kept errors small)",
        }
        rows += [
            Row(words, [probe.cell("scored", CODES, "age_bias", name, digits=2), Cell("not computed")])
            for name, words in names.items()
        ]
    return [Table(f"Other measures of the {probe.own}", ("", "Value", "95 % interval"), rows)] if rows else []


def _differences(probe: ProbeFile) -> Table:
    """The code against each of the others."""
    delong = any(each.get("delong") for each in probe.document["comparisons"])
    rows = []
    for index, each in enumerate(probe.document["comparisons"]):
        cells = [
            probe.cell("comparisons", index, "difference", "value", digits=probe.digits),
            probe.interval("comparisons", index, "difference", digits=probe.digits),
            probe.p_value("comparisons", index, "p_holm"),
        ]
        if delong:
            cells.append(probe.p_value("comparisons", index, "delong", "p"))
        rows.append(Row(_sentence(probe.called(each["against"])), cells))
    sign = "above 0 the code is better" if probe.document["higher_is_better"] else "below 0 the code is better"
    caption = (
        f"{_sentence(probe.own)} minus each of the others, {FIGURES[probe.primary][0]}: {sign}. Paired bootstrap over subjects; "
        "p of all comparisons adjusted together (Holm)"
        + ("; p of DeLong et al. 1988 for clustered scans, not adjusted." if delong else ".")
    )
    columns = ["Against", "Difference", "95 % interval", "p (Holm)", *(["p (DeLong)"] if delong else [])]
    return Table(caption, columns, rows)


def _attention(probe: ProbeFile) -> list[Block]:
    """Which tokens count."""
    weights = probe.document.get("attention")
    if not weights:
        return []
    top = sorted(range(len(weights)), key=lambda index: -weights[index])[:5]
    words = joined([f"{index + 1} ({fixed(100 * weights[index], 1)} %)" for index in top])
    equal = fixed(100 / len(weights), 1)
    return [
        Text(
            f"Of the {len(weights)} tokens of a scan those that count most are {words}; equal weights would be {equal} %."
        )
    ]


def _groups(probe: ProbeFile) -> list[Block]:
    """The first figure of each site and sex."""
    tables: list[Block] = []
    for column, values in (probe.scored[CODES].get("by_group") or {}).items():
        rows = []
        for name, each in values.items():
            at = ("scored", CODES, "by_group", column, name)
            counts = probe.cell(*at, "subjects", digits=0)
            if probe.primary in each:
                figure = [
                    probe.cell(*at, probe.primary, "value", digits=probe.digits),
                    probe.interval(*at, probe.primary, digits=probe.digits),
                ]
            else:
                figure = [Cell("not computed"), Cell(each.get("reason", ""), prose=True)]
            rows.append(Row(name, [counts, *figure]))
        caption = f"{FIGURES[probe.primary][0]} of the {probe.own} by {column}"
        tables.append(Table(caption, (_sentence(column), "Subjects", FIGURES[probe.primary][0], "95 % interval"), rows))
    return tables


def _pictures(probe: ProbeFile) -> list[Block]:
    if probe.kind == "binary":
        return [_roc(probe), _calibration(probe)]
    if probe.kind == "regression":
        return [_scatter(probe)]
    return []


def _roc(probe: ProbeFile) -> Block:
    curves = [_curve(probe, name) for name, each in probe.scored.items() if each.get("roc")]
    negative, positive = probe.classes
    picture = Picture(
        draw_roc(curves, positive=positive, negative=negative),
        "image/svg+xml",
        "ROC curves, sensitivity against 1 - specificity, with the line of chance: "
        f"{'; '.join(c.label for c in curves)}.",
        "ROC curve: each point is a threshold on the probability. Up and left is better; the dotted diagonal is "
        "chance. The band holds 95 % of the curves over resampled subjects, at each false positive rate by itself."
        + (
            " Curves are of predictions averaged over the repeats, whose AUC is not quite the table's mean over them."
            if probe.document["settings"]["protocol"] == "cv"
            else ""
        ),
    )
    return Interactive(picture, roc_chart(curves, positive=positive, negative=negative))


def _curve(probe: ProbeFile, name: str) -> RocCurve:
    roc = probe.scored[name]["roc"]
    called = probe.own if name == CODES else SHORT_BASELINES.get(name, name)
    return RocCurve(
        f"{called} (AUC {(roc.get('auc') or [probe.scored[name]['figures']['auc']['value']])[0]:.3f})",
        roc["false_positive_rate"],
        roc["true_positive_rate"],
        (roc["band_rate"], roc["band_low"], roc["band_high"]),
    )


def _calibration(probe: ProbeFile) -> Block:
    curve = probe.scored[CODES]["calibration"]
    groups = (curve["predicted"], curve["observed"], curve["counts"])
    picture = Picture(
        draw_calibration(*groups, positive=probe.classes[-1]),
        "image/svg+xml",
        f"Observed share of {probe.classes[-1]} against predicted probability in {len(curve['counts'])} groups of scans.",
        f"Calibration of the {probe.own}: scans in order of their probability, in groups of equal size. On the dashed line "
        "a probability means what it says."
        + (
            " Classes are balanced in fitting, so that prevalence is not in the probability."
            if probe.document["settings"]["model"] == "linear"
            else ""
        ),
    )
    return Interactive(picture, calibration_chart(*groups, positive=probe.classes[-1]))


def _scatter(probe: ProbeFile) -> Block:
    predictions = probe.document["predictions"]
    target, predicted = predictions["target"], predictions[CODES]
    unit = probe.unit.strip()
    picture = Picture(
        draw_scatter(target, predicted, probe.name, unit),
        "image/svg+xml",
        f"Predicted against true {probe.name} of {len(target)} test scans, with the line of identity.",
        "Each dot is a scan; on the dashed line the prediction is right. A cloud flatter than the line is usual: the "
        "regression shrinks predictions toward the mean.",
    )
    people, sessions = predictions["participant_id"], predictions.get("session_id")
    keys = people if sessions is None else [f"{a}, {b}" for a, b in zip(people, sessions, strict=True)]
    return Interactive(picture, scatter_chart(target, predicted, keys, probe.name, unit))


def _learning(probe: ProbeFile) -> list[Block]:
    curve = probe.document.get("learning_curve")
    if not curve or len(curve["subjects"]) < 2:
        return []
    series = [
        LearningPoints(
            probe.own if name == CODES else SHORT_BASELINES.get(name, name),
            means,
            curve["low"][name],
            curve["high"][name],
        )
        for name, means in curve["mean"].items()
    ]
    names: Sequence[str] = list(curve["mean"])
    rows = [
        Row(
            _count(curve, index),
            [probe.cell("learning_curve", "mean", name, index, digits=probe.digits) for name in names],
        )
        for index in range(len(curve["subjects"]))
    ]
    picture = Picture(
        draw_learning_curve(curve["subjects"], series, FIGURES[probe.primary][0]),
        "image/svg+xml",
        f"{FIGURES[probe.primary][0]} against the number of labelled subjects, for {joined([each.label for each in series])}.",
        "How many labelled subjects are needed. Means over ten draws of who is labelled; the band holds 95 % of the draws. "
        "Tested on the same scans throughout.",
    )
    table = Table(
        f"{FIGURES[probe.primary][0]} by number of labelled subjects, means over draws",
        ("Labelled", *(_sentence(SHORT_BASELINES.get(n, n) if n != CODES else probe.own) for n in names)),
        rows,
    )
    chart = learning_chart(curve["subjects"], series, FIGURES[probe.primary][0])
    return [Beside([Interactive(picture, chart)], [table])]


def _count(curve: Mapping[str, Any], index: int) -> str:
    per_class = curve["per_class"]
    return f"{curve['subjects'][index]}" if per_class is None else f"{per_class[index]} of each class"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
