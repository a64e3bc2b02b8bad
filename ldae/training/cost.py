"""Cost of a step: counted on tensors without values, or measured."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ldae.base.hardware import GIB, PeakMemory, autocast, channels_last
from ldae.errors import ConfigError
from ldae.training.stage import Stage

__all__ = [
    "CARDS",
    "EFFICIENCY",
    "Card",
    "Cost",
    "count",
    "count_step",
    "flops_per_second",
    "measure_step",
    "parameter_gib",
]

Module = TypeVar("Module", bound=nn.Module)
META = torch.device("meta")

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor of one scan, without the batch."""


@dataclass(frozen=True)
class Card:
    """A GPU that need not be here.

    Attributes:
        name: as its maker calls it.
        gb: memory, in GB of 10^9 bytes, as makers count it.
        tera: 10^12 operations a second of dense bfloat16 matrix products with float32 sums, as the maker states them.
    """

    name: str
    gb: float
    tera: float


CARDS = {
    "4090": Card("GeForce RTX 4090", 24, 165.2),
    "a100": Card("A100 SXM 80 GB", 80, 312.0),
    "h100": Card("H100 SXM", 80, 989.4),
    "h200": Card("H200 SXM", 141, 989.4),
}
EFFICIENCY = 0.3
"""Share of a card's stated speed that is assumed; no card was measured."""


@dataclass
class Cost:
    """Cost of a function.

    Attributes:
        flops: operations of convolutions and matrix products, two a multiplication with its addition; an operation that
            learns counts three times, for its backward pass.
        kept_gib: memory of the activations kept for the backward pass.
        largest_gib: memory of the largest tensor.
        width: output channels of the convolution with the most operations.
    """

    flops: int = 0
    kept_gib: float = 0.0
    largest_gib: float = 0.0
    width: int = 32


def _normalised(x: Tensor, statistics: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(statistics), x.new_empty(statistics)


NORMS: Mapping[Any, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {
    torch.ops.aten.native_group_norm.default: lambda x, *sizes: _normalised(x, (sizes[2], sizes[5])),
    torch.ops.aten.native_layer_norm.default: lambda x, shape, *_: _normalised(x, (*x.shape[: -len(shape)], 1)),
}
"""Shapes of a normalisation and its statistics: without a device torch takes each apart into a dozen operations."""


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the operations of a `with` block to a cost; every tensor that is made in it lies on no device (`meta`)."""

    def __init__(self, cost: Cost) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cost = cost
        self._most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it."""
        kwargs = dict(kwargs or {})
        if "device" in kwargs:
            kwargs["device"] = META
            if "generator" in kwargs:
                kwargs["generator"] = None
        made: Any = NORMS[func](*args) if func in NORMS else func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            flops = formula(*args, **kwargs, out_val=made)
            self.cost.flops += flops * (3 if torch.is_grad_enabled() else 1)
            if func._overloadpacket is torch.ops.aten.convolution and flops > self._most:
                self._most, self.cost.width = flops, made.shape[1]
        if isinstance(made, Tensor):
            self.cost.largest_gib = max(self.cost.largest_gib, made.untyped_storage().nbytes() / GIB)
        return made


class FusedAttention(TorchFunctionMode):
    """Attention as devices compute it, without keeping its matrix of weights; with no device torch would keep that."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace an attention."""
        if func is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args[:3])[0]
        return func(*args, **(kwargs or {}))


def without_values(module: Module) -> Module:
    """The module if it lies on no device, or a copy that does: shapes, and no values."""
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.is_meta for tensor in module.parameters()):
        return module
    memo: dict[int, Any] = {}
    for tensor in tensors:
        empty = torch.empty_like(tensor, device=META)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return deepcopy(module, memo)


