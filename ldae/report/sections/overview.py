"""The report's first sections: key metrics, cohort and run, training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ldae.data.manifest import SPLITS
from ldae.report.blocks import Absence, Beside, Block, Cell, ChartFigure, Row, Section, Table, Text
from ldae.report.plots.chart import Axis, Chart, spanning_axis
from ldae.report.run_folder import RESULTS, STAGES, RunFolder
from ldae.report.source import Source, pointer
from ldae.report.wording import RIVALS, capital, counted, duration, fixed, long_class, short_name, words

__all__ = ["key_metrics", "key_rows", "training", "what_was_run"]


def key_metrics(run: RunFolder) -> Section:
    """One row a metric, by question, with a sentence on how to read it."""
    blocks: list[Block] = []
    if run.results.get("request", "quick"):
        blocks.append(
            Text("This quick run at toy size only checks that everything works: its metrics mean nothing.", "warning")
        )
    subjects = run.results.get("n_test_subjects")
    few = f" With {subjects} test subjects they are wide." if isinstance(subjects, int) and subjects < 100 else ""
    unseen = "; no stage of training has seen these subjects" if run.trained_here else ""
    columns = ("Metric", "Value", "95 % interval", "Reference", "How to read it")
    intervals = "Intervals resample whole subjects, because scans of one subject are not independent."
    blocks += [
        Text(f"Metrics on the test subjects{unseen}. {intervals}{few}"),
        *(Table(question, columns, rows) for question, rows in _rows_by_question(run).items() if rows),
    ]
    return Section("key-figures", "Key metrics", blocks)


def key_rows(run: RunFolder) -> list[Row]:
    """Metric, value, interval, reference and reading of every task that was run."""
    return [row for rows in _rows_by_question(run).values() for row in rows]


def _rows_by_question(run: RunFolder) -> dict[str, list[Row]]:
    """The rows that answer each question."""
    results, (positive, negative) = run.results, run.classes
    cell, estimate, interval, own = results.cell, results.estimate, results.interval, run.own_method
    diagnosis, age, change = ("probe", "diagnosis"), ("probe", "age"), "change_error"
    monotone = "increasing" if results.get("manipulate", "monotone") else "not increasing"
    probability = _span(results, "probability", 2)
    prediction: list[tuple[Any, ...]] = [
        (
            f"{capital(long_class(positive))} versus {long_class(negative)}: AUC",
            *estimate(*diagnosis, "auc"),
            _references(results, (*diagnosis, "baselines"), short_name, 3),
            f"Probability that a scan with {positive} ranks above one without: 0.5 is chance, 1 is perfect.",
        ),
        *(
            (
                f"{positive} versus {negative}: {name}",
                cell(*diagnosis, name),
                interval(*diagnosis, "intervals", name),
                Cell(f"read with {other}"),
                f"Share of {which} scans with a predicted probability of {positive} {side} 0.5.",
            )
            for name, other, which, side in (
                ("sensitivity", "specificity", positive, "above"),
                ("specificity", "sensitivity", negative, "up to"),
            )
        ),
        (
            "Age: mean absolute error",
            cell(*age, "mae", "value", digits=2, unit=" years"),
            interval(*age, "mae", digits=2, unit=" years"),
            _references(results, (*age, "baselines"), short_name, 2, " years"),
            "Mean distance of predicted and true age; smaller is better.",
        ),
    ]
    images: list[tuple[Any, ...]] = [
        (
            "Reconstruction from both codes: SSIM",
            cell("reconstruct", "ssim"),
            interval("reconstruct", "intervals", "ssim"),
            cell("compression", "ssim", form=lambda value: f"compression ceiling {fixed(value)}"),
            "1 is an identical image. The ceiling is the compression autoencoder alone: what it loses, no code returns.",
        ),
        (
            "Reconstruction from the semantic code alone: SSIM",
            cell("reconstruct", "ssim_semantic_only"),
            interval("reconstruct", "intervals", "ssim_semantic_only"),
            cell("reconstruct", "ssim_mean_image", form=lambda value: f"mean training scan {fixed(value)}"),
            "The noise code is drawn at random. Above the mean training scan, the code holds much about the subject. "
            "For SSIM inside the brain, see Reconstruction.",
        ),
        (
            "Code usage: explained variance of the denoising target",
            *estimate("code_usage", "share"),
            cell("code_usage", "shuffled_share", "value", form=lambda value: f"another subject's code {fixed(value)}"),
            "Share of the denoising error without a code that the scan's own code removes. Near 0, or no better than "
            "another subject's code: the code is not used.",
        ),
    ]
    course: list[tuple[Any, ...]] = [
        (
            f"Edits toward {positive}: change of ventricle volume",
            _span(results, "ventricle_change_ml", 1, " ml", signed=True),
            Cell("not computed"),
            replace(probability, text=f"mean probability {probability.text}, {monotone} at every step"),
            f"Mean over subjects, from the largest edit away from {positive} to the largest toward it. Ventricles are "
            f"larger in {positive}.",
        ),
        (
            "Missing session: change error",
            cell("interpolate", change, own),
            interval("interpolate", "intervals", change, own),
            _references(results, ("interpolate", change), lambda name: RIVALS.get(name, ""), 3),
            "0 is the true change; 1 is no better than a copy of the first session. Smaller is better.",
        ),
    ]
    questions = {
        "Does the code predict diagnosis and age?": prediction,
        "Does the code hold the image?": images,
        "Does the code follow disease and time?": course,
    }
    return {
        question: [
            Row(name, [value, *others, words(reading)]) for name, value, *others, reading in rows if value.sources
        ]
        for question, rows in questions.items()
    }


def _references(results: Source, keys: Sequence[str], name: Callable[[str], str], digits: int, unit: str = "") -> Cell:
    """The values to compare with, by their short names; those without one are left out."""
    values = results.get(*keys)
    shown = {key: value for key, value in values.items() if name(key)} if isinstance(values, Mapping) else {}
    text = "; ".join(f"{name(key)} {fixed(value, digits)}" for key, value in shown.items())
    sources = {pointer(RESULTS, *keys, key): value for key, value in shown.items()}
    return Cell(text + unit if text else "no baseline was run", sources)


def _span(results: Source, name: str, digits: int, unit: str = "", *, signed: bool = False) -> Cell:
    """The first and the last value of the edits' steps."""
    values = results.get("manipulate", name)
    if not values:
        return Cell("not computed")
    text = f"{fixed(values[0], digits, signed=signed)} to {fixed(values[-1], digits, unit, signed=signed)}"
    return Cell(text, {pointer(RESULTS, "manipulate", name, i): values[i] for i in (0, len(values) - 1)})


