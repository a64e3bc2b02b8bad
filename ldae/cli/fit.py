"""`ldae fit`: train one stage, or all."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_hardware, add_manifest, add_out
from ldae.cli.console import duration, progress_bar, say, table

if TYPE_CHECKING:
    from ldae.training.plan import Plan

__all__ = ["announce", "fit_experiment", "register"]

SIDES = ("train", "validation")
HELP = {
    "compression": "stage 1: the compression autoencoder",
    "denoiser": "stage 2: the denoiser (and stage 1 if need be)",
    "representation": "stage 3: the semantic encoder (and stages 1 and 2 if need be)",
    "all": "all three stages, then the model folder",
}


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command group."""
    group = Parser(
        description="Train. The same command again goes on where a killed run stopped, and skips what is done."
    )
    commands.add_subcommand("fit", group, help="train the stages")
    stages = group.add_subcommands(required=True, dest="subcommand")
    for stage, text in HELP.items():
        parser = Parser(description=f"Train {text}.")
        parser.add_argument("--config", type=str, required=True, help="YAML file or shipped name: demo, paper")
        add_manifest(parser)
        add_out(parser, "run folder")
        parser.add_argument(
            "--set",
            type=str,
            nargs="+",
            default=[],
            help="override, as key.path=value, e.g. denoiser.optimisation.steps=500",
        )
        add_hardware(parser)
        stages.add_subcommand(stage, parser, help=text)
        runs["fit", stage] = partial(fit, stage)


def fit(stage: str, options: Namespace) -> int:
    """Train up to the stage asked for."""
    from ldae.config import load_experiment
    from ldae.data.manifest import read_manifest

    experiment = load_experiment(options.config, options.set)
    manifest = read_manifest(options.manifest)
    model = fit_experiment(experiment, manifest, options, until="representation" if stage == "all" else stage)
    if model is not None:
        say(f"model: {model}")
    return 0


def fit_experiment(experiment: Any, manifest: Any, options: Namespace, *, until: str = "representation") -> Path | None:
    """Train with progress bars; save the model folder once all stages are done.

    Args:
        experiment: the configuration.
        manifest: the cohort.
        options: with `out`, `device`, `precision`.
        until: last stage.

    Returns:
        The model folder, if the last stage was trained.
    """
    from ldae.training.experiment import Experiment
    from ldae.training.fit import FitSettings

    with progress_bar("train") as move:

        def step(stage: str, done: int, total: int, losses: dict[str, float]) -> None:
            move(done, total, f"{stage} " + " ".join(f"{name} {value:.4f}" for name, value in losses.items()))

        settings = FitSettings(
            run=options.out,
            device=options.device,
            precision=options.precision,
            progress=step,
            announce=lambda plan: announce(plan, len(manifest.in_split("train"))),
            finished=lambda stage, record: say(
                f"{stage}: done already ({record.steps:,} steps in {duration(record.seconds)})"
            ),
            preparing=lambda what, done, total: move(done, total, what),
        )
        run = Experiment(experiment, manifest, settings)
        records = run.fit(until)
    table(
        "trained",
        ["stage", "steps", "seconds", "training loss", "validation loss"],
        [
            [
                name,
                str(r.steps),
                f"{r.seconds:.0f}",
                *(f"{r.losses.get(f'{side}/loss', float('nan')):.4f}" for side in SIDES),
            ]
            for name, r in records.items()
        ],
    )
    if until != "representation":
        return None
    used = {name: manifest.in_split(name) for name in ("train", "validation")}
    facts = {
        **{f"{name} scans": f"{len(each)} of {len(each.subjects)} subjects" for name, each in used.items()},
        "manifest": f"{manifest.sha256[:12]}, {len(manifest)} scans of {len(manifest.subjects)} subjects in all splits",
        **{f"{name} steps": str(record.steps) for name, record in records.items()},
        "seed": str(experiment.seed),
    }
    return run.model().save_pretrained(options.out / "model", facts=facts)


def announce(plan: "Plan", scans: int) -> None:
    """Print what a stage will do before it trains.

    Args:
        plan: of the stage.
        scans: of the training split; stages that learn from mirror images too count twice as many.
    """
    training = f"{scans} training scans and their mirror images, and" if plan.train_scans == 2 * scans else ""
    say(
        f"{plan.stage}: {plan.trained:,} parameters to train ({plan.frozen:,} frozen), "
        f"{training or f'{plan.train_scans} training and'} {plan.validation_scans} validation scans, {plan.steps} batches of "
        f"{plan.batch_size}, {plan.device} {plan.precision}; about {duration(plan.seconds)} and {plan.memory_gib:.1f} GiB"
    )