def count(module: Module, function: Callable[[Module], Iterable[Any]], dtype: torch.dtype) -> Cost:
    """Count a function of a module without computing anything.

    Args:
        module: on any device, and then left as it is; or on none (`meta`).
        function: of the module without values; yields after each part whose activations are let go.
        dtype: of matrix work. In bfloat16 activations take half the memory, and so does a copy of every parameter.
    """
    cost, kept = Cost(), dict[int, torch.UntypedStorage]()
    module = without_values(module)
    own = {p.untyped_storage()._cdata for p in module.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), META, FusedAttention(), Counting(cost):
        for _ in function(module):
            cost.kept_gib = max(cost.kept_gib, sum(storage.nbytes() for storage in kept.values()) / GIB)
            kept.clear()
    if dtype == torch.bfloat16:
        cost.largest_gib /= 2
        cost.kept_gib = (cost.kept_gib + parameter_gib(module) * (cost.kept_gib > 0)) / 2
    return cost


def count_step(stage: Stage, shapes: Shapes, dtype: torch.dtype, rows: int) -> Cost:
    """Count one training step, late enough for all losses to take part; its backward passes cost twice the forward ones.

    Args:
        stage: to be trained.
        shapes: of a scan's tensors.
        dtype: of matrix work.
        rows: scans at once.
    """
    return count(stage, lambda twin: _passes(twin, _batch(rows, shapes, META)), dtype)


def measure_step(
    stage: Stage, shapes: Shapes, device: torch.device, dtype: torch.dtype, rows: int
) -> tuple[float, float]:
    """Seconds of one real training step on random scans, and the peak memory in GiB.

    Args:
        stage: to be trained; it is moved to the device, and its weights change.
        shapes: of a scan's tensors.
        device: where.
        dtype: of matrix work.
        rows: scans at once.

    Raises:
        ConfigError: if the step does not fit the memory.
    """
    try:
        stage.to(device)
        batch = _batch(rows, shapes, device)
        optimizer = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad])
        with (
            PeakMemory(device) as memory,
            autocast(device, dtype),
        ):
            for _ in range(2):  # the first warms up
                start = time.perf_counter()
                for loss in _passes(stage, batch):
                    loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
                _wait(device)
                seconds = time.perf_counter() - start
    except (torch.OutOfMemoryError, MemoryError) as error:
        msg = "one step does not fit the memory; set optimisation.accumulate, or checkpoint_activations=true"
        raise ConfigError(msg) from error
    return seconds, memory.peak_gib


@lru_cache(maxsize=16)
def flops_per_second(device: torch.device, dtype: torch.dtype, width: int) -> float:
    """Operations a second of a 3D convolution with its activation, forward and backward; the best pass in 0.3 s.

    Args:
        device: where.
        dtype: of matrix work.
        width: channels.
    """
    width = min(width, 128)  # wider layers are no faster, and take long to measure
    block = channels_last(nn.Sequential(nn.Conv3d(width, width, 3, padding=1), nn.SiLU())).to(device)
    side = 64 if device.type == "cuda" else 16
    x = torch.rand(1, width, side, side, side, device=device).contiguous(memory_format=torch.channels_last_3d)
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < 0.3:  # the first warms up
        start = time.perf_counter()
        with autocast(device, dtype):
            loss = block(x.requires_grad_()).float().square().mean()
        loss.backward()
        _wait(device)
        times.append(time.perf_counter() - start)
    return 3 * 2 * 27 * width**2 * side**3 / min(times)


def parameter_gib(module: nn.Module) -> float:
    """Memory of a module's parameters, in GiB."""
    return sum(p.numel() * p.element_size() for p in module.parameters()) / GIB


def _batch(rows: int, shapes: Shapes, device: torch.device) -> dict[str, Any]:
    tensors = {name: torch.rand(rows, *shape, device=device) for name, shape in shapes.items()}
    return {**tensors, "key": ["random"] * rows}


def _passes(stage: Stage, batch: Mapping[str, Any]) -> Iterator[Tensor]:
    """The losses of a step's passes in turn."""
    stage.steps_done = stage.optimisation.steps - 1
    stage.train()
    for loss, _ in stage.passes(batch):
        yield loss


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
