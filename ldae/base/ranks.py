"""What processes that work together share; a process alone is the first of one."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ldae.base.launch import is_rank
from ldae.base.part import Part
from ldae.errors import PeerLostError

__all__ = [
    "barrier",
    "channel_statistics",
    "from_first",
    "gather",
    "gather_dealt",
    "join",
    "leave",
    "mean",
    "own_part",
    "rank",
    "share_batch_norms",
    "together",
    "world",
]

Value = TypeVar("Value")
PATIENCE = timedelta(hours=12)
"""Time to wait for one another: the first alone may fit components or read a cohort. Who dies is noticed by the launcher."""


def join(device: torch.device) -> None:
    """Join the processes that were started together, if this one was, with its device."""
    if not is_rank() or os.environ["WORLD_SIZE"] == "1" or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes: from here on each is alone."""
    if world() > 1:
        dist.destroy_process_group()


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def own_part() -> Part:
    """The part of work that falls to this process."""
    return Part(rank() + 1, world())


def barrier() -> None:
    """Wait for all."""
    if world() > 1:
        dist.barrier()


def gather(mine: Value) -> list[Value]:
    """The values of all processes, by rank; tensors must lie on the CPU."""
    if world() == 1:
        return [mine]
    values: list[Value | None] = [None] * world()
    dist.all_gather_object(values, mine)
    return values  # type: ignore[return-value]


def gather_dealt(mine: Sequence[Value]) -> list[Value]:
    """The values of all processes, each of a job of its :func:`own_part`, in the order of the jobs."""
    parts = gather(list(mine))
    return [parts[job % len(parts)][job // len(parts)] for job in range(sum(map(len, parts)))]


def mean(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Means of scalars over all processes, which must have the same names."""
    if world() == 1 or not values:
        return dict(values)
    stacked = torch.stack([value.detach().float() for value in values.values()])
    dist.all_reduce(stacked)
    return dict(zip(values, stacked / world(), strict=True))


@contextmanager
def together() -> Iterator[None]:
    """Tell the end of another process as such.

    Raises:
        PeerLostError: if another has ended.
    """
    try:
        yield
    except RuntimeError as error:
        lost = re.search(
            "closed by peer|reset by peer|remote process|was aborted|broken pipe", str(error), re.IGNORECASE
        )
        if world() == 1 or lost is None:
            raise
        msg = (
            "another process of this run has ended, so this one must; the same command goes on from the last checkpoint "
            f"({str(error).splitlines()[0][:200]})"
        )
        raise PeerLostError(msg) from error


def from_first(module: nn.Module) -> None:
    """Take the first process's parameters and buffers."""
    for tensor in module.state_dict().values() if world() > 1 else ():
        held = tensor.contiguous()
        dist.broadcast(held, 0)
        tensor.copy_(held)


def channel_statistics(latents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (C,), over the tensors (1, C, ...) of all processes."""
    values = torch.cat(list(latents)).double().transpose(0, 1).flatten(1).cpu()
    own = values.mean(dim=1)
    parts = gather((values.shape[1], own, (values - own[:, None]).square().sum(dim=1)))
    count = sum(n for n, _, _ in parts)
    common = sum((n * each for n, each, _ in parts), torch.zeros(())) / count
    squares = sum((s + n * (each - common).square() for n, each, s in parts), torch.zeros(()))
    return common.float(), (squares / (count - 1)).sqrt().float()


class Sum(torch.autograd.Function):
    """Sum of a tensor over all processes, through which gradients pass; torch's own is deprecated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The sum."""
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The sum of the gradients of all processes."""
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes; torch's own `SyncBatchNorm` knows GPUs alone."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, ...) by the mean and variance of each channel over all processes."""
        if not self.training or world() == 1:
            return super().forward(input)
        x = input.float()
        others = [0, *range(2, x.ndim)]
        count = x.numel() // x.shape[1] * world()
        mean: Tensor = Sum.apply(x.sum(others)) / count  # type: ignore[no-untyped-call]
        centred = x - mean.view(1, -1, *[1] * (x.ndim - 2))
        variance: Tensor = Sum.apply(centred.square().sum(others)) / count  # type: ignore[no-untyped-call]
        if self.running_mean is not None and self.running_var is not None:
            assert self.momentum is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        shape = (1, -1, *[1] * (x.ndim - 2))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)


def share_batch_norms(module: nn.Module) -> None:
    """Let every batch norm of a module take its statistics from the batches of all processes, if there are several."""
    for name, child in module.named_children() if world() > 1 else ():
        learns = [each.requires_grad for each in child.parameters()]
        if isinstance(child, SharedBatchNorm) or (learns and not any(learns)):  # frozen
            continue
        if isinstance(child, _BatchNorm):
            shared = SharedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norms(child)
