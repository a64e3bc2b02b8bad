"""`ldae demo`: the whole method on a phantom cohort; `ldae study`: every task with a model that is there."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_hardware, add_manifest, add_model, add_out, add_seed, folder, load_model
from ldae.cli.console import progress_bar, say
from ldae.cli.options import Hardware
from ldae.cli.training import train

__all__ = ["register"]

SUBJECTS = 600
"""With fewer to learn from, codes describe the training subjects and little else."""
SESSIONS = 3
QUICK_SUBJECTS = 24


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the commands."""
    demo = Parser(
        description="Make a phantom cohort, train the three stages, run every task on held-out subjects and write a report. "
        "The same command again goes on where a killed run stopped."
    )
    demo.add_argument("--out", type=folder, default=Path("runs/demo"), help="run folder")
    demo.add_argument(
        "--quick", action="store_true", help="a toy size, to see that everything works; its figures mean nothing"
    )
    demo.add_argument(
        "--subjects", type=int, default=None, help=f"phantom subjects; {SUBJECTS}, or {QUICK_SUBJECTS} with --quick"
    )
    add_seed(demo)
    add_hardware(demo)
    commands.add_subcommand("demo", demo, help="the whole method on a phantom cohort, in minutes")
    runs["demo",] = run_demo

    study = Parser(
        description="Run every task with a trained model on the test subjects of a manifest, and write a report."
    )
    add_model(study)
    add_manifest(study)
    study.add_argument(
        "--baseline", type=str, nargs="+", default=[], help="NAME=TABLE of other embeddings of the same scans"
    )
    study.add_argument(
        "--effect",
        type=Path,
        default=None,
        help="volume in MNI152 space of what the disease is known to change, to hold the edits against",
    )
    add_out(study, "run folder")
    add_seed(study)
    add_hardware(study)
    commands.add_subcommand("study", study, help="every task on held-out subjects, with a report")
    runs["study",] = run_study_command


def run_demo(options: Namespace) -> int:
    """From nothing to the report."""
    from ldae.config import load_experiment
    from ldae.data.manifest import read_manifest
    from ldae.data.splits import assign_splits
    from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
    from ldae.report import write_report
    from ldae.volume import read_volume

    out: Path = options.out
    results = out / "results.json"
    request = {
        "quick": options.quick,
        "subjects": options.subjects or (QUICK_SUBJECTS if options.quick else SUBJECTS),
        "seed": options.seed,
    }
    if results.is_file() and _request(out) == request:
        say(f"all done already; report: {write_report(out)}")
        return 0
    clock = Clock(out, request)
    experiment = load_experiment("quick" if options.quick else "demo", [f"seed={options.seed}"])
    with progress_bar("phantoms") as move:
        path = synthesise_cohort(
            out / "cohort",
            PhantomConfig(
                n_subjects=request["subjects"],
                voxel_size_mm=experiment.preprocessing.voxel_size_mm,
                max_sessions=SESSIONS,
                seed=options.seed,
            ),
            workers=2,
            progress=move,
        )
    split = out / "manifest.tsv"
    if not split.is_file():
        # So few subjects as the quick run has need a larger share to ask anything of.
        fractions = (0.6, 0.1, 0.3) if options.quick else (0.7, 0.1, 0.2)
        assign_splits(read_manifest(path), fractions=fractions, seed=options.seed).write(split)
    manifest = read_manifest(split)
    say(f"cohort: {len(manifest)} scans of {len(manifest.subjects)} subjects")
    # However a session ends, killed ones apart, its time counts.
    try:
        model = train(experiment, manifest, out, Hardware(device=options.device, precision=options.precision))
    finally:
        clock.save()
    assert model is not None
    truth = {"true_volumes": _true_volumes(out / "cohort" / "phantom_truth.tsv")}
    _study(options, model, split, truth, clock, read_volume(out / "cohort" / "phantom_effect.nii.gz"))
    return 0


def run_study_command(options: Namespace) -> int:
    """Every task with a model that is there."""
    from ldae.cli.probe import read_named
    from ldae.volume import read_volume

    request = {"model": str(options.model), "manifest": str(options.manifest), "seed": options.seed}
    clock = Clock(options.out, request | ({"sampling": options.sampling} if options.sampling else {}))
    effect = None if options.effect is None else read_volume(options.effect)
    _study(options, options.model, options.manifest, read_named(options.baseline), clock, effect)
    return 0


