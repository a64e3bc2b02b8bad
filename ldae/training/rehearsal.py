"""What one step of a stage costs, measured by running it, or by running smaller ones where it does not fit."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ldae.errors import ConfigError
from ldae.models.memory import GIB, LiveTensors, PeakMemory, available_gib, release_memory, resident_gib
from ldae.models.padding import crop_to
from ldae.training.stage import Stage

__all__ = ["Limits", "StepCost", "rehearse"]

T = TypeVar("T")

# A cropped volume must leave networks something to pool.
SMALLEST_AXIS = 32
GROWTH = 8
"""Each part that is run is at most this many times the one before."""
REPEATS = 3
ENOUGH_SECONDS = 8.0
"""After this long nothing is repeated."""
CAUTION = 0.6
"""Share of the free memory that a rehearsal expects to use at most."""
RESIDENT = 1.2
"""Resident memory over live tensors: the allocator's and the convolutions' share, 1.16 to 1.23 where it was measured."""
UPDATED = 2**24
"""Parameters whose update is timed; that of more takes proportionally longer."""


@dataclass(frozen=True)
class Limits:
    """How far a rehearsal goes.

    Attributes:
        memory_gib: that it may expect to use; None takes a share of what is free, as far as the system tells.
        seconds: that one pass may be expected to last.
    """

    memory_gib: float | None = None
    seconds: float = 10.0


@dataclass(frozen=True)
class StepCost:
    """Of one step at full size.

    Attributes:
        seconds: of a training step, without reading its batch.
        validation_seconds: of a validation batch.
        memory_gib: peak over training, with the optimizer's state.
        share: of a batch's voxels that were really run; 1 means measured, less means extrapolated from that.
    """

    seconds: float
    validation_seconds: float
    memory_gib: float
    share: float


@dataclass(frozen=True)
class Rung:
    """What was measured on a part of a batch."""

    share: float
    seconds: float
    validation_seconds: float
    memory_gib: float
    tensors_gib: float


def rehearse(
    stage: Stage, batch: Mapping[str, Any], *, device: torch.device, dtype: torch.dtype, limits: Limits | None = None
) -> StepCost:
    """Run forward and backward passes on growing parts of a batch, up to the whole if it may be expected to fit.

    Nothing is learnt. Memory and time are taken to be linear in scans and voxels where the rehearsal stops short.

    Args:
        stage: to be trained; it is moved to the device.
        batch: of full size.
        device: where it will run.
        dtype: of matrix work.
        limits: where to stop; as far as memory is free, if not given.

    Raises:
        ConfigError: if not even the smallest part fits.
    """
    stage.to(device)
    release_memory()
    limits = limits or Limits()
    buffers = {name: buffer.detach().clone() for name, buffer in stage.named_buffers()}
    steps_done, stage.steps_done = stage.steps_done, stage.optimisation.steps - 1  # whatever begins late takes part
    free = available_gib(device)
    most = limits.memory_gib if limits.memory_gib is not None else math.inf if free is None else CAUTION * free
    learning = [p for p in stage.parameters() if p.requires_grad]
    # Gradients are there in every step; two Adam moments and the average come once training starts.
    gradients = sum(p.numel() * p.element_size() for p in learning) / GIB
    state = 3 * gradients
    rungs: list[Rung] = []
    sizes = _sizes(batch)
    size: Size | None = sizes[0]
    with torch.random.fork_rng(devices=[]):
        # What libraries allocate once and keep is no part of a step.
        try:
            _warm_up(stage, _part(batch, sizes[0]), device, dtype)
        except (torch.OutOfMemoryError, MemoryError) as error:
            msg = "not even a part of one scan fits the memory; choose a smaller network, or another --device"
            raise ConfigError(msg) from error
        stage.zero_grad(set_to_none=True)
        release_memory()
        fixed = resident_gib(device) + gradients
        while size is not None:
            try:
                rungs.append(_measure(stage, _part(batch, size), size.share, device, dtype))
            except (torch.OutOfMemoryError, MemoryError):
                if not rungs:
                    raise
                break
            finally:
                stage.zero_grad(set_to_none=True)
            last = rungs[-1]
            memory_room = (most - state - gradients) / (RESIDENT * max(last.tensors_gib - gradients, 1e-6))
            largest = last.share * min(GROWTH, memory_room, limits.seconds / last.seconds)
            size = max((each for each in sizes if last.share < each.share <= largest), default=None)
    update = _update_seconds(learning)
    stage.steps_done = steps_done
    for name, buffer in stage.named_buffers():
        buffer.copy_(buffers[name])
    whole = rungs[-1].share >= 1
    activations = RESIDENT * _at_full_size(rungs, lambda rung: rung.tensors_gib - gradients)
    return StepCost(
        seconds=_at_full_size(rungs, lambda rung: rung.seconds) + update,
        validation_seconds=_at_full_size(rungs, lambda rung: rung.validation_seconds),
        memory_gib=state + (rungs[-1].memory_gib if whole else fixed + activations),
        share=rungs[-1].share,
    )


@dataclass(frozen=True, order=True)
class Size:
    """A part of a batch: its share of the voxels, its scans, and by what each of their axes is divided."""

    share: float
    scans: int
    divisions: tuple[int, ...] = (1, 1, 1)


def _sizes(batch: Mapping[str, Any]) -> list[Size]:
    """Growing parts: the middle of one scan, one scan, more scans, all."""
    tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    scans = len(next(iter(tensors.values())))
    if "latent" in tensors:  # a scan's latent has no smaller part, and a batch norm learns from no less than two
        sizes, first = [], min(2, scans)
    else:
        shape = tensors["image"].shape[2:]
        allowed = [
            divisions
            for divisions in ((4, 4, 4), (2, 2, 2), (1, 2, 2), (1, 1, 2))
            if all(by == 1 or n // by >= SMALLEST_AXIS for n, by in zip(shape, divisions, strict=True))
        ]
        sizes, first = [Size(1 / (scans * math.prod(each)), 1, each) for each in allowed], 1
    counts = [first]
    while counts[-1] * 2 < scans:
        counts.append(counts[-1] * 2)
    return sizes + [Size(count / scans, count) for count in dict.fromkeys([*counts, scans])]


def _part(batch: Mapping[str, Any], size: Size) -> dict[str, Any]:
    part = {key: value[: size.scans] for key, value in batch.items()}
    if "latent" not in part:
        part["image"] = crop_to(
            part["image"], [n // by for n, by in zip(part["image"].shape[2:], size.divisions, strict=True)]
        )
    return part


def _placed(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def _warm_up(stage: Stage, batch: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> None:
    placed = _placed(batch, device)
    stage.train()
    stage.on_train_batch_start(placed, 0)
    with _autocast(device, dtype):
        stage.rehearse(placed)


def _measure(stage: Stage, batch: Mapping[str, Any], share: float, device: torch.device, dtype: torch.dtype) -> Rung:
    placed = _placed(batch, device)

    def train() -> None:
        stage.zero_grad(set_to_none=True)
        stage.rehearse(placed)

    @torch.no_grad()
    def validate() -> None:
        stage.losses(placed, torch.Generator().manual_seed(0))

    with _autocast(device, dtype), PeakMemory(device) as memory:
        stage.train()
        stage.on_train_batch_start(placed, 0)
        with LiveTensors() as tensors:
            train()
        _, seconds = timed(train, device)
        stage.eval()
        _, validation_seconds = timed(validate, device)
        stage.train()
    return Rung(share, seconds, validation_seconds, memory.peak_gib, tensors.peak_gib)


def timed(function: Callable[[], T], device: torch.device, repeats: int = REPEATS) -> tuple[T, float]:
    """What a call returns, and its median seconds after one that warms up; a single one where it takes long."""
    taken: list[float] = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
        if sum(taken) > ENOUGH_SECONDS:
            break
    return result, statistics.median(taken[1:] or taken)


def _at_full_size(rungs: list[Rung], value: Callable[[Rung], float]) -> float:
    """The value at share 1: the last rung's if it was whole, else on the line through the last two, or through zero."""
    last = rungs[-1]
    if last.share >= 1:
        return value(last)
    if len(rungs) == 1:
        return value(last) / last.share
    slope = max(0.0, (value(last) - value(rungs[-2])) / (last.share - rungs[-2].share))
    return value(last) + slope * (1 - last.share)


def _update_seconds(parameters: list[nn.Parameter]) -> float:
    """Seconds of what follows the backward pass: the norm of the gradients, AdamW, and the average; on copies."""
    chosen: list[Tensor] = []
    for parameter in parameters:
        if sum(p.numel() for p in chosen) + parameter.numel() > UPDATED and chosen:
            break
        chosen.append(parameter)
    copies = [nn.Parameter(p.detach().clone()) for p in chosen]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    averages = [p.detach().clone() for p in copies]
    optimizer = torch.optim.AdamW(copies)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(copies, 1.0)
        torch.nn.utils.get_total_norm([p.grad for p in copies if p.grad is not None])
        optimizer.step()
        torch._foreach_lerp_(averages, [p.detach() for p in copies], 0.1)

    share = sum(p.numel() for p in chosen) / sum(p.numel() for p in parameters)
    _, seconds = timed(update, chosen[0].device)
    return seconds / share
