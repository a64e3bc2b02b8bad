"""The report's sections on probes: each target, the codes beside every baseline."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldae.report.blocks import Absence, Beside, Block, Cell, Row, Section, Table, Text
from ldae.report.probe_file import CODES, METRICS, ProbeFile
from ldae.report.run_folder import RunFolder
from ldae.report.sections.prediction_charts import charts, learning_curve
from ldae.report.source import value_of
from ldae.report.wording import capital, fixed, joined, long_class, short_name, verdict, words

__all__ = ["age", "diagnosis", "probe_section"]

CODE = "semantic code"


def diagnosis(run: RunFolder) -> Section:
    """ROC curve, calibration, and AUC of the code and every baseline."""
    return _of_run(run, "diagnosis", "Diagnosis from the semantic code")


def age(run: RunFolder) -> Section:
    """Predicted against true age, and the error of the code and every baseline."""
    return _of_run(run, "age", "Age from the semantic code")


def _of_run(run: RunFolder, name: str, title: str) -> Section:
    source = run.task(f"probe_{name}")
    if not isinstance(run.results.get("probe", name), Mapping) or not isinstance(source.content, Mapping):
        reason = (
            f"results.json and {source.name} hold no {name} probe; run 'ldae study' on a manifest with that column."
        )
        return Section(name, title, [run.missing(f"probe.{name}", reason)])
    return probe_section(source.content, source.name, name, title, own=CODE)


def probe_section(
    document: Mapping[str, Any], source: str, anchor: str, title: str, *, own: str = "codes under test"
) -> Section:
    """Everything that a probe's file holds.

    Args:
        document: content of probe_TARGET.json.
        source: its path, as cells name it.
        anchor: of the section.
        title: of the section.
        own: name of the embeddings under test.
    """
    try:
        probe = ProbeFile(document, source, own)
        tables: list[Block] = [_scores(probe), _verdict(probe), *_doubts(probe), *_further(probe), *_confusion(probe)]
        drawn = charts(probe)
        blocks: list[Block] = [Text(_introduction(probe)), *([Beside([drawn, tables])] if drawn else tables)]
        blocks += [*_comparisons(probe), *_attention(probe), *_groups(probe), *learning_curve(probe)]
    except (KeyError, TypeError) as error:
        blocks = [Absence(f"{source} is incomplete ({error}); run the probe again.")]
    return Section(anchor, title, blocks)


def _introduction(probe: ProbeFile) -> str:
    """Model, target, protocol, counts and controls, in sentences."""
    settings, counts = probe.document["settings"], probe.document["counts"]
    if settings["model"] == "attention":
        model = "A regression on tokens (slices, patches) pooled by attention"
    elif settings["model"] != "linear":
        model = "A nearest-neighbour classifier (cosine distance)"
    else:
        model = {
            "regression": "A ridge regression",
            "survival": "An l2-regularised Cox regression on at most ten principal components",
        }.get(probe.kind, "A logistic regression")
    task = {
        "multiclass": f"distinguishes {joined(probe.classes)}",
        "regression": f"predicts {probe.name}",
    }.get(probe.kind)
    if probe.kind == "survival":
        task = f"ranks subjects with {probe.classes[0]} at the first scan by the time to {probe.classes[-1]}"
    task = task or f"distinguishes {long_class(probe.classes[-1])} from {long_class(probe.classes[0])}"
    sentences = [f"{model} on the {probe.own} {task}."]
    tested = f"{value_of(counts, 'tested_scans')} scans of {value_of(counts, 'tested_subjects')}"
    if settings["protocol"] == "split":
        trained = value_of(counts, "trained_subjects")
        sentences.append(f"It was trained on {trained} subjects and tested on {tested} others (the frozen split).")
    else:
        sentences += [
            f"{tested} subjects were tested by cross-validation grouped by subject: {settings['folds']} folds, "
            f"{settings['repeats']} repeats with other folds.",
            "Metrics are means over the repeats.",
            "They are optimistic if the model behind the embeddings was trained on some of these subjects.",
        ]
    if "events" in counts:
        sentences.append(f"{counts['events']} of them convert.")
    if probe.kind == "binary":
        sentences.append(f"{probe.classes[-1]} is the positive class ({_class_counts(probe)}).")
    if counts.get("left_out_scans"):
        sentences.append(f"{counts['left_out_scans']} scans of other classes or without a value were excluded.")
    if settings["control"] == "residualise":
        explained = joined(settings["confounds"])
        sentences.append(f"The effect of {explained} on the features, estimated on the training subjects, was removed.")
    elif settings["control"] == "match":
        sentences.append(f"Subjects of both classes were matched on {joined(settings['confounds'])}.")
    sentences += [
        "Every baseline used the same subjects, folds and probe.",
        "The regularisation strength was chosen within the training subjects.",
    ]
    inputs = probe.document.get("inputs") or {}
    if inputs.get("codes"):
        sentences.append(f"Embeddings: {inputs['codes']}; cohort: {inputs['manifest']}.")
    return " ".join(sentences)


def _class_counts(probe: ProbeFile) -> str:
    """Scans and subjects of each class in the test."""
    predictions = probe.document["predictions"]
    parts = []
    for label in (1, 0):
        subjects = [
            subject
            for subject, value in zip(predictions["participant_id"], predictions["target"], strict=True)
            if value == label
        ]
        parts.append(f"{len(subjects)} {probe.classes[label]} scans of {len(set(subjects))} subjects")
    return " and ".join(parts)


def _scores(probe: ProbeFile) -> Table:
    """Primary metric of every kind of features, the best value marked."""
    short, long, digits = METRICS[probe.primary]
    best = (max if probe.higher_is_better else min)(probe.values.values())
    rows = [
        Row(
            capital(f"{probe.own} (this method)" if name == CODES and probe.own == CODE else probe.called(name)),
            probe.metric(
                "scored", name, "metrics", metric=probe.primary, best=fixed(value, digits) == fixed(best, digits)
            ),
        )
        for name, value in probe.values.items()
    ]
    smaller = "" if probe.higher_is_better else "; smaller is better"
    caption = f"{long}{',' + probe.unit if probe.unit else ''}{smaller}. Best value in bold."
    return Table(caption, ("Features", short, "95 % interval"), rows)


def _verdict(probe: ProbeFile) -> Text:
    """Baselines that the codes are better than, tie with, and are worse than, in words."""
    others = {name: value for name, value in probe.values.items() if name != CODES}
    if not others:
        return Text("No baseline was run, so the code cannot be ranked.", "note")
    comparisons = probe.document.get("comparisons") or []
    text, best = verdict(
        f"{probe.own} ({fixed(probe.values[CODES], probe.digits, probe.unit)})",
        {name: fixed(value, probe.digits, probe.unit) for name, value in others.items()},
        {each["against"]: each["difference"] | {"p_holm": each.get("p_holm")} for each in comparisons},
        higher_is_better=probe.higher_is_better,
        name=short_name,
    )
    return Text(text, "plain" if best else "note")


def _doubts(probe: ProbeFile) -> list[Text]:
    """Limits of the evidence."""
    found = []
    p = probe.document.get("permutation_p")
    if isinstance(p, int | float):
        sign = "" if p < 0.001 else "= "
        text = f"Permutation test of the labels between subjects: p {sign}{probe.p_value('permutation_p').text}."
        found.append(Text(text, "plain" if p < 0.05 else "note"))
    metrics = value_of(probe.scored[CODES], "metrics")
    low = metrics.get("r2", {}).get("low")
    if low is not None and low <= 0:
        text = (
            f"The interval of R\u00b2 reaches 0 or below: these scans do not show that the {probe.own} predicts {probe.name} "
            "better than the mean does."
        )
        found.append(Text(text, "note"))
    return found


FURTHER = {
    "calibration": {
        "ece": "Expected calibration error (0 is perfect; few scans raise it)",
        "slope": "Calibration slope (1 is perfect; below 1, probabilities are too extreme)",
    },
    "age_bias": {
        "gap_age_correlation": "Correlation of the age gap (predicted minus true) with age",
        "gap_age_correlation_corrected": "The same after correction for regression to the mean (0 is ideal)",
        "mae_corrected": "Mean absolute error after that correction, years",
    },
}


def _further(probe: ProbeFile) -> list[Table]:
    """Further metrics of the codes."""
    own = probe.scored[CODES]
    rows = [
        Row(METRICS[name][1], probe.metric("scored", CODES, "metrics", metric=name))
        for name in value_of(own, "metrics")
        if name != probe.primary
    ]
    for group, names in FURTHER.items():
        if own.get(group):
            digits = 3 if group == "calibration" else 2
            rows += [
                Row(text, [probe.cell("scored", CODES, group, name, digits=digits), Cell("not computed")])
                for name, text in names.items()
            ]
    return [Table(f"Further metrics of the {probe.own}", ("Metric", "Value", "95 % interval"), rows)] if rows else []


def _confusion(probe: ProbeFile) -> list[Table]:
    """Confusion matrix of the codes' most probable classes; none for other targets."""
    if probe.kind != "multiclass":
        return []
    from sklearn.metrics import confusion_matrix

    predictions = probe.document["predictions"]
    names = [f"{CODES}_{label}" for label in probe.classes]
    predicted = np.argmax([predictions[name] for name in names], axis=0)
    matrix = confusion_matrix(predictions["target"], predicted, labels=range(len(probe.classes)))
    sources = {probe.pointer("predictions", name): predictions[name] for name in ("target", *names)}
    rows = []
    for label, counts in zip(probe.classes, matrix.tolist(), strict=True):
        total = sum(counts)
        cells = [Cell(f"{n} ({fixed(100 * n / total, 0)} %)" if total else "none", sources) for n in counts]
        rows.append(Row(f"{label}, {total} {'scan' if total == 1 else 'scans'}", cells))
    caption = (
        f"Confusion matrix of the {probe.own}: counts and shares of the row, by the most probable class of predictions "
        "averaged over the repeats."
    )
    return [Table(caption, ("True class", *(f"predicted {label}" for label in probe.classes)), rows)]


