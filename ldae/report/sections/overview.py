"""The report's first pages: the key figures in plain words, what was run on what, and how training went."""

from collections.abc import Mapping, Sequence
from typing import Any

from ldae.data.manifest import SPLITS, Manifest
from ldae.report.blocks import Absence, Beside, Block, Cell, Picture, Row, Section, Table, Text
from ldae.report.plots.figures import draw_loss_curves
from ldae.report.run_folder import PROVENANCE, RESULTS, STAGES, RunFolder, pointer
from ldae.report.wording import (
    NOT_MEASURED,
    SHORT_BASELINES,
    cell,
    class_names,
    duration,
    fixed,
    interval_cell,
    long_class,
    own_method,
    signed,
)

__all__ = ["key_figures", "training", "what_was_run"]

NO_INTERVAL = Cell("not computed")


def key_figures(run: RunFolder) -> Section:
    """One row a question, with the sentence that tells how to read its answer."""
    columns = ("Question", "Result", "95 % interval", "To compare with", "How to read it")
    rows = [
        *_diagnosis_rows(run),
        *_age_rows(run),
        *_reconstruction_rows(run),
        *_code_rows(run),
        *_manipulation_rows(run),
        *_interpolation_rows(run),
    ]
    blocks: list[Block] = []
    if run.result("request", "quick"):
        blocks.append(
            Text("This was a quick run at toy size, to see that everything works: its figures mean nothing.", "warning")
        )
    scans = run.result("n_test_subjects")
    blocks += [
        Table(f"Key figures on test subjects{_unseen(run)}", columns, rows),
        Text(
            "Intervals are drawn over whole subjects, because scans of one person are not independent"
            + (f"; with {scans} test subjects they are wide." if isinstance(scans, int) and scans < 100 else ".")
        ),
    ]
    return Section("key-figures", "Key figures", blocks)


def _unseen(run: RunFolder) -> str:
    """A claim that only a run that trained its own model can make."""
    return ", whom no stage of training has seen" if run.trained_here else ""


def _answer(question: str, result: Cell, interval: Cell, compare: Cell, reading: str) -> Row:
    return Row(question, [result, interval, compare, Cell(reading, prose=True)])


def _others(run: RunFolder, keys: Sequence[str], digits: int, unit: str = "") -> Cell:
    """The baselines of a probe, each in two words and its figure."""
    values = run.result(*keys)
    if not isinstance(values, Mapping) or not values:
        return Cell("no baseline was run")
    text = "; ".join(f"{SHORT_BASELINES.get(name, name)} {fixed(value, digits)}" for name, value in values.items())
    return Cell(text + unit, tuple(pointer(RESULTS, *keys, name) for name in values))


def _diagnosis_rows(run: RunFolder) -> list[Row]:
    if run.result("probe", "diagnosis") is None:
        return []
    positive, negative = class_names(run)
    own = ("probe", "diagnosis")
    return [
        _answer(
            f"Does the code tell {long_class(positive)} from {long_class(negative)}? (AUC)",
            cell(run, *own, "auc", "value"),
            interval_cell(run, *own, "auc"),
            _others(run, (*own, "baselines"), 3),
            f"The chance that a scan with {positive} gets a higher probability than one without: one half is a coin "
            "toss, 1 is perfect.",
        ),
        _answer(
            f"How many {positive} scans are found? (sensitivity)",
            cell(run, *own, "sensitivity"),
            interval_cell(run, *own, "intervals", "sensitivity"),
            Cell("read it with the next row"),
            f"The share of {positive} scans that get a probability above one half.",
        ),
        _answer(
            f"How many {negative} scans are left alone? (specificity)",
            cell(run, *own, "specificity"),
            interval_cell(run, *own, "intervals", "specificity"),
            Cell("read it with the row above"),
            f"The share of {negative} scans that get a probability below one half; the rest are false alarms.",
        ),
    ]


def _age_rows(run: RunFolder) -> list[Row]:
    own = ("probe", "age")
    if run.result(*own) is None:
        return []
    return [
        _answer(
            "How well does the code tell the age? (mean absolute error)",
            cell(run, *own, "mae", "value", form=lambda value: fixed(value, 2, " years")),
            interval_cell(run, *own, "mae", digits=2, unit=" years"),
            _others(run, (*own, "baselines"), 2, " years"),
            "How far the predicted age is off on average; smaller is better.",
        )
    ]


