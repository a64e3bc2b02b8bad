"""`ldae demo`: the whole method on a phantom cohort; `ldae study`: every task with a trained model."""

import time
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ldae.base.launch import is_follower
from ldae.base.ranges import Range
from ldae.cli.command import command
from ldae.cli.console import duration, progress_bar, say, table
from ldae.cli.options import Count, Folder, Hardware, Manifest, Model, Seed
from ldae.cli.training import train

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder
    from ldae.tasks.probe.embeddings import Embeddings
    from ldae.tasks.study.clock import Clock
    from ldae.volume import Volume

# With fewer subjects to learn from, codes describe the training subjects and little else.
SUBJECTS, QUICK_SUBJECTS = 600, 24
PRETRAINED_SUBJECTS = 120
# Missing visits are predicted for those who have three; the others' single scans take half of the time.
SESSIONS, SINGLE_SESSION = 3, 0.6
SHARES = {"phantoms": 0.22, "training": 0.36, "study": 0.42}
"""Of the demo's time."""
PACE_SECONDS = 30.0
"""A part that took less tells nothing of the pace of the others."""


@command("demo")
def demo(
    hardware: Hardware,
    *,
    out: Folder = Path("runs/demo"),
    quick: bool = False,
    pretrained: bool = False,
    subjects: Annotated[int | None, Range(1)] = None,
    force: bool = False,
    seed: Seed = 0,
) -> int:
    """Run the whole method on a phantom cohort, in minutes.

    Makes a phantom cohort, trains the three stages, runs every task on held-out subjects and writes a report. The same
    command again continues where a killed run stopped.

    Args:
        hardware: where networks run.
        out: run folder.
        quick: a toy size, to see that everything works; its values mean nothing.
        pretrained: no training: the tasks with the model of this package.
        subjects: phantom subjects; 600 if not given, 24 with --quick, 120 with --pretrained.
        force: replace a run of other options.
        seed: of everything drawn.

    Examples:
        ldae demo
        ldae demo --quick --out runs/quick
    """
    from ldae.base.files import own_json
    from ldae.config import load_experiment
    from ldae.data.manifest import read_manifest
    from ldae.data.splits import assign_splits
    from ldae.errors import ConfigError
    from ldae.io.model_names import DEFAULT_MODEL, find_model
    from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
    from ldae.phantom.population import PopulationConfig
    from ldae.report import write_report
    from ldae.tasks.study.clock import Clock
    from ldae.volume import read_volume

    if quick and pretrained:
        msg = "--quick trains a toy, --pretrained trains nothing; give one of the two"
        raise ConfigError(msg)
    count = subjects or (QUICK_SUBJECTS if quick else PRETRAINED_SUBJECTS if pretrained else SUBJECTS)
    request = {"quick": quick, "subjects": count, "seed": seed} | ({"model": DEFAULT_MODEL} if pretrained else {})
    results = out / "results.json"
    if results.is_file() and own_json(results).get("request") == request:
        page = write_report(out)
        say(f"all done already; report: {page}", report=page)
        return 0
    clock = Clock(out, request, force=force)
    experiment = load_experiment("quick" if quick else "demo", [f"seed={seed}"])
    voxel_size = experiment.preprocessing.voxel_size_mm
    phantoms = PhantomConfig(
        n_subjects=count,
        voxel_size_mm=voxel_size,
        max_sessions=SESSIONS,
        seed=seed,
        population=PopulationConfig() if quick else PopulationConfig(single_session=SINGLE_SESSION),
    )
    began = time.monotonic()
    with progress_bar("phantoms") as move:
        path = synthesise_cohort(out / "cohort", phantoms, workers=2, force=force, progress=move)
    split = out / "manifest.tsv"
    if force or not split.is_file():
        # With so few subjects, a larger share is needed to test on.
        fractions = (0.6, 0.1, 0.3) if quick else (0.7, 0.1, 0.2)
        assign_splits(read_manifest(path), fractions=fractions, seed=seed).write(split)
    manifest = read_manifest(split)
    say(f"cohort: {len(manifest)} scans of {len(manifest.subjects)} subjects")
    if pretrained:
        folder: Path | None = find_model(DEFAULT_MODEL)
    else:
        _say_left("phantoms", began)
        # However a session ends, killed ones apart, its time counts.
        began = time.monotonic()
        try:
            folder = train(experiment, manifest, out, hardware, force=force)
        finally:
            clock.save()
        _say_left("training", began)
    assert folder is not None
    model = Model(model=str(folder), device=hardware.device, precision=hardware.precision).loaded
    truth = {"true_volumes": _true_volumes(out / "cohort" / "phantom_truth.tsv")}
    run(model, folder, split, clock, baselines=truth, effect=read_volume(out / "cohort" / "phantom_effect.nii.gz"))
    return 0


