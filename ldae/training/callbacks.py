"""Callbacks: checkpoints to resume from, progress, and pictures in the logs."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ldae.training.loop import StageLoop

__all__ = ["Progress", "ProgressCallback", "ResumeCheckpoint", "SliceImages"]

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Receives (stage, steps done, steps in all, latest losses)."""


class ResumeCheckpoint(Callback):
    """Writes the checkpoint that a killed run goes on from; each replaces the last, whole.

    Args:
        path: of the checkpoint.
        every: steps between two.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path = path
        self.every = every

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save when it is time."""
        assert isinstance(pl_module, StageLoop)
        if pl_module.stage.steps_done % self.every == 0:
            temporary = self.path.with_name(f".writing-{self.path.name}")
            trainer.save_checkpoint(temporary)
            temporary.replace(self.path)


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
