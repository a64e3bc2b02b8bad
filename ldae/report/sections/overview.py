"""The report's first sections: key metrics, cohort and run, training."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from ldae.data.manifest import SPLITS
from ldae.report.blocks import Absence, Beside, Block, Cell, ChartFigure, Row, Section, Table, Text
from ldae.report.plots.chart import Axis, Chart, spanning_axis
from ldae.report.run_folder import RESULTS, STAGES, RunFolder
from ldae.report.source import pointer
from ldae.report.wording import capital, counted, duration, fixed, long_class, short_name, words

__all__ = ["key_metrics", "training", "what_was_run"]


def key_metrics(run: RunFolder) -> Section:
    """One row a metric, with a sentence on how to read it."""
    makers = (_diagnosis_rows, _age_rows, _reconstruction_rows, _code_rows, _manipulation_rows, _interpolation_rows)
    blocks: list[Block] = []
    if run.results.get("request", "quick"):
        blocks.append(
            Text("This quick run at toy size only checks that everything works: its metrics mean nothing.", "warning")
        )
    subjects = run.results.get("n_test_subjects")
    few = f" With {subjects} test subjects they are wide." if isinstance(subjects, int) and subjects < 100 else ""
    unseen = "; no stage of training has seen these subjects" if run.trained_here else ""
    blocks += [
        Table(
            f"Key metrics on the test subjects{unseen}",
            ("Metric", "Value", "95 % interval", "Reference", "How to read it"),
            list(chain.from_iterable(make(run) for make in makers)),
        ),
        Text(f"Intervals resample whole subjects, because scans of one subject are not independent.{few}"),
    ]
    return Section("key-figures", "Key metrics", blocks)


def _row(name: str, value: Cell, interval: Cell, reference: Cell, reading: str) -> Row:
    return Row(name, [value, interval, reference, words(reading)])


def _baselines(run: RunFolder, keys: Sequence[str], digits: int, unit: str = "") -> Cell:
    """The baselines of a probe, each with its value."""
    values = run.results.get(*keys)
    if not isinstance(values, Mapping) or not values:
        return Cell("no baseline was run")
    text = "; ".join(f"{short_name(name)} {fixed(value, digits)}" for name, value in values.items())
    return Cell(text + unit, tuple(pointer(RESULTS, *keys, name) for name in values))


def _diagnosis_rows(run: RunFolder) -> list[Row]:
    results, own = run.results, ("probe", "diagnosis")
    if results.get(*own) is None:
        return []
    positive, negative = run.classes
    return [
        _row(
            f"{capital(long_class(positive))} versus {long_class(negative)}: AUC",
            results.cell(*own, "auc", "value"),
            results.interval(*own, "auc"),
            _baselines(run, (*own, "baselines"), 3),
            f"Probability that a scan with {positive} ranks above one without: 0.5 is chance, 1 is perfect.",
        ),
        *(
            _row(
                f"{positive} versus {negative}: {name}",
                results.cell(*own, name),
                results.interval(*own, "intervals", name),
                Cell(f"read with {other}"),
                f"Share of {which} scans with a predicted probability of {positive} {side} 0.5.",
            )
            for name, other, which, side in (
                ("sensitivity", "specificity", positive, "above"),
                ("specificity", "sensitivity", negative, "up to"),
            )
        ),
    ]


def _age_rows(run: RunFolder) -> list[Row]:
    own = ("probe", "age")
    if run.results.get(*own) is None:
        return []
    return [
        _row(
            "Age: mean absolute error",
            run.results.cell(*own, "mae", "value", digits=2, unit=" years"),
            run.results.interval(*own, "mae", digits=2, unit=" years"),
            _baselines(run, (*own, "baselines"), 2, " years"),
            "Mean distance of predicted and true age; smaller is better.",
        )
    ]


def _reconstruction_rows(run: RunFolder) -> list[Row]:
    results = run.results
    if results.get("reconstruct") is None:
        return []
    return [
        _row(
            "Reconstruction from both codes: SSIM",
            results.cell("reconstruct", "ssim"),
            results.interval("reconstruct", "intervals", "ssim"),
            results.cell("compression", "ssim", form=lambda value: f"compression ceiling {fixed(value)}"),
            "1 is an identical image. The ceiling is the compression autoencoder alone; codes cannot exceed it.",
        ),
        _row(
            "Reconstruction from the semantic code alone: SSIM",
            results.cell("reconstruct", "ssim_semantic_only"),
            results.interval("reconstruct", "intervals", "ssim_semantic_only"),
            results.cell("reconstruct", "ssim_mean_image", form=lambda value: f"mean training scan {fixed(value)}"),
            "The noise code is drawn at random. Above the mean training scan, the code holds much about the subject. "
            "For SSIM inside the brain, see Reconstruction.",
        ),
    ]


def _code_rows(run: RunFolder) -> list[Row]:
    results, own = run.results, ("code_usage", "share")
    if results.get("code_usage") is None:
        return []
    return [
        _row(
            "Code usage: explained variance of the denoising target",
            results.cell(*own, "value"),
            results.interval(*own),
            results.cell(
                "code_usage", "shuffled_share", "value", form=lambda value: f"another subject's code {fixed(value)}"
            ),
            "Share of the denoising error without a code that the scan's own code removes. Near 0, or no better than "
            "another subject's code: the code is not used.",
        )
    ]


def _manipulation_rows(run: RunFolder) -> list[Row]:
    steps, change, probability = (
        run.results.get("manipulate", name) for name in ("steps", "ventricle_change_ml", "probability")
    )
    if not steps or not change or not probability:
        return []
    positive, _ = run.classes
    ends, rise = (
        tuple(pointer(RESULTS, "manipulate", name, i) for i in (0, len(steps) - 1))
        for name in ("ventricle_change_ml", "probability")
    )
    monotone = "increasing" if run.results.get("manipulate", "monotone") else "not increasing"
    return [
        _row(
            f"Edits toward {positive}: change of ventricle volume",
            Cell(f"{fixed(change[0], 1, signed=True)} to {fixed(change[-1], 1, ' ml', signed=True)}", ends),
            Cell("not computed"),
            Cell(
                f"mean probability {fixed(probability[0], 2)} to {fixed(probability[-1], 2)}, {monotone} at every step",
                rise,
            ),
            f"Mean over subjects, from the largest edit away from {positive} to the largest toward it. Ventricles are "
            f"larger in {positive}.",
        )
    ]


def _interpolation_rows(run: RunFolder) -> list[Row]:
    own = ("interpolate", "change_error")
    errors, method = run.results.get(*own), run.own_method
    if not isinstance(errors, Mapping) or method not in errors:
        return []
    names = {"voxel_linear": "interpolated voxels", "voxel_trajectory": "fitted voxels", "copy_nearest": "nearest copy"}
    others = {name: word for name, word in names.items() if name in errors}
    return [
        _row(
            "Missing session: change error",
            run.results.cell(*own, method),
            run.results.interval("interpolate", "intervals", "change_error", method),
            Cell(
                "; ".join(f"{word} {fixed(errors[name])}" for name, word in others.items()),
                tuple(pointer(RESULTS, *own, name) for name in others),
            ),
            "0 is the true change; 1 is no better than a copy of the first session. Smaller is better.",
        )
    ]


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
        rows.append(Row(split or "in no split", [Cell(value, (source,)) for value in values]))
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
