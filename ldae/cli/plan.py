"""`ldae plan`: memory and time of training and inference, before anything runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_hardware, add_manifest
from ldae.cli.console import duration, progress_bar, say, table

if TYPE_CHECKING:
    from ldae.training.plan import ExperimentPlan

__all__ = ["duration", "register"]

STAGES = ("compression", "denoiser", "representation")


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    parser = Parser(
        description="Estimate memory and time of every stage, and of encoding and decoding one scan, before anything is "
        "trained: the operations of a step over this device's measured speed, and the tensors that a step keeps."
    )
    parser.add_argument("config", type=str, help="YAML file or shipped name: demo, paper")
    add_manifest(parser, required=False)
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all", help="plan one stage only")
    parser.add_argument("--set", type=str, nargs="+", default=[], help="override values, each as key.path=value")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="of what is printed")
    parser.add_argument(
        "--measure", action="store_true", help="run a step of every stage on random scans instead of counting it"
    )
    add_hardware(parser)
    commands.add_subcommand("plan", parser, help="estimate memory and time before anything runs")
    runs["plan",] = plan


def plan(options: Namespace) -> int:
    """Print the plan of an experiment."""
    import json
    from dataclasses import asdict

    from ldae.config import load_experiment
    from ldae.training.plan import plan_experiment

    with progress_bar("plan") as move:
        found = plan_experiment(
            load_experiment(options.config, options.set),
            None if options.manifest is None else count_scans(options.manifest),
            stages=STAGES if options.stage == "all" else (options.stage,),
            device=options.device,
            precision=options.precision,
            measure=options.measure,
            progress=lambda what: move(0, 0, what),
        )
    if options.format == "json":
        print(json.dumps(asdict(found), indent=2))
    else:
        show(found)
    return 0


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


def show(found: "ExperimentPlan") -> None:
    """Print tables and notes."""
    rows = [
        [
            plan.stage,
            f"{plan.trained / 1e6:.1f} M",
            f"{plan.steps:,} x {plan.batch_size}",
            duration(plan.step_seconds),
            duration(plan.seconds),
            f"{plan.memory_gib:.1f}",
        ]
        for plan in found.stages
    ]
    if rows:
        how = "measured" if found.stages[0].measured else "estimated"
        where = f"{found.stages[0].device}, {found.stages[0].precision}, {how}"
        table(f"training ({where})", ["stage", "weights", "batches", "a step", "in all", "GiB"], rows)
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
