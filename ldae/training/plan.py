"""What a stage will cost, told before it trains."""

import resource
import sys
import time
from dataclasses import dataclass

import torch

from ldae.data.datamodule import StageDataModule
from ldae.training.stage import Stage, step_generator

__all__ = ["Plan", "peak_memory_gib", "plan_stage"]

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What a stage will do.

    Attributes:
        stage: its name.
        trained: parameters that learn.
        frozen: parameters that are used as they are.
        train_scans: scans in the training split.
        validation_scans: scans in the validation split.
        steps: batches still to train.
        batch_size: scans a batch.
        device: where.
        precision: of matrix work.
        seconds: expected, from one timed step (logging, validation and checkpoints come on top).
        memory_gib: expected peak, from the same step and the optimizer's state.
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
    seconds: float
    memory_gib: float


def peak_memory_gib(device: torch.device | None = None) -> float:
    """Peak memory so far: of the GPU if one is named, else resident in this process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    # Linux counts kibibytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def plan_stage(name: str, stage: Stage, data: StageDataModule, *, device: torch.device, dtype: torch.dtype) -> Plan:
    """Time one forward and backward pass on the first batch; nothing is learnt from it.

    Args:
        name: of the stage.
        stage: to be trained; it is moved to the device.
        data: its batches.
        device: where it will run.
        dtype: of matrix work.
    """
    stage.to(device).train()
    batch = {
        key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in data.first_batch().items()
    }
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = stage.losses(batch, step_generator(stage.seed, 0))["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()
        seconds = time.perf_counter() - start
    stage.zero_grad(set_to_none=True)
    trained = sum(p.numel() for p in stage.parameters() if p.requires_grad)
    steps = stage.optimisation.steps
    return Plan(
        stage=name,
        trained=trained,
        frozen=sum(p.numel() for p in stage.parameters()) - trained,
        train_scans=len(data.train),  # type: ignore[arg-type]
        validation_scans=len(data.validation),  # type: ignore[arg-type]
        steps=steps,
        batch_size=stage.optimisation.batch_size,
        device=str(device),
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        seconds=seconds * steps,
        # Two Adam moments and the average come once training starts.
        memory_gib=peak_memory_gib(device) + 3 * 4 * trained / GIB,
    )