def what_was_run(run: RunFolder) -> Section:
    """Cohort, model, machine."""
    blocks: list[Block] = []
    if run.phantom:
        blocks.append(
            Text(
                "The cohort is a phantom. Its scans are computed from the MNI152 template with known age, disease and "
                "anatomy, and none shows a patient. The metrics test the method; they say nothing about patients.",
                "note",
            )
        )
    blocks.append(Beside([[_facts(run)], [_splits(run)]]))
    return Section("run", "Cohort and run", blocks)


def _facts(run: RunFolder) -> Table:
    results, provenance = run.results, run.provenance
    plan = run.stage("representation").get("plan") or {}
    fingerprint, model = provenance.get("manifest", "sha256"), results.get("model")
    machine = [results.get(name) or plan.get(name) or "not recorded" for name in ("device", "precision")]
    seed = provenance.cell("seed", form=str)
    versions = provenance.get("versions") or {}
    rows = {
        "Subjects": results.cell("n_subjects", form=counted),
        "Scans": results.cell("n_scans", form=counted),
        "Test subjects": results.cell("n_test_subjects", form=counted),
        "Cohort table": words(provenance.get("manifest", "path") or results.get("request", "manifest")),
        "SHA-256 of the table": words(fingerprint and fingerprint[:16]),
        "Model": words(_model(run)),
        "SHA-256 of the model": words(model and str(model)[:16]),
        "Device": words(f"{machine[0]}; precision {machine[1]}"),
        "Seed": seed if seed.sources else results.cell("request", "seed", form=str),
        "Total time": results.cell("wall_seconds", form=duration),
        "Peak memory": results.cell("peak_memory_gib", digits=1, unit=" GiB"),
        "Versions": words(", ".join(f"{name} {each}" for name, each in versions.items())),
    }
    return Table("The run", ("", "Recorded"), [Row(name, [each]) for name, each in rows.items()])