def _reconstruction_rows(run: RunFolder) -> list[Row]:
    if run.result("reconstruct") is None:
        return []
    ceiling, mean = run.result("compression", "ssim"), run.result("reconstruct", "ssim_mean_image")
    sources = (pointer(RESULTS, "reconstruct", "ssim_mean_image"),) if mean is not None else ()
    return [
        _answer(
            "Is a scan the same after it went through its codes? (SSIM)",
            cell(run, "reconstruct", "ssim"),
            interval_cell(run, "reconstruct", "intervals", "ssim"),
            Cell(f"ceiling {fixed(ceiling)}", (pointer(RESULTS, "compression", "ssim"),)),
            "1 is the very same image. The ceiling is what the compressed form can keep at most; at the ceiling, "
            "the codes lose nothing more.",
        ),
        _answer(
            "How much of it is in the semantic code alone? (SSIM)",
            cell(run, "reconstruct", "ssim_semantic_only"),
            interval_cell(run, "reconstruct", "intervals", "ssim_semantic_only"),
            Cell(f"mean of all training scans {fixed(mean)}", sources),
            "What the code leaves open is drawn at random, which costs likeness: a draw can be nearer to the scan than the mean "
            "image only if the code says much about this person. Inside the brain alone: see Reconstruction.",
        ),
    ]


def _code_rows(run: RunFolder) -> list[Row]:
    if run.result("diagnose") is None:
        return []
    shuffled = cell(
        run, "diagnose", "shuffled_share", "value", form=lambda value: f"somebody else's code {fixed(value)}"
    )
    return [
        _answer(
            "Is the semantic code used at all? (share explained)",
            cell(run, "diagnose", "share", "value"),
            interval_cell(run, "diagnose", "share"),
            shuffled,
            "The share of what the model leaves open without a code that a scan's own code explains. Near 0, or no better "
            "than somebody else's code, the code is not used.",
        )
    ]


def _manipulation_rows(run: RunFolder) -> list[Row]:
    steps, change = run.result("manipulate", "steps"), run.result("manipulate", "ventricle_change_ml")
    probability = run.result("manipulate", "probability")
    if not steps or not change or not probability:
        return []
    positive, _ = class_names(run)
    ends = [pointer(RESULTS, "manipulate", "ventricle_change_ml", i) for i in (0, len(steps) - 1)]
    rise = [pointer(RESULTS, "manipulate", "probability", i) for i in (0, len(steps) - 1)]
    monotone = "rises at every step" if run.result("manipulate", "monotone") else "does not rise at every step"
    return [
        _answer(
            f"Do the ventricles of an edited scan follow the direction of {positive}?",
            Cell(f"{signed(change[0])} to {signed(change[-1], 1, ' ml')}", tuple(ends)),
            NO_INTERVAL,
            Cell(
                f"mean probability {fixed(probability[0], 2)} to {fixed(probability[-1], 2)}; it {monotone}",
                tuple(rise),
            ),
            f"Mean change of volume in the images, from the largest edit away from {positive} to the largest toward "
            f"it. In {positive} ventricles are larger.",
        )
    ]


def _interpolation_rows(run: RunFolder) -> list[Row]:
    errors = run.result("interpolate", "change_error")
    method = own_method(run)
    if not isinstance(errors, Mapping) or method not in errors:
        return []
    own = ("interpolate", "change_error")
    others = [
        (name, word)
        for name, word in (
            ("voxel_linear", "voxel blend"),
            ("voxel_trajectory", "voxels on a line"),
            ("copy_nearest", "nearest copy"),
        )
        if name in errors
    ]
    return [
        _answer(
            "Is the change seen that a missing scan between two sessions would have shown? (change error)",
            cell(run, *own, method),
            interval_cell(run, "interpolate", "intervals", "change_error", method),
            Cell(
                "; ".join(f"{word} {fixed(errors[name])}" for name, word in others),
                tuple(pointer(RESULTS, *own, name) for name, _ in others),
            ),
            "0 is the true change, 1 is no better than copying the first session; smaller is better.",
        )
    ]


def what_was_run(run: RunFolder) -> Section:
    """Cohort, model, machine."""
    blocks: list[Block] = []
    if run.phantom:
        blocks.append(
            Text(
                "The cohort is a phantom: its scans were computed from the MNI152 template with known age, disease "
                "and anatomy, and none shows a person. The figures prove whether the method finds what is there to "
                "find; they say nothing about patients.",
                "note",
            )
        )
    blocks.append(Beside([_facts(run)], [_splits(run)]))
    return Section("run", "What was run on what", blocks)


def _facts(run: RunFolder) -> Table:
    plan = run.get("representation/stage.json", "plan") or {}
    manifest = run.get(PROVENANCE, "manifest") or {"path": run.result("request", "manifest")}
    versions = run.get(PROVENANCE, "versions") or {}
    fingerprint = manifest.get("sha256")
    seed_at = (PROVENANCE, "seed") if run.get(PROVENANCE, "seed") is not None else (RESULTS, "request", "seed")
    seed = run.get(*seed_at)
    device = run.result("device") or plan.get("device") or "not recorded"
    precision = run.result("precision") or plan.get("precision") or "not recorded"
    rows = [
        Row("Subjects", [cell(run, "n_subjects", form=_count)]),
        Row("Scans", [cell(run, "n_scans", form=_count)]),
        Row("Test subjects", [cell(run, "n_test_subjects", form=_count)]),
        Row("Cohort table", [_words(manifest.get("path"))]),
        Row("Table fingerprint", [_words(f"SHA-256 {fingerprint[:16]}" if fingerprint else None)]),
        Row("Model", [_words(_model(run))]),
        Row("Model fingerprint", [_words(str(run.result("model"))[:16] if run.result("model") else None)]),
        Row("Computed on", [_words(f"{device}; precision {precision}")]),
        Row("Seed", [Cell("not recorded") if seed is None else Cell(str(seed), (pointer(*seed_at),))]),
        Row("Time in all", [cell(run, "wall_seconds", form=duration)]),
        Row("Peak memory", [cell(run, "peak_memory_gib", form=lambda value: fixed(value, 1, " GiB"))]),
        Row("Versions", [_words(", ".join(f"{name} {each}" for name, each in versions.items()))]),
    ]
    return Table("The run", ("", "Recorded"), rows)


