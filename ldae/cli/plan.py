"""`ldae plan`: memory and time of training and inference, before anything runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_hardware, add_manifest
from ldae.cli.console import duration, progress_bar, say, table

if TYPE_CHECKING:
    from ldae.training.forecast import Forecast, ScanCounts

__all__ = ["duration", "register"]

STAGES = ("compression", "denoiser", "representation")


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    parser = Parser(
        description="Tell memory and time of every stage, and of encoding and decoding one scan, before anything is trained. "
        "Steps are rehearsed with random weights on random scans; what does not fit this machine is extrapolated."
    )
    parser.add_argument("config", type=str, help="YAML file or shipped name: demo, paper")
    add_manifest(parser, required=False)
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all", help="plan one stage only")
    parser.add_argument("--set", type=str, nargs="+", default=[], help="override values, each as key.path=value")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="of what is printed")
    parser.add_argument(
        "--memory", type=float, default=None, help="GiB that a rehearsal may use; what is free, if not given"
    )
    add_hardware(parser)
    commands.add_subcommand("plan", parser, help="tell memory and time before anything runs")
    runs["plan",] = plan


def plan(options: Namespace) -> int:
    """Print a forecast."""
    import json
    from dataclasses import asdict

    from ldae.config import load_experiment
    from ldae.training.forecast import forecast
    from ldae.training.rehearsal import Limits

    experiment = load_experiment(options.config, options.set)
    counts = None if options.manifest is None else count_scans(options.manifest)
    stages = STAGES if options.stage == "all" else (options.stage,)
    with progress_bar("rehearse") as move:
        told = forecast(
            experiment,
            counts,
            stages=stages,
            device=options.device,
            precision=options.precision,
            limits=Limits(memory_gib=options.memory),
            progress=lambda what: move(0, 0, what),
        )
    if options.format == "json":
        print(json.dumps(asdict(told), indent=2))
    else:
        show(told)
    return 0


def count_scans(path: Path) -> "ScanCounts":
    """Scans in the splits of a manifest.

    Raises:
        TrainingError: if a split is empty.
    """
    from ldae.data.manifest import read_manifest
    from ldae.errors import TrainingError
    from ldae.training.forecast import ScanCounts

    manifest = read_manifest(path, check_images=False)
    counts = ScanCounts(*(len(manifest.in_split(name).records) for name in ("train", "validation")))
    if not counts.train or not counts.validation:
        msg = (
            f"{path}: {counts.train} scans to train and {counts.validation} to validate; run 'ldae cohort split' first"
        )
        raise TrainingError(msg)
    return counts


def show(told: "Forecast") -> None:
    """Tables and notes."""
    rows = [
        [
            plan.stage,
            f"{plan.trained / 1e6:.1f} M",
            f"{plan.steps:,} x {plan.batch_size}",
            duration(plan.step_seconds),
            duration(plan.seconds),
            f"{plan.memory_gib:.1f}",
            "all of it" if plan.measured >= 1 else f"1/{1 / plan.measured:.0f} of it",
        ]
        for plan in told.stages
    ]
    if rows:
        where = f"{told.stages[0].device}, {told.stages[0].precision}"
        columns = ["stage", "weights", "batches", "a step", "in all", "GiB", "known from"]
        table(f"training ({where})", columns, rows)
    if told.preparation_seconds is not None:
        say(f"encoding the cohort between stages 1 and 2: {duration(told.preparation_seconds)}")
    one = told.inference
    how = f"{one.measured_steps} of {one.steps} steps"
    table(
        f"one scan ({one.parameters / 1e6:.1f} M weights)",
        ["", "time", "GiB", "known from"],
        [
            ["encode", duration(one.encode_seconds), f"{one.encode_gib:.1f}", how],
            ["decode", duration(one.decode_seconds), f"{one.decode_gib:.1f}", how],
        ],
    )
    say("GiB is the expected peak; a step is known from running all of it, or a part")
    say("time in all is the step's, times the steps, with validations; it is for the machine as busy as it is now")
    say(
        "training alone: the tasks and the report that 'ldae demo' and 'ldae study' add are not in it; their peak is higher"
    )
    for note in told.notes:
        say(f"note: {note}")
