"""Base of the stages: step-wise randomness, the NaN guard, the learning-rate schedule."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn

from ldae.errors import ConfigError, TrainingError
from ldae.models.checkpointing import checkpointed

__all__ = ["OptimisationConfig", "Stage", "build_scheduler", "step_generator"]

Batch = Mapping[str, Any]

CHECK_EVERY = 50
"""Steps between two checks that losses and gradients are finite."""


@dataclass(frozen=True)
class OptimisationConfig:
    """Optimisation of a stage.

    Attributes:
        steps: batches in all.
        batch_size: scans a batch.
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
    """

    steps: int = 100_000
    batch_size: int = 4
    learning_rate: float = 1e-4
    schedule: Literal["constant", "one_cycle"] = "constant"
    warmup: float = 0.01
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    validate_every: int = 1000
    checkpoint_every: int = 1000
    patience: int = 0
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch_size, self.validate_every, self.checkpoint_every)
        if min(counts) < 1 or not 0 <= self.ema_decay < 1 or self.learning_rate <= 0 or self.gradient_clip <= 0:
            msg = (
                "steps, batch_size, validate_every and checkpoint_every must be at least 1, learning_rate and "
                f"gradient_clip positive and ema_decay in [0, 1), got {self}"
            )
            raise ConfigError(msg)


def step_generator(seed: int, step: int, device: torch.device | None = None) -> torch.Generator:
    """Randomness of one step on a device, a function of seed and step: a resumed run draws what it would have drawn."""
    return torch.Generator(device or "cpu").manual_seed((seed * 1_000_003 + step) % 2**63)


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


class Stage(LightningModule):
    """Base of the three stages. A stage says what its losses are, which parameters learn, and what it leaves behind.

    Args:
        optimisation: how it is optimised.
        seed: of its noise.
    """

    def __init__(self, optimisation: OptimisationConfig, seed: int) -> None:
        super().__init__()
        self.optimisation = optimisation
        self.seed = seed
        self.steps_done = 0
        self._recent: deque[tuple[int, str, dict[str, Tensor]]] = deque(maxlen=CHECK_EVERY)

    @abstractmethod
    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses by name, scalars; `loss` is the one that is minimised.

        Args:
            batch: of the data module.
            generator: the only source of randomness.
        """

    @abstractmethod
    def averaged(self) -> nn.Module:
        """The module that learns and whose averaged weights are kept."""

    def step_generator(self) -> torch.Generator:
        """Randomness of the next step, on the device of the parameters."""
        return step_generator(self.seed, self.steps_done, next(self.averaged().parameters()).device)

    def passes(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Forward passes of one step, in turn: the loss to descend on, and the losses to log by name."""
        with self.keeping_activations():
            losses = self.losses(batch, self.step_generator())
        yield losses["loss"], losses

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step of automatic optimisation."""
        self._begin_step(batch)
        ((loss, losses),) = self.passes(batch)
        self._finish_step(losses)
        return loss

    def keeping_activations(self) -> AbstractContextManager[None]:
        """Context of a forward pass, which keeps its activations for the backward pass unless they are checkpointed."""
        return checkpointed(self.averaged()) if self.optimisation.checkpoint_activations else nullcontext()

    def _begin_step(self, batch: Batch) -> None:
        self._recent.append((self.steps_done, ", ".join(batch["key"]), {}))

    def _finish_step(self, losses: Mapping[str, Tensor]) -> None:
        """Log and count a step."""
        values = {name: value.detach() for name, value in losses.items()}
        self._recent[-1][2].update(values)
        self.steps_done += 1
        self._log_at_step({f"train/{name}": value for name, value in values.items()})

    def clip_gradient(self, optimizer: torch.optim.Optimizer, name: str = "gradient_norm") -> None:
        """Log the gradient's norm under a name, then clip it."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.optimisation.gradient_clip)
        self._recent[-1][2][name] = norm
        self.log(f"train/{name}", norm)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Log the gradient's norm and clip it; Lightning calls this in automatic optimisation."""
        self.clip_gradient(optimizer)

    def check_finite(self) -> None:
        """Read the losses and gradient norms since the last check, which waits for the device once.

        Raises:
            TrainingError: if one is not finite, naming the first such step and the scans of its batch.
        """
        values = [value for *_, values in self._recent for value in values.values()]
        finite = iter(torch.isfinite(torch.stack([value.float() for value in values])).tolist() if values else ())
        for step, keys, named in self._recent:
            bad = [name for name in named if not next(finite)]
            if bad:
                msg = (
                    f"{', '.join(bad)} is not finite at step {step} on the scans {keys}; look at those scans, lower the "
                    "learning rate, or try --precision fp32; the last checkpoint is kept"
                )
                raise TrainingError(msg)
        self._recent.clear()

    def on_train_batch_end(self, *_: Any) -> None:
        """Check the last steps now and then."""
        if len(self._recent) == CHECK_EVERY:
            self.check_finite()

    def on_train_end(self) -> None:
        """Check the last steps."""
        self.check_finite()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Losses on validation scans, with the same noise every time."""
        losses = self.losses(batch, step_generator(self.seed + 1, batch_index, self.device))
        named = {f"validation/{name}": value for name, value in losses.items()}
        self._log_at_step(named, batch_size=len(batch["key"]))

    def _log_at_step(self, values: Mapping[str, Tensor], **options: Any) -> None:
        """Log against batches, however many optimizers step on each."""
        self.log_dict({**values, "step": float(self.steps_done)}, **options)

    def learning_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the averaged module."""
        return self.averaged().parameters()

    def configure_optimizers(self) -> Any:
        """AdamW with the configured schedule, stepped every batch."""
        optimizer = torch.optim.AdamW(
            self.learning_parameters(),
            lr=self.optimisation.learning_rate,
            weight_decay=self.optimisation.weight_decay,
        )
        scheduler = build_scheduler(optimizer, self.optimisation)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the step and the global random state (dropout draws from it); weights that are not finite are not saved."""
        self.check_finite()
        checkpoint["steps_done"] = self.steps_done
        checkpoint["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            checkpoint["rng_cuda"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the step and random state of the checkpoint."""
        self.steps_done = checkpoint["steps_done"]
        self._rng = {name: checkpoint[name] for name in ("rng", "rng_cuda") if name in checkpoint}

    def on_train_start(self) -> None:
        """Restore the random state last, after everything that draws while a run is set up."""
        state = getattr(self, "_rng", {})
        if "rng" in state:
            torch.set_rng_state(state["rng"].cpu())
        else:
            torch.manual_seed(self.seed)
        if "rng_cuda" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng_cuda"].cpu(), self.device)
