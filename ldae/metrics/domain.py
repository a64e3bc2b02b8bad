"""The training domain of a model: how far a scan's code lies from those of the scans that it was trained on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.errors import CheckpointError

__all__ = ["TrainingDomain"]

Array = npt.NDArray[np.float64]

PREFIX = "domain:"

INSIDE = 99.0
"""Percentile of the distances of validation scans that counts as the domain's edge."""


@dataclass(frozen=True, eq=False)
class TrainingDomain:
    """Codes of the training scans, as a normal distribution.

    Attributes:
        mean: of the codes, (S,).
        precision: inverse covariance, shrunk (Ledoit and Wolf 2004), (S, S).
        edge: Mahalanobis distance that 99 % of the validation scans stay within.
    """

    mean: Array
    precision: Array
    edge: float

    @classmethod
    def of(cls, train: npt.ArrayLike, validation: npt.ArrayLike) -> "TrainingDomain":
        """Measure it on the codes of training and validation scans, (N, S) each."""
        from sklearn.covariance import LedoitWolf  # takes a second, and most commands need none

        fitted = LedoitWolf().fit(np.asarray(train, dtype=np.float64))
        found = cls(fitted.location_, fitted.precision_, 1.0)
        edge = float(np.percentile(found.distance(validation), INSIDE))
        return cls(found.mean, found.precision, max(edge, 1e-12))  # 0 where all codes are equal

    def distance(self, codes: npt.ArrayLike) -> Array:
        """Mahalanobis distance of codes, (N, S), from the mean, in units of the domain's edge, (N,): above 1 is outside."""
        away = np.asarray(codes, dtype=np.float64) - self.mean
        squared: Array = np.einsum("ns,st,nt->n", away, self.precision, away, optimize=True)
        return np.sqrt(squared.clip(0)) / self.edge

    def tensors(self) -> dict[str, Tensor]:
        """What a file of weights keeps of it, by name."""
        values = {"mean": self.mean, "precision": self.precision, "edge": np.array([self.edge])}
        return {PREFIX + name: torch.from_numpy(value) for name, value in values.items()}

    @classmethod
    def take_from(cls, tensors: dict[str, Tensor], width: int, *, where: str) -> "TrainingDomain | None":
        """Take what :meth:`tensors` gave out of the tensors of a file; None where it is not among them.

        Args:
            tensors: of the file.
            width: of codes, S.
            where: the file, for the message.

        Raises:
            CheckpointError: if it is incomplete or of another width, or its numbers are not finite.
        """
        names = [name for name in tensors if name.startswith(PREFIX)]
        if not names:
            return None
        found = {name.removeprefix(PREFIX): tensors.pop(name) for name in names}
        shapes = {"mean": (width,), "precision": (width, width), "edge": (1,)}
        whole = {name: tuple(each.shape) for name, each in found.items()} == shapes
        if not whole or not all(each.is_floating_point() and each.isfinite().all() for each in found.values()):
            msg = f"{where}: its training domain is damaged; copy the model again, or delete its domain.safetensors"
            raise CheckpointError(msg)
        return cls(
            found["mean"].double().numpy(), found["precision"].double().numpy(), max(float(found["edge"]), 1e-12)
        )
