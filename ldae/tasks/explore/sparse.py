"""A sparse autoencoder on y: many features of which few are active for a scan."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ldae.errors import TaskError

__all__ = ["SparseFeatures", "fit_sparse_features"]

Array = npt.NDArray[np.float64]
STEPS = 2000
LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class SparseFeatures:
    """Features of y with their activations.

    Attributes:
        directions: change of y by one unit of a feature, (F, S).
        activations: of each scan, (N, F), at least 0.
        r2: share of the variance of y of the test scans that the features reconstruct.
        r2_trained: the same of the training scans.
        active: mean number of active features of a test scan.
        dead: features that no training scan activates.
        trained_scans: number of training scans.
    """

    directions: Array
    activations: Array
    r2: float
    r2_trained: float
    active: float
    dead: int
    trained_scans: int

    @property
    def features(self) -> int:
        """Number of features, F."""
        return len(self.directions)


def fit_sparse_features(
    codes: Array,
    trained: npt.NDArray[np.bool_],
    *,
    features: int,
    active: int,
    steps: int = STEPS,
    seed: int = 0,
) -> SparseFeatures:
    """A TopK sparse autoencoder (Gao et al. 2024, arXiv:2406.04093) on standardised codes, (N, S), of F features.

    Those scans of which `trained`, (N,), is true train it, all at each step; of a scan at most `active` features are.

    Raises:
        TaskError: if a side is empty, or more features are to be active than there are.
    """
    if not 0 < active <= features or not trained.any() or trained.all():
        msg = (
            f"{active} of {features} features active, {int(trained.sum())} of {len(codes)} scans to train on: at least one "
            "active feature, and scans on both sides, are needed"
        )
        raise TaskError(msg)
    mean, scale = codes[trained].mean(axis=0), np.maximum(codes[trained].std(axis=0), 1e-12)
    standard = torch.from_numpy((codes - mean) / scale).float()
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(features, codes.shape[1], generator=generator)
    directions = nn.Parameter(directions / directions.norm(dim=1, keepdim=True))
    readers = nn.Parameter(directions.detach().clone())
    offsets = nn.Parameter(torch.zeros(features))
    optimizer = torch.optim.Adam([directions, readers, offsets], lr=LEARNING_RATE)

    def activate(values: Tensor) -> Tensor:
        strength = torch.relu(values @ readers.T + offsets)
        kept = strength.topk(active, dim=1)
        return torch.zeros_like(strength).scatter(1, kept.indices, kept.values)

    chosen = standard[torch.from_numpy(trained)]
    for _ in range(steps):
        optimizer.zero_grad()
        (activate(chosen) @ directions - chosen).square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():  # unit directions: the activation is the strength of a feature
            directions.div_(directions.norm(dim=1, keepdim=True))
    with torch.no_grad():
        activations = activate(standard)
        error = (activations @ directions - standard).square()
    tested = torch.from_numpy(~trained)

    def explained(rows: Tensor) -> float:
        around = (standard[rows] - standard[rows].mean(dim=0)).square()
        return float(1 - error[rows].sum() / around.sum())

    return SparseFeatures(
        directions=directions.detach().double().numpy() * scale,
        activations=activations.double().numpy(),
        r2=explained(tested),
        r2_trained=explained(~tested),
        active=float((activations[tested] > 0).sum(dim=1).float().mean()),
        dead=int((activations[~tested] == 0).all(dim=0).sum()),
        trained_scans=int(trained.sum()),
    )
