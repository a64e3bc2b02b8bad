"""`ldae plan`: memory and time of training and inference, before anything runs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ldae.cli.command import command
from ldae.cli.console import duration, progress_bar, say, table
from ldae.cli.options import Hardware, Positional

if TYPE_CHECKING:
    from ldae.training.plan import ExperimentPlan

STAGES = ("compression", "denoiser", "representation")


@command("plan")
def plan(
    config: Annotated[str, Positional()],
    hardware: Hardware,
    *,
    manifest: Path | None = None,
    stage: Literal["compression", "denoiser", "representation", "all"] = "all",
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
        measure: run a step of every stage on random scans instead of counting it.
        set: values to override, each as key.path=value.
        format: of what is printed.
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
            measure=measure,
            progress=lambda what: move(0, 0, what),
        )
    if format == "json":
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
    rows = []
    for plan in found.stages:
        times, size = [duration(plan.step_seconds), duration(plan.seconds)], f"{plan.trained / 1e6:.1f} M"
        rows.append([plan.stage, size, f"{plan.steps:,} x {plan.batch_size}", *times, f"{plan.memory_gib:.1f}"])
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
