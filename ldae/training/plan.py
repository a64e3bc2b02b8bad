"""What a stage will cost, told before it trains."""

import time
from dataclasses import dataclass

import torch

from ldae.data.datamodule import StageDataModule
from ldae.training.rehearsal import Limits, rehearse
from ldae.training.stage import Stage

__all__ = ["Plan", "plan_stage"]


@dataclass(frozen=True)
class Plan:
    """What a stage will do.

    Attributes:
        stage: its name.
        trained: parameters that learn.
        frozen: parameters that are used as they are.
        train_scans: scans in the training split; 0 where they are not known.
        validation_scans: scans in the validation split.
        steps: batches still to train.
        batch_size: scans a batch.
        device: where.
        precision: of matrix work.
        step_seconds: expected, of one step with reading its batch.
        seconds: expected, of all steps and validations.
        memory_gib: expected peak of the process on a CPU, of what is allocated on a GPU.
        measured: share of a batch that was run to know; 1 is all of it, less means that the rest is extrapolated.
    """

    stage: str
    trained: int
    frozen: int
    train_scans: int
    validation_scans: int
    steps: int
    batch_size: int
    device: str
    precision: str
    step_seconds: float
    seconds: float
    memory_gib: float
    measured: float


def plan_stage(
    name: str,
    stage: Stage,
    data: StageDataModule,
    *,
    device: torch.device,
    dtype: torch.dtype,
    limits: Limits | None = None,
) -> Plan:
    """Rehearse a step on the first batch; nothing is learnt from it.

    Args:
        name: of the stage.
        stage: to be trained; it is moved to the device.
        data: its batches.
        device: where it will run.
        dtype: of matrix work.
        limits: how far the rehearsal goes.
    """
    # Workers read while the network computes, and would take longer to start than two batches to read.
    workers, data.workers = data.workers, 0
    batches = iter(data.train_dataloader())
    batch = next(batches)
    start = time.perf_counter()
    next(batches, None)
    reading = 0.0 if workers else time.perf_counter() - start
    data.workers = workers
    cost = rehearse(stage, batch, device=device, dtype=dtype, limits=limits)
    trained = sum(p.numel() for p in stage.parameters() if p.requires_grad)
    optimisation = stage.optimisation
    steps, scans = optimisation.steps, len(data.validation)  # type: ignore[arg-type]
    validations = steps // min(optimisation.validate_every, steps)
    step_seconds = cost.seconds + reading
    return Plan(
        stage=name,
        trained=trained,
        frozen=sum(p.numel() for p in stage.parameters()) - trained,
        train_scans=len(data.train),  # type: ignore[arg-type]
        validation_scans=scans,
        steps=steps,
        batch_size=optimisation.batch_size,
        device=str(device),
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        step_seconds=step_seconds,
        seconds=steps * step_seconds + validations * cost.validation_seconds * scans / optimisation.batch_size,
        memory_gib=cost.memory_gib,
        measured=cost.share,
    )
