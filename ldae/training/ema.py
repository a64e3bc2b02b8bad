"""Exponential moving average of the weights that learn, and of nothing else."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage(Callback):
    """Averages the parameters of one module after each step, validates with the average, and saves it with checkpoints.

    The averages are plain tensors beside the module: no copy of it is trained, moved or saved. Over the first steps the
    decay is min(decay, (1 + n) / (10 + n)), so that a short run is not dominated by its start.

    Args:
        module: whose parameters are averaged.
        decay: of the average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = module
        self.decay = decay
        self.steps = 0
        self.average: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the parameters as they are, unless a checkpoint has brought an average."""
        for name, parameter in self.module.named_parameters():
            former = self.average.get(name)
            self.average[name] = parameter.detach().clone() if former is None else former.to(parameter)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Move the average toward the parameters."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        parameters = dict(self.module.named_parameters())
        torch._foreach_lerp_(
            [self.average[name] for name in parameters], [p.detach() for p in parameters.values()], 1.0 - decay
        )

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
        for name, parameter in self.module.named_parameters():
            kept = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name] = kept

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a checkpoint's average."""
        self.steps = state_dict["steps"]
        self.average = dict(state_dict["average"])