def _words(text: Any) -> Cell:
    return Cell(str(text) if text else "not recorded", prose=True)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else NOT_MEASURED


def _model(run: RunFolder) -> str | None:
    """The model in one line, from the resolved configuration."""
    config = run.config
    if not isinstance(config, Mapping):
        trained = run.result("request", "model")
        return f"trained before, in {trained}" if trained else None
    contract, sampling = config.get("preprocessing", {}), config.get("sampling", {})
    shape = " x ".join(str(n) for n in contract.get("shape", []))
    encoder = run.semantic_encoder
    parts = [f"{shape} voxels of {contract.get('voxel_size_mm')} mm"]
    if "semantic_width" in encoder:
        same = ", the same for a scan and its mirror image" if encoder.get("symmetric") else ""
        parts.append(f"semantic code of {encoder['semantic_width']} numbers{same}")
    parts.append(f"{sampling.get('steps')} steps of the solver {sampling.get('solver', 'ddim')}")
    return ", ".join(parts)


def _splits(run: RunFolder) -> Table | Absence:
    """Subjects and scans of each split, counted in the cohort table."""
    manifest = run.manifest
    if isinstance(manifest, Absence):
        return manifest
    records = manifest.records
    diagnoses = sorted({record.diagnosis for record in records if record.diagnosis is not None})
    rows = []
    for split in (*SPLITS, None):
        chosen = [record for record in records if record.split == split]
        if not chosen:
            continue
        ages = [record.age for record in chosen if record.age is not None]
        labels = [sum(record.diagnosis == name for record in chosen) for name in diagnoses]
        values = [
            str(len({record.participant_id for record in chosen})),
            str(len(chosen)),
            *(str(count) for count in labels),
            f"{min(ages):.0f} to {max(ages):.0f}" if ages else "unknown",
        ]
        rows.append(Row(split or "in no split", [Cell(value, (_table_source(manifest, split),)) for value in values]))
    columns = ("Split", "Subjects", "Scans", *(f"{name} scans" for name in diagnoses), "Age (years)")
    return Table("The cohort by split, frozen by subject before any label was used", columns, rows)


def _table_source(manifest: Manifest, split: str | None) -> str:
    return pointer(manifest.path.name, "split", split or "n/a")


def training(run: RunFolder) -> Section:
    """Losses of the three stages."""
    found = [run.losses(stage) for stage in STAGES]
    curves = [each for each in found if not isinstance(each, Absence)]
    absent = [each for each in found if isinstance(each, Absence)]
    blocks: list[Block] = []
    if curves:
        ends = [
            f"{curve.title}: {fixed(curve.train[1][0], 4)} to {fixed(curve.train[1][-1], 4)}"
            for curve in curves
            if curve.train[1]
        ]
        blocks.append(
            Picture(
                draw_loss_curves(curves),
                "image/svg+xml",
                "Training and validation loss by step for each stage. Training loss, first to last: " + "; ".join(ends),
                "Loss by step. Both curves should fall and level off; a validation curve that rises while the "
                "training curve falls means that the stage learns its training scans by heart. Losses of different "
                "stages are not comparable.",
            )
        )
    if len(absent) == len(STAGES) and run.result("request", "model"):
        model = run.result("request", "model")
        blocks.append(
            Absence(f"No stage was trained in this run: it used the model in {model}, whose logs are not here.")
        )
    else:
        blocks += absent
    rows = [_stage_row(run, stage) for stage in STAGES if run.get(f"{stage}/stage.json") is not None]
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
        blocks.append(Table("How each stage was trained", columns, rows))
    return Section("training", "Training", blocks)


def _stage_row(run: RunFolder, stage: str) -> Row:
    document = f"{stage}/stage.json"

    def get(*keys: str, form: Any) -> Cell:
        return cell(run, *keys, document=document, form=form)

    return Row(
        STAGES[stage],
        [
            get("plan", "trained", form=_count),
            get("steps", form=_count),
            get("plan", "batch_size", form=_count),
            get("seconds", form=duration),
            get("losses", "train/loss", form=lambda value: fixed(value, 4)),
            get("losses", "validation/loss", form=lambda value: fixed(value, 4)),
        ],
    )