@command("study", launches=True)
def study(
    manifest: Manifest,
    model: Model,
    *,
    out: Folder,
    baseline: list[str] | None = None,
    effect: Path | None = None,
    force: bool = False,
    seed: Seed = 0,
    devices: Count = 1,
) -> int:
    """Run every task on held-out subjects, with a report.

    Args:
        manifest: cohort table with a frozen split, TSV or CSV.
        model: to evaluate.
        out: run folder.
        baseline: NAME=TABLE of other embeddings of the same scans.
        effect: volume in MNI152 space of the known effect of the disease, to compare the edits with.
        force: replace the results of a run of other options.
        seed: of everything drawn.
        devices: GPUs of this machine that share the encoding and the noise codes, or processes with --device cpu.

    Examples:
        ldae study preprocessed/manifest.tsv --model runs/mine/model --out runs/mine
    """
    from ldae.io.model_names import find_model
    from ldae.tasks.probe.embeddings import read_named
    from ldae.tasks.study.clock import Clock
    from ldae.volume import read_volume

    request = {"model": model.model, "manifest": str(manifest), "seed": seed}
    clock = Clock(out, request | ({"sampling": model.sampling} if model.sampling else {}), force=force)
    known = None if effect is None else read_volume(effect)
    run(model.loaded, find_model(model.model), manifest, clock, baselines=read_named(baseline or []), effect=known)
    return 0


def run(
    model: "LatentDiffusionAutoencoder",
    folder: Path,
    manifest: Path,
    clock: "Clock",
    *,
    baselines: "dict[str, Embeddings]",
    effect: "Volume | None",
) -> None:
    """Run every task with a model of a folder, write results and report, and print the key metrics."""
    from ldae.base.files import write_json
    from ldae.base.hardware import peak_memory_gib
    from ldae.data.manifest import read_manifest
    from ldae.report import write_report
    from ldae.report.run_folder import open_run
    from ldae.report.sections.overview import key_rows
    from ldae.tasks.study.run import PARTS, run_study

    out = clock.out
    before = dict(zip(PARTS, accumulate(PARTS.values(), initial=0), strict=False))
    try:
        with progress_bar("study, percent") as move:
            results = run_study(
                model,
                read_manifest(manifest),
                out,
                baselines=baselines,
                effect=effect,
                seed=clock.request["seed"],
                progress=lambda part, done, total: move(
                    before[part] + PARTS[part] * done / max(total, 1), 100, f"{part} {done} of {total}"
                ),
            )
    finally:
        if not is_follower():
            clock.save()
    if is_follower():
        return
    measured = {
        "wall_seconds": clock.save(),
        "peak_memory_gib": max(peak_memory_gib(), clock.peak_gib),
        "device": str(model.device),
        "precision": str(model.dtype).removeprefix("torch."),
        "model": model.fingerprint(),
        "request": clock.request,
    }
    path = write_json(out / "results.json", {**measured, **results})
    report = write_report(out)
    for task, reason in results["skipped"].items():
        say(f"left out {task}: {reason}")
    for name, made in {"results": path, "model": folder, "report": report}.items():
        say(f"{name}: {made}", **{name: made})
    toy = " of a toy size, which mean nothing" if clock.request.get("quick") else ""
    rows = [[row.name, *(cell.text for cell in row.cells[:3])] for row in key_rows(open_run(out))]
    table(f"key metrics on the test subjects{toy}", ["metric", "value", "95 % interval", "reference"], rows)


def _say_left(part: str, began: float) -> None:
    """How long the rest of the demo takes, at the pace of a part that has just ended, unless it was done before."""
    seconds = time.monotonic() - began
    later = list(SHARES.values())[list(SHARES).index(part) + 1 :]
    if seconds > PACE_SECONDS:
        say(f"{part} done; about {duration(sum(later) / SHARES[part] * seconds)} left of the whole run")


def _true_volumes(path: Path) -> "Embeddings":
    """The phantom's true volumes as embeddings: an upper bound for any code of them."""
    import pandas as pd

    from ldae.tasks.probe.embeddings import Embeddings

    truth = pd.read_csv(path, sep="\t", dtype={"participant_id": str, "session_id": str})
    volumes = truth[[name for name in truth.columns if name.endswith("_ml")]]
    return Embeddings(truth[["participant_id", "session_id"]], volumes.to_numpy(dtype=float))
