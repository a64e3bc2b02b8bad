"""Exponential moving average of the module that learns, and of nothing else."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

__all__ = ["ExponentialMovingAverage"]


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
