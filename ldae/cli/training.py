"""`ldae plan`, `fit` and `config`: the cost of training, training, and its configurations."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ldae.base.launch import is_follower
from ldae.cli.command import command
from ldae.cli.console import duration, progress_bar, say, table
from ldae.cli.options import Count, Folder, Hardware, Positional

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder
    from ldae.data.manifest import Manifest
    from ldae.training.experiment import ExperimentConfig
    from ldae.training.plan import ExperimentPlan, Plan

__all__ = ["announce", "train"]

SIDES = ("train", "validation")
STAGES = ("compression", "denoiser", "representation")


@command("plan")
def plan(
    config: Annotated[str, Positional()],
    hardware: Hardware,
    *,
    manifest: Path | None = None,
    stage: Literal["compression", "denoiser", "representation", "all"] = "all",
    devices: Count = 1,
    gpu: Literal["4090", "a100", "h100", "h200"] | None = None,
    measure: bool = False,
    set: list[str] | None = None,
    format: Literal["table", "json"] = "table",
) -> int:
    """Estimate memory and time before anything runs.

    Of every stage, and of encoding and decoding one scan: from the operations of a step and this device's measured speed, and
    from the tensors that a step keeps.

    Args:
        config: YAML file, or a shipped name such as demo or paper.
        hardware: where networks would run.
        manifest: cohort table, TSV or CSV, whose scans count.
        stage: one stage only.
        devices: that share each batch.
        gpu: plan for this card, in bfloat16, from its stated speed, instead of a device of this machine.
        measure: run a step of every stage on random scans instead of counting it.
        set: values to override, each as key.path=value.
        format: of what is printed.

    Examples:
        ldae plan demo --manifest preprocessed/manifest.tsv
        ldae plan paper --gpu a100 --devices 8
    """
    from ldae.config import load_experiment
    from ldae.training.plan import plan_experiment

    with progress_bar("plan") as move:
        found = plan_experiment(
            load_experiment(config, set or []),
            None if manifest is None else count_scans(manifest),
            stages=STAGES if stage == "all" else (stage,),
            device=hardware.device,
            precision=hardware.precision,
            devices=devices,
            gpu=gpu,
            measure=measure,
            progress=lambda what: move(0, 0, what),
        )
    if format == "json":
        print(json.dumps(asdict(found), indent=2))
    else:
        show_plan(found)
    return 0


@command("fit", names={"start": "from"}, launches=True)
def fit(
    stage: Annotated[Literal["compression", "denoiser", "representation", "all"], Positional()],
    hardware: Hardware,
    *,
    config: str | None = None,
    manifest: Path,
    out: Folder,
    start: str | None = None,
    set: list[str] | None = None,
    force: bool = False,
    devices: Count = 1,
) -> int:
    """Train the stages up to one, or all and write the model folder.

    The same command again continues where a killed run stopped, and skips finished stages.

    Args:
        stage: the last stage to train: compression (stage 1, the autoencoder), denoiser (stage 2), representation (stage 3,
            semantic encoder and gradient estimator), or all, which also writes the model folder.
        hardware: where networks run.
        config: YAML file, or a shipped name such as demo or paper; fine_tune if --from is given alone.
        manifest: cohort table, TSV or CSV.
        out: run folder.
        start: model whose weights are taken as far as they fit: a folder, or the name of a model of this package. Networks and
            preprocessing are the model's where the configuration names none; --set changes single values.
        set: values to override, each as key.path=value, such as denoiser.optimisation.steps=500.
        force: train stages again that were started with other settings or another manifest.
        devices: GPUs of this machine that share every batch, or processes with --device cpu; for several machines start the
            command with torchrun instead.

    Examples:
        ldae fit all --config demo --manifest preprocessed/manifest.tsv --out runs/mine
        ldae fit all --from ldae-t1-3mm --manifest preprocessed/manifest.tsv --out runs/tuned
    """
    from ldae.errors import ConfigError
    from ldae.io.model_names import find_model

    if config is None and start is None:
        msg = "fit needs --config, the training to run, or --from, the model to fine-tune; 'ldae fit --help' explains both"
        raise ConfigError(msg)
    if start is not None:
        find_model(start)  # before the imports that take seconds

    from ldae.autoencoder import LatentDiffusionAutoencoder
    from ldae.config import load_experiment
    from ldae.data.manifest import read_manifest

    until = "representation" if stage == "all" else stage
    given = None
    if start is not None:
        given = start, LatentDiffusionAutoencoder.from_pretrained(start, device=hardware.device)
    experiment = load_experiment(config or "fine_tune", set or [], given and given[1].config)
    model = train(experiment, read_manifest(manifest), out, hardware, until=until, force=force, start=given)
    if model is not None:
        say(f"model: {model}", model=model)
    return 0


@command("config")
def config(name: Annotated[str, Positional()], *, set: list[str] | None = None) -> int:
    """Print what a configuration resolves to, defaults included.

    Args:
        name: YAML file, or a shipped configuration: demo, quick, paper, demo/compression, and so on.
        set: values to override, each as key.path=value.

    Examples:
        ldae config demo
        ldae config demo --set seed=1 denoiser.optimisation.steps=500
    """
    import yaml

    from ldae.config import load_experiment
    from ldae.io.plain import to_plain

    say(yaml.safe_dump(to_plain(load_experiment(name, set or [])), sort_keys=False).rstrip())
    return 0


def train(
    experiment: "ExperimentConfig",
    manifest: "Manifest",
    out: Path,
    hardware: Hardware,
    *,
    until: str = "representation",
    force: bool = False,
    start: "tuple[str, LatentDiffusionAutoencoder] | None" = None,
) -> Path | None:
    """Train up to a stage, with progress bars; the model folder, saved once all stages are done.

    `start` is the name of a model, and the model, whose weights are taken as far as they fit.
    """
    from ldae.training.experiment import Experiment
    from ldae.training.fit import FitSettings

    with progress_bar("train") as move:

        def step(stage: str, done: int, total: int, losses: dict[str, float]) -> None:
            move(done, total, f"{stage} " + " ".join(f"{name} {value:.4f}" for name, value in losses.items()))

        settings = FitSettings(
            run=out,
            device=hardware.device,
            precision=hardware.precision,
            progress=step,
            announce=lambda plan: announce(plan, len(manifest.in_split("train"))),
            finished=lambda stage, record: say(
                f"{stage}: done already ({record.steps:,} steps in {duration(record.seconds)})"
            ),
            force=force,
            preparing=lambda what, done, total: move(done, total, what),
        )
        run = Experiment(experiment, manifest, settings, None if start is None else start[1])
        if start is not None:
            listed = out / "warm_start.json"
            say(f"weights of {start[0]}: {run.taken} ({listed})", warm_start=listed)
        records = run.fit(until)
    rows = []
    for name, record in records.items():
        known = [record.losses.get(f"{side}/loss") for side in SIDES]
        losses = ["none" if loss is None else f"{loss:.4f}" for loss in known]  # components are fitted, without a loss
        rows.append([name, str(record.steps), f"{record.seconds:.0f}", *losses])
    table("trained", ["stage", "steps", "seconds", "training loss", "validation loss"], rows)
    if until != "representation" or is_follower():
        return None
    used = {name: manifest.in_split(name) for name in SIDES}
    facts = {
        **{f"{name} scans": f"{len(each)} of {len(each.subjects)} subjects" for name, each in used.items()},
        "manifest": f"{manifest.sha256[:12]}, {len(manifest)} scans of {len(manifest.subjects)} subjects in all splits",
        **{f"{name} steps": str(record.steps) for name, record in records.items()},
        "seed": str(experiment.seed),
        **({} if start is None else {"started from": f"{start[0]} ({start[1].fingerprint()[:12]}): {run.taken}"}),
    }
    return run.model().save_pretrained(out / "model", facts=facts)


def announce(plan: "Plan", scans: int) -> None:
    """Print what a stage will do; one that also learns from mirror images counts twice the scans of the training split."""
    training = f"{scans} training scans and their mirror images, and" if plan.train_scans == 2 * scans else ""
    say(
        f"{plan.stage}: {plan.trained:,} parameters to train ({plan.frozen:,} frozen), "
        f"{training or f'{plan.train_scans} training and'} {plan.validation_scans} validation scans, {plan.steps} batches of "
        f"{plan.batch_size}, {plan.device} {plan.precision}; about {duration(plan.seconds)} and {plan.memory_gib:.1f} GiB"
    )


def count_scans(path: Path) -> tuple[int, int]:
    """Scans to train and to validate on in a manifest.

    Raises:
        TrainingError: if a split is empty.
    """
    from ldae.data.manifest import read_manifest
    from ldae.errors import TrainingError

    manifest = read_manifest(path, check_images=False)
    train, validation = (len(manifest.in_split(name).records) for name in ("train", "validation"))
    if not train or not validation:
        msg = f"{path}: {train} scans to train and {validation} to validate; run 'ldae cohort split' first"
        raise TrainingError(msg)
    return train, validation


def show_plan(found: "ExperimentPlan") -> None:
    """Print tables and notes."""
    from ldae.training.cost import EFFICIENCY

    rows = []
    for plan in found.stages:
        times, size = [duration(plan.step_seconds), duration(plan.seconds)], f"{plan.trained / 1e6:.1f} M"
        rows.append(
            [
                plan.stage,
                size,
                f"{plan.steps:,} x {plan.batch_size}",
                str(plan.at_once),
                *times,
                f"{plan.memory_gib:.1f}",
            ]
        )
    if rows:
        how = "measured" if found.stages[0].measured else "estimated"
        where = f"{found.stages[0].device}, {found.stages[0].precision}, {how}"
        table(f"training ({where})", ["stage", "weights", "batches", "at once", "a step", "in all", "GiB"], rows)
    if rows and (fits := {plan.stage: plan.fits for plan in found.stages if plan.fits}):
        sizes = next(iter(fits.values()))
        counts = [[stage, *map(str, each.values())] for stage, each in fits.items()]
        table("scans that fit at once", ["stage", *(f"{size} GB" for size in sizes)], counts)
        say(
            f"the card is assumed to reach {EFFICIENCY:.0%} of its stated speed; talk between devices takes no time here"
        )
    if found.preparation_seconds is not None:
        say(f"encoding the cohort between stages 1 and 2: {duration(found.preparation_seconds)}")
    table(
        f"one scan ({found.parameters / 1e6:.1f} M weights, estimated)",
        ["", "time", "GiB"],
        [
            ["encode", duration(found.encode_seconds), f"{found.encode_gib:.1f}"],
            ["decode", duration(found.decode_seconds), f"{found.decode_gib:.1f}"],
        ],
    )
    say("GiB is the expected peak memory; time in all is for a device as busy as it is now")
    say("the tasks and the report that 'ldae demo' and 'ldae study' add to training are not included")
    for note in found.notes:
        say(f"note: {note}")