def _model(run: RunFolder) -> str | None:
    """The model in one line, from the resolved configuration."""
    if run.config is None:
        trained = run.results.get("request", "model")
        return f"trained before, in {trained}" if trained else None
    contract, sampling = run.config.get("preprocessing", {}), run.config.get("sampling", {})
    shape = " x ".join(str(n) for n in contract.get("shape", []))
    encoder = run.semantic_encoder
    parts = [f"{shape} voxels of {contract.get('voxel_size_mm')} mm"]
    if "semantic_width" in encoder:
        symmetric = ", left-right symmetric" if encoder.get("symmetric") else ""
        parts.append(f"semantic code of {encoder['semantic_width']} dimensions{symmetric}")
    parts.append(f"{sampling.get('steps')} steps of the solver {sampling.get('solver', 'ddim')}")
    return ", ".join(parts)


def _splits(run: RunFolder) -> Table | Absence:
    """Subjects and scans of each split, counted in the cohort table."""
    manifest = run.manifest
    if isinstance(manifest, Absence):
        return manifest
    diagnoses = sorted({record.diagnosis for record in manifest.records if record.diagnosis is not None})
    rows = []
    for split in (*SPLITS, None):
        chosen = [record for record in manifest.records if record.split == split]
        if not chosen:
            continue
        ages = [record.age for record in chosen if record.age is not None]
        values = [
            str(len({record.participant_id for record in chosen})),
            str(len(chosen)),
            *(str(sum(record.diagnosis == name for record in chosen)) for name in diagnoses),
            f"{min(ages):.0f} to {max(ages):.0f}" if ages else "unknown",
        ]
        source = pointer(manifest.path.name, "split", split or "n/a")
        rows.append(Row(split or "in no split", [Cell(value, {source: None}) for value in values]))
    columns = ("Split", "Subjects", "Scans", *(f"{name} scans" for name in diagnoses), "Age (years)")
    return Table("The cohort by split, frozen by subject before any label was used", columns, rows)


def training(run: RunFolder) -> Section:
    """Losses of the three stages."""
    found = {stage: run.losses(stage) for stage in STAGES}
    curves = {stage: each for stage, each in found.items() if not isinstance(each, Absence)}
    blocks: list[Block] = []
    if curves:
        blocks.append(
            Text(
                "Both curves should fall and level off. A validation curve that rises while the training curve falls is a "
                "sign of overfitting. Losses of different stages are not comparable."
            )
        )
        figures = [_loss_figure(STAGES[stage], each) for stage, each in curves.items()]
        blocks.append(Beside([[each] for each in figures]))
    model = run.results.get("request", "model")
    if not curves and model:
        blocks.append(
            Absence(f"No stage was trained in this run: it used the model in {model}, whose logs are not here.")
        )
    else:
        blocks += [each for each in found.values() if isinstance(each, Absence)]
    rows = [_stage_row(run, stage) for stage in STAGES if run.stage(stage).content is not None]
    if rows:
        columns = (
            "Stage",
            "Trained parameters",
            "Steps",
            "Batch",
            "Time",
            "Last training loss (one batch)",
            "Last validation loss",
        )
        blocks.append(Table("Training of each stage", columns, rows))
    return Section("training", "Training", blocks)


def _loss_figure(title: str, series: Any) -> ChartFigure:
    ends = [f"{each.name} loss from {fixed(each.y[0], 4)} to {fixed(each.y[-1], 4)}" for each in series]
    values = [value for each in series for value in each.y]
    chart = Chart(series, Axis("step (batches)"), spanning_axis("loss", values))
    return ChartFigure(chart, f"Loss of stage {title} by step: {', '.join(ends)}.", f"{title}: loss by step.")


def _stage_row(run: RunFolder, name: str) -> Row:
    stage = run.stage(name)
    return Row(
        STAGES[name],
        [
            stage.cell("plan", "trained", form=counted),
            stage.cell("steps", form=counted),
            stage.cell("plan", "batch_size", form=counted),
            stage.cell("seconds", form=duration),
            stage.cell("losses", "train/loss", digits=4),
            stage.cell("losses", "validation/loss", digits=4),
        ],
    )
