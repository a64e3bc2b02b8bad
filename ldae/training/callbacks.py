"""Callbacks: the average of the weights, checkpoints to resume from, progress, and pictures in the logs."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from ldae.base.files import atomic_file
from ldae.base.ranks import rank
from ldae.training.loop import StageLoop

__all__ = ["ExponentialMovingAverage", "Progress", "ProgressCallback", "ResumeCheckpoint", "SliceImages"]

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Receives (stage, steps done, steps in all, latest losses)."""


class ExponentialMovingAverage(Callback):
    """Averages one module's parameters and buffers after each step, validates with the average, and saves it with checkpoints.

    Over the first steps the decay is min(decay, (1 + n) / (10 + n)), so that a short run is not dominated by its start.
    Lightning's `WeightAveraging` copies the whole stage, with its frozen networks and its discriminator, and changes what a
    checkpoint's weights mean; this keeps plain tensors of one module beside it.

    Args:
        module: what is averaged.
        decay: of the average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = module
        self.decay = decay
        self.steps = 0
        self.average: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the module as it is, unless a checkpoint has brought an average."""
        for name, tensor in self.module.state_dict().items():
            former = self.average.get(name)
            self.average[name] = tensor.clone() if former is None else former.to(tensor)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Move the average toward the module; counts of batches, which are whole numbers, are copied."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        now = self.module.state_dict()
        names = [name for name, tensor in now.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in names], [now[name] for name in names], 1.0 - decay)
        for name in now.keys() - set(names):
            self.average[name].copy_(now[name])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        if self.average:
            self._swap()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the trained parameters."""
        if self.average:
            self._swap()

    def keep(self) -> None:
        """Leave the averages in the module for good."""
        self._swap()
        self.average.clear()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self.module.state_dict().items():
            kept = tensor.clone()
            tensor.copy_(self.average[name])
            self.average[name] = kept

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a checkpoint's average."""
        self.steps = state_dict["steps"]
        self.average = dict(state_dict["average"])


class ResumeCheckpoint(Callback):
    """Writes the checkpoint that a killed run goes on from; each replaces the last, whole.

    Where a validation follows the step, the checkpoint follows the validation, which would else be lost.

    Args:
        path: of the checkpoint.
        every: steps between two.
        validate_every: steps between two validations.

    Attributes:
        losses: the last of each that was logged, in this session or before.
    """

    def __init__(self, path: Path, every: int, validate_every: int) -> None:
        self.path = path
        self.every = every
        self.validate_every = validate_every
        self.losses: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"losses": self.losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a checkpoint's losses."""
        self.losses = dict(state_dict["losses"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what was logged last."""
        self._read(trainer)

    def _read(self, trainer: Trainer) -> None:
        self.losses |= {name: float(value) for name, value in trainer.logged_metrics.items() if name != "step"}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save when it is time, and no validation follows."""
        assert isinstance(pl_module, StageLoop)
        if pl_module.stage.steps_done % self.validate_every:
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when it is time; the trained weights are back in place by now."""
        self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, StageLoop)
        if pl_module.stage.steps_done % self.every == 0:
            self._read(trainer)
            with nullcontext(self.path) if rank() else atomic_file(self.path) as temporary:  # only the first writes
                trainer.save_checkpoint(temporary)


class ProgressCallback(Callback):
    """Reports each step to a function; losses are read from the device once a second.

    Args:
        stage: its name.
        progress: the function.
    """

    def __init__(self, stage: str, progress: Progress) -> None:
        self.stage = stage
        self.progress = progress
        self._losses: dict[str, float] = {}
        self._read = -math.inf

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Report a step."""
        assert isinstance(pl_module, StageLoop)
        if time.monotonic() > self._read + 1.0:
            self._read = time.monotonic()
            self._losses = {k: float(value) for k, value in trainer.logged_metrics.items() if k.endswith("/loss")}
        self.progress(self.stage, pl_module.stage.steps_done, pl_module.stage.optimisation.steps, self._losses)


class SliceImages(Callback):
    """Middle slices of a few validation images in TensorBoard after each validation.

    Args:
        draw: returns images to show, (N, 1, D, H, W) in [0, 1].
    """

    def __init__(self, draw: Callable[[], Tensor]) -> None:
        self.draw = draw

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one picture while the averaged weights are in place: a row an image, with its three middle slices."""
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, StageLoop)
        for logger in trainer.loggers:
            writer: Any = getattr(logger, "experiment", None)
            if hasattr(writer, "add_image"):
                writer.add_image("slices", slice_sheet(self.draw()), pl_module.stage.steps_done)


def slice_sheet(images: Tensor) -> Tensor:
    """Middle slices side by side, one row an image: (N, 1, D, H, W) to (1, rows, columns), anterior and superior up."""
    rows = []
    side = max(images.shape[2:])
    for image in images[:, 0].float().cpu():
        d, h, w = (n // 2 for n in image.shape)
        planes = [image[:, :, w], image[:, h, :], image[d, :, :]]
        tiles = []
        for plane in planes:
            tile = torch.zeros(side, side)
            up = plane.T.flip(0)
            top, left = (side - up.shape[0]) // 2, (side - up.shape[1]) // 2
            tile[top : top + up.shape[0], left : left + up.shape[1]] = up
            tiles.append(tile)
        rows.append(torch.cat(tiles, dim=1))
    return torch.cat(rows)[None].clamp(0, 1)
