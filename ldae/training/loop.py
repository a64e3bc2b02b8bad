"""A stage in Lightning's training loop: optimizers, logs, the check that losses are finite, checkpoints to resume from."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from ldae.base.ranks import gather, mean, rank, world
from ldae.errors import TrainingError
from ldae.training.stage import Batch, Draws, OptimisationConfig, Stage

__all__ = ["StageLoop", "build_scheduler"]

CHECK_EVERY = 50
"""Steps between two checks that losses and gradients are finite."""


def build_scheduler(
    optimizer: torch.optim.Optimizer, config: OptimisationConfig
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over the stage's steps."""
    if config.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=config.learning_rate, total_steps=config.steps + 1, pct_start=max(config.warmup, 0.01)
        )
    warmup = max(1, round(config.warmup * config.steps))
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))


class StageLoop(LightningModule):
    """Training and validation of a stage, one optimizer for each of its passes.

    Args:
        stage: to train.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.stage = stage
        self._recent: deque[tuple[int, str, dict[str, Tensor]]] = deque(maxlen=CHECK_EVERY)
        self._rng: dict[str, Tensor] = {}
        self._validated: list[tuple[int, dict[str, Tensor]]] = []

    def configure_optimizers(self) -> Any:
        """AdamW with the configured schedule for each learning module."""
        config = self.stage.optimisation
        optimizers = [
            torch.optim.AdamW(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
            for module in self.stage.learners()
        ]
        return optimizers, [build_scheduler(optimizer, config) for optimizer in optimizers]

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """A step of each optimizer in turn; the norms of gradients are logged before they are clipped."""
        config, values = self.stage.optimisation, dict[str, Tensor]()
        self._recent.append((self.stage.steps_done, ", ".join(batch["key"]), values))
        held = len(batch["key"])
        parts = _parts(batch, held // config.accumulate, rank() * held, held * world())
        passes = [self.stage.passes(part) for part in parts]
        optimizers: Any = self.optimizers()
        schedulers: Any = self.lr_schedulers()
        if not isinstance(optimizers, list):
            optimizers, schedulers = [optimizers], [schedulers]
        names = ("gradient_norm", "discriminator_gradient_norm")
        found: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        for optimizer, scheduler, name in zip(optimizers, schedulers, names, strict=False):
            optimizer.zero_grad()
            done = [self._descend(each, len(passes), found, last=each is passes[-1]) for each in passes]
            if not all(done):
                break
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            values[name] = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
            optimizer.step()
            scheduler.step()
        values |= mean(found)
        self.stage.steps_done += 1
        self._log_at_step({f"train/{name}": value for name, value in values.items()})

    def _descend(
        self, passes: Iterator[tuple[Tensor, dict[str, Tensor]]], parts: int, found: dict[str, Tensor], *, last: bool
    ) -> bool:
        """Add the gradients of the next pass of a part, and its losses to those found; False if there is none."""
        loss, losses = next(passes, (None, {}))
        if loss is None:
            return False
        strategy: Any = self.trainer.strategy
        waits = not last and world() > 1
        with strategy.block_backward_sync() if waits else nullcontext():
            self.manual_backward(loss / parts)
        for name, value in losses.items():
            found[name] = found[name] + value.detach() / parts
        return True

    def on_train_batch_end(self, *_: Any) -> None:
        """Check the last steps now and then."""
        if len(self._recent) == CHECK_EVERY:
            self.check_finite()

    def on_train_end(self) -> None:
        """Check the last steps."""
        self.check_finite()

    def check_finite(self) -> None:
        """Read the losses and gradient norms since the last check, which waits for the device once.

        Raises:
            TrainingError: if one is not finite, naming the first such step and the scans of its batch.
        """
        values = [value.float() for *_, named in self._recent for value in named.values()]
        finite = iter(torch.isfinite(torch.stack(values)).tolist() if values else ())
        for step, keys, named in self._recent:
            bad = [name for name in named if not next(finite)]
            if bad:
                msg = (
                    f"{', '.join(bad)} is not finite at step {step} on the scans {', '.join(gather(keys))}; look at those scans, "
                    "lower the learning rate, or try --precision fp32; the last checkpoint is kept"
                )
                raise TrainingError(msg)
        self._recent.clear()

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._validated = []
        self.stage.begin_validation()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Losses on validation scans, with the same noise every time."""
        data: Any = self.trainer
        number = data.datamodule.validation_batches[batch_index]
        config, held = self.stage.optimisation, len(batch["key"])
        # As many at once as in training.
        for part in _parts(batch, max(1, config.batch_size // (world() * config.accumulate)), 0, held):
            losses = self.stage.losses(part, Draws(self.stage.seed + 1, number, self.device, *part["rows"]))
            self._validated.append((len(part["key"]), losses))

    def on_validation_epoch_end(self) -> None:
        """Log means over all validation scans, and what only all of them together show."""
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        mine = [(count, {name: float(each) for name, each in losses.items()}) for count, losses in self._validated]
        for count, losses in chain.from_iterable(gather(mine)):
            for name, value in losses.items():
                sums[name] += count * value
                counts[name] += count
        means = {name: value / counts[name] for name, value in sums.items()}
        self._log_at_step(
            {f"validation/{name}": value for name, value in {**means, **self.stage.end_validation()}.items()}
        )

    def _log_at_step(self, values: Mapping[str, Tensor | float]) -> None:
        """Log against batches, however many optimizers step on each."""
        self.log_dict({**values, "step": float(self.stage.steps_done)})

    def _tensors(self, *, frozen: bool) -> dict[str, Tensor]:
        """The stage's tensors that checkpoints hold, or those that they leave out."""
        tensors = self.stage.state_dict()
        return {name: tensors[name] for name in tensors if name.startswith(self.stage.frozen) == frozen}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the step and the global random state (dropout draws from it); weights that are not finite are not saved."""
        self.check_finite()
        checkpoint["state_dict"] = self._tensors(frozen=False)
        checkpoint["steps_done"] = self.stage.steps_done
        checkpoint["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            checkpoint["rng_cuda"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the weights, the step and the random state of the checkpoint."""
        tensors = checkpoint["state_dict"] | self._tensors(frozen=True)
        checkpoint["state_dict"] = {f"stage.{name}": tensor for name, tensor in tensors.items()}
        self.stage.steps_done = checkpoint["steps_done"]
        self._rng = {name: checkpoint[name] for name in ("rng", "rng_cuda") if name in checkpoint}

    def on_train_start(self) -> None:
        """Restore the random state last, after everything that draws while a run is set up; each process has its own."""
        if rank():
            torch.manual_seed(self.stage.seed + rank() + 1_000_003 * self.stage.steps_done)
            return
        if "rng" in self._rng:
            torch.set_rng_state(self._rng["rng"].cpu())
        else:
            torch.manual_seed(self.stage.seed)
        if "rng_cuda" in self._rng and self.device.type == "cuda":
            torch.cuda.set_rng_state(self._rng["rng_cuda"].cpu(), self.device)


def _parts(batch: Batch, size: int, first: int, rows: int) -> list[dict[str, Any]]:
    """Rows of a batch in parts, each with its first row in the whole batch, and the rows of that.

    Args:
        batch: the rows that this process holds.
        size: of a part.
        first: of these rows in the whole batch.
        rows: of the whole batch.
    """
    return [
        {name: values[start : start + size] for name, values in batch.items()} | {"rows": (first + start, rows)}
        for start in range(0, len(batch["key"]), size)
    ]