def _comparisons(probe: ProbeFile) -> list[Table]:
    """The codes against each of the others."""
    comparisons = probe.document.get("comparisons") or []
    if not comparisons:
        return []
    delong = any(each.get("delong") for each in comparisons)
    rows = []
    for index, each in enumerate(comparisons):
        cells = probe.estimate("comparisons", index, "difference", digits=probe.digits)
        cells.append(probe.p_value("comparisons", index, "p_holm"))
        if delong:
            cells.append(probe.p_value("comparisons", index, "delong", "p"))
        rows.append(Row(capital(probe.called(each["against"])), cells))
    caption = (
        f"{METRICS[probe.primary][0]} of the {probe.own} minus that of each other kind of features: "
        f"{'above' if probe.higher_is_better else 'below'} 0 the code is better. Paired bootstrap over subjects; p adjusted "
        "for all comparisons (Holm)" + ("; DeLong's p for clustered scans is not adjusted." if delong else ".")
    )
    columns = ["Against", "Difference", "95 % interval", "p (Holm)", *(["p (DeLong)"] if delong else [])]
    return [Table(caption, columns, rows)]


def _attention(probe: ProbeFile) -> list[Block]:
    """Tokens with the largest attention weights."""
    weights = probe.document.get("attention")
    if not weights:
        return []
    top = sorted(range(len(weights)), key=lambda index: -weights[index])[:5]
    largest = joined([f"{index + 1} ({fixed(100 * weights[index], 1)} %)" for index in top])
    equal = fixed(100 / len(weights), 1)
    return [
        Text(
            f"Largest attention weights of the {len(weights)} tokens of a scan: {largest}. Equal weights are {equal} %."
        )
    ]


def _groups(probe: ProbeFile) -> list[Block]:
    """Primary metric of each site and sex."""
    short = METRICS[probe.primary][0]
    tables: list[Block] = []
    for column, values in (probe.scored[CODES].get("by_group") or {}).items():
        rows = []
        for name, each in values.items():
            at = ("scored", CODES, "by_group", column, name)
            metric = (
                probe.metric(*at, metric=probe.primary)
                if probe.primary in each
                else [Cell("not computed"), words(each.get("reason"))]
            )
            rows.append(Row(name, [probe.cell(*at, "subjects", digits=0), *metric]))
        tables.append(
            Table(
                f"{short} of the {probe.own} by {column}", (capital(column), "Subjects", short, "95 % interval"), rows
            )
        )
    return tables
