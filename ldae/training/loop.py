"""A stage in Lightning's training loop: optimizers, logs, the check that losses are finite, checkpoints to resume from."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from ldae.errors import TrainingError
from ldae.training.stage import Batch, OptimisationConfig, Stage, step_generator

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
        values: dict[str, Tensor] = {}
        self._recent.append((self.stage.steps_done, ", ".join(batch["key"]), values))
        optimizers: Any = self.optimizers()
        schedulers: Any = self.lr_schedulers()
        if not isinstance(optimizers, list):
            optimizers, schedulers = [optimizers], [schedulers]
        names = ("gradient_norm", "discriminator_gradient_norm")
        for optimizer, scheduler, name, (loss, losses) in zip(
            optimizers, schedulers, names, self.stage.passes(batch), strict=False
        ):
            values |= {key: value.detach() for key, value in losses.items()}
            optimizer.zero_grad()
            self.manual_backward(loss)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            values[name] = torch.nn.utils.clip_grad_norm_(parameters, self.stage.optimisation.gradient_clip)
            optimizer.step()
            scheduler.step()
        self.stage.steps_done += 1
        self._log_at_step({f"train/{name}": value for name, value in values.items()})

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
                    f"{', '.join(bad)} is not finite at step {step} on the scans {keys}; look at those scans, lower the "
                    "learning rate, or try --precision fp32; the last checkpoint is kept"
                )
                raise TrainingError(msg)
        self._recent.clear()

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.stage.begin_validation()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Losses on validation scans, with the same noise every time."""
        losses = self.stage.losses(batch, step_generator(self.stage.seed + 1, batch_index, self.device))
        named = {f"validation/{name}": value for name, value in losses.items()}
        self._log_at_step(named, batch_size=len(batch["key"]))

    def on_validation_epoch_end(self) -> None:
        """Log what only all validation scans together show."""
        self._log_at_step({f"validation/{name}": value for name, value in self.stage.end_validation().items()})

    def _log_at_step(self, values: Mapping[str, Tensor | float], **options: Any) -> None:
        """Log against batches, however many optimizers step on each."""
        self.log_dict({**values, "step": float(self.stage.steps_done)}, **options)

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
        """Restore the random state last, after everything that draws while a run is set up."""
        if "rng" in self._rng:
            torch.set_rng_state(self._rng["rng"].cpu())
        else:
            torch.manual_seed(self.stage.seed)
        if "rng_cuda" in self._rng and self.device.type == "cuda":
            torch.cuda.set_rng_state(self._rng["rng_cuda"].cpu(), self.device)
