"""Base of the stages: how they are optimised, and the passes of a step."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ldae.base.ranges import checked, count, natural, not_negative, positive, share, share_below_one
from ldae.errors import ConfigError
from ldae.models.checkpointing import checkpointed

__all__ = ["Draws", "OptimisationConfig", "Stage"]

Batch = Mapping[str, Any]


@dataclass(frozen=True)
@checked
class OptimisationConfig:
    """Optimisation of a stage.

    Attributes:
        steps: batches in all.
        batch_size: scans a batch, of all devices together.
        accumulate: parts in which a device takes its share of a batch, for less memory; the gradients are the same but for
            batch norms, which compare the scans of a part, and dropout, which draws for each part.
        learning_rate: the largest.
        schedule: `constant` after the warm-up, or `one_cycle` (Smith and Topin 2019), which needs fewer steps.
        warmup: fraction of the steps over which the rate rises.
        weight_decay: of AdamW.
        gradient_clip: largest gradient norm.
        ema_decay: of the averaged weights, which are the ones that are kept.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints to resume from.
        patience: validations without improvement before the stage stops early; 0 never stops.
        checkpoint_activations: compute activations again in the backward pass instead of keeping them; nothing else changes.
        compile: let torch.compile make the networks faster, minutes after the start. Weights keep their names and, up to
            rounding, their values, but for dropout, which draws otherwise.

    Raises:
        ConfigError: if activations are to be checkpointed and networks compiled.
    """

    steps: int = count(100_000)
    batch_size: int = count(4)
    accumulate: int = count(1)
    learning_rate: float = positive(1e-4)
    schedule: Literal["constant", "one_cycle"] = "constant"
    warmup: float = share(0.01)
    weight_decay: float = not_negative(0.0)
    gradient_clip: float = positive(1.0)
    ema_decay: float = share_below_one(0.999)
    validate_every: int = count(1000)
    checkpoint_every: int = count(1000)
    patience: int = natural(0)
    checkpoint_activations: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.compile and self.checkpoint_activations:
            msg = (
                "optimisation has both compile and checkpoint_activations; leave one out, or save memory by accumulate"
            )
            raise ConfigError(msg)


class Draws:
    """Random numbers of a batch, a function of seed, step and row: a resumed run draws what it would have drawn.

    A process that holds some rows draws for the whole batch and keeps its own, so that any number of processes draws alike.

    Args:
        seed: of the stage.
        step: number of the batch.
        device: where.
        first: the first row that is held.
        rows: in the whole batch; None if all are held.
    """

    def __init__(
        self, seed: int, step: int, device: torch.device | None = None, first: int = 0, rows: int | None = None
    ) -> None:
        place = "cpu" if device is None or device.type == "meta" else device
        self.generator = torch.Generator(place).manual_seed((seed * 1_000_003 + step) % 2**63)
        self.first, self.rows = first, rows

    def _held(self, draw: Callable[..., Tensor], held: int, *shape: int, **options: Any) -> Tensor:
        options |= {"generator": self.generator, "device": self.generator.device}
        return draw(size=(self.rows or held, *shape), **options)[self.first : self.first + held]

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers for each row of a tensor, of its shape, type and device."""
        return self._held(torch.randn, *like.shape, dtype=like.dtype).to(like.device)

    def uniform(self, count: int) -> Tensor:
        """A number in [0, 1) for each of the rows that are held, (count,)."""
        return self._held(torch.rand, count)

    def integers(self, high: int, count: int) -> Tensor:
        """A whole number below `high` for each of the rows that are held, (count,)."""
        return self._held(functools.partial(torch.randint, high), count)


class Stage(nn.Module):
    """Base of the three stages: what is lost, which modules learn, and which of their weights are kept.

    Args:
        optimisation: how it is optimised.
        seed: of its noise.
    """

    frozen: tuple[str, ...] = ()
    """Beginnings of the names of tensors that never change, which checkpoints leave out."""

    def __init__(self, optimisation: OptimisationConfig, seed: int) -> None:
        super().__init__()
        self.optimisation = optimisation
        self.seed = seed
        self.steps_done = 0

    @abstractmethod
    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Losses by name, scalars; `loss` is the one that is minimised.

        Args:
            batch: of the data module.
            draws: the only source of randomness.
        """

    @abstractmethod
    def averaged(self) -> nn.Module:
        """The module that learns and whose averaged weights are kept."""

    def learners(self) -> list[nn.Module]:
        """The modules that learn, one a pass."""
        return [self.averaged()]

    @abstractmethod
    def called(self) -> list[nn.Module]:
        """The networks that a step calls, which may be compiled."""

    def passes(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Forward passes of one step, in turn: the loss to descend on, and the losses to log by name."""
        with self.keeping_activations():
            losses = self.losses(batch, self.draws(batch))
        yield losses["loss"], losses

    def draws(self, batch: Batch) -> Draws:
        """Randomness of the next step, on the device of the parameters, for the rows (first, of how many) of a batch."""
        device = next(self.averaged().parameters()).device
        return Draws(self.seed, self.steps_done, device, *batch.get("rows", (0, None)))

    def keeping_activations(self) -> AbstractContextManager[None]:
        """Context of a forward pass, which keeps its activations for the backward pass unless they are checkpointed."""
        return checkpointed(self.averaged()) if self.optimisation.checkpoint_activations else nullcontext()

    def begin_validation(self) -> None:
        """Forget what the last validation has gathered."""

    def end_validation(self) -> dict[str, float]:
        """Values of all validation scans together, to log by name."""
        return {}