def _study(
    options: Namespace,
    model_folder: Path,
    manifest_path: Path,
    baselines: dict[str, Any],
    clock: "Clock",
    effect: Any,
) -> None:
    from ldae.data.manifest import read_manifest
    from ldae.hardware import peak_memory_gib
    from ldae.io.files import write_json
    from ldae.report import write_report
    from ldae.tasks.study import run_study

    model = load_model(options, model_folder)
    with progress_bar("study") as move:
        results = run_study(
            model,
            read_manifest(manifest_path),
            options.out,
            baselines=baselines,
            effect=effect,
            seed=options.seed,
            progress=lambda what, done, total: move(done, total, what),
        )
    measured = {
        "wall_seconds": clock.save(),
        "peak_memory_gib": max(peak_memory_gib(), clock.peak_gib),
        "device": str(model.device),
        "precision": str(model.dtype).removeprefix("torch."),
        "model": model.fingerprint(),
        "request": clock.request,
    }
    write_json(options.out / "results.json", {**measured, **results})
    report = write_report(options.out)
    for task, reason in results["skipped"].items():
        say(f"left out {task}: {reason}")
    say(f"results: {options.out / 'results.json'}\nmodel: {model_folder}\nreport: {report}")
    if clock.request.get("quick"):
        say("a toy size, whose figures mean nothing:")
    for line in key_figures(results):
        say(line)


def key_figures(results: Mapping[str, Any]) -> list[str]:
    """The first figures of each task that was run, a line each."""
    lines = []
    probes = results.get("probe", {})
    for name, figure, words in (("diagnosis", "auc", "diagnosis, AUC"), ("age", "mae", "age, mean error in years")):
        if name in probes:
            own, baselines = probes[name][figure], probes[name]["baselines"]
            beside = [
                f"{word} {baselines[name]:.3f}"
                for name, word in (
                    ("random_encoder", "random encoder"),
                    ("latent_pca", "components of the latents"),
                    ("latent_pca_symmetric", "of both sides"),
                )
                if name in baselines
            ]
            lines.append("; ".join([f"{words}: {own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}]", *beside]))
    if "reconstruct" in results:
        both, ceiling = results["reconstruct"]["ssim"], results["compression"]["ssim"]
        lines.append(f"reconstruction, SSIM: {both:.3f}; ceiling {ceiling:.3f}")
    if "interpolate" in results:
        errors = results["interpolate"]["change_error"]
        own = errors[results["interpolate"]["own"]]
        beside = [
            f"{word} {errors[name]:.3f}"
            for name, word in (
                ("voxel_trajectory", "voxels on the same line"),
                ("voxel_linear", "voxel blend"),
                ("copy_nearest", "nearest copy"),
            )
            if name in errors
        ]
        lines.append("; ".join([f"missing session, change error: {own:.3f}", *beside]))
    return lines


def _true_volumes(path: Path) -> Any:
    """The phantom's true volumes as embeddings: the best that any code could know of them."""
    import pandas as pd

    from ldae.tasks.probe.embeddings import Embeddings

    truth = pd.read_csv(path, sep="\t", dtype={"participant_id": str, "session_id": str})
    volumes = truth[[name for name in truth.columns if name.endswith("_ml")]]
    return Embeddings(truth[["participant_id", "session_id"]], volumes.to_numpy(dtype=float))


def _request(out: Path) -> dict[str, Any] | None:
    """What a finished run in this folder was asked for."""
    plain = json.loads((out / "results.json").read_text(encoding="utf-8"))
    request: dict[str, Any] | None = plain.get("request")
    return request


class Clock:
    """Seconds and peak memory of a run over all its sessions.

    Args:
        out: the run folder.
        request: what the run was asked for; a folder started for another request is refused.

    Raises:
        TaskError: if the folder belongs to another request.
    """

    def __init__(self, out: Path, request: dict[str, Any]) -> None:
        from ldae.errors import TaskError

        self.path = out / "clock.json"
        self.request = request
        self.before, self.peak_gib = 0.0, 0.0
        if self.path.is_file():
            former = json.loads(self.path.read_text(encoding="utf-8"))
            if former["request"] != request:
                msg = f"{out} holds a run that was asked for {former['request']}, now asked for {request}; give another --out"
                raise TaskError(msg)
            self.before, self.peak_gib = former["seconds"], former["peak_gib"]
        self.start = time.perf_counter()

    def save(self) -> float:
        """Write the seconds so far, and return them."""
        from ldae.hardware import peak_memory_gib
        from ldae.io.files import write_json

        seconds = self.before + time.perf_counter() - self.start
        self.peak_gib = max(self.peak_gib, peak_memory_gib())
        write_json(self.path, {"request": self.request, "seconds": seconds, "peak_gib": self.peak_gib})
        return seconds
