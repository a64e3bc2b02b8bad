"""Whether the code is used, watched over each validation of the representation stage."""

import logging

import numpy as np
import torch
from torch import Tensor

from ldae.metrics.code_usage import active_dimensions, effective_rank

__all__ = ["TOY_STEPS", "CodeWatch"]

log = logging.getLogger(__name__)

TOY_STEPS = 100
"""So few cannot teach a code, so that it is not used is no fault; the diagnosis tells it all the same."""


class CodeWatch:
    """Collects a validation's codes, and what shuffling them costs; warns once if that is nothing."""

    def __init__(self) -> None:
        self.warned = False
        self.begin()

    def begin(self) -> None:
        """Forget the last validation."""
        self.codes: list[Tensor] = []
        self.cost = 0.0
        self.shuffled = 0

    def see(self, semantic: Tensor) -> None:
        """Take a batch's codes, (B, S)."""
        self.codes.append(semantic.detach().float().cpu())

    def compare(self, loss: Tensor, shuffled: Tensor, scans: int) -> None:
        """Take a batch's loss with the right codes and with shuffled ones."""
        self.cost += scans * float(shuffled.detach() - loss.detach())
        self.shuffled += scans

    def figures(self) -> dict[str, Tensor]:
        """Effective rank and number of active dimensions of the codes of all batches."""
        codes = torch.cat(self.codes).double().numpy()
        values = {"effective_rank": effective_rank(codes), "active_dimensions": float(active_dimensions(codes))}
        return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}

    def warn_if_unused(self, step: int) -> None:
        """Warn if the codes of others serve as well as the right ones.

        Args:
            step: training steps so far.
        """
        if self.warned or not self.shuffled or not np.isfinite(self.cost) or self.cost > 0:
            return
        self.warned = True
        log.warning(
            "after %d steps the semantic code is not used: on validation scans, codes of other people serve as well as "
            "their own (loss lower by %.2g); train longer, raise the encoder's learning rate, or set "
            "representation.warm_start",
            step,
            -self.cost / self.shuffled,
        )
