"""Whitening of codes: correlated numbers of very different spread made comparable, without changing what they decode to."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ldae.base.hardware import single_precision

__all__ = ["Whitening"]

SHRINKAGE = 0.01
"""Share of the mean variance that every direction is taken to have, so that those hardly seen are not blown up."""


class Whitening(nn.Module):
    """y' = (y - mean) M with a symmetric matrix M, in float32; the identity until it is fitted.

    Training gives the directions that the denoiser needs most a spread many times that of the rest, where a hippocampus may
    be, and a regularised probe, or a distance, hardly sees that rest. M is a power of the codes' covariance over the training
    scans: -1/2 of it is symmetric (ZCA) whitening, of all whitened codes the nearest to the codes themselves (Kessy, Lewin
    and Strimmer 2018). With the covariance within subjects in its place, what differs between scans of one subject is small
    in each direction (within-class covariance normalisation, Hatch, Kajarekar and Stolcke 2006).

    Args:
        width: S of y.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    mean: Tensor
    matrix: Tensor

    @torch.no_grad()
    def fit(self, codes: Tensor, degree: float, subjects: Sequence[str] | None = None) -> None:
        """Whiten these codes.

        Args:
            codes: of training scans, (N, S).
            degree: 0 standardises the mean variance alone, 1 whitens fully; covariance^(-degree / 2), shrunk a little
                toward its mean variance, and scaled to a variance of 1 on average.
            subjects: of each scan. If some have several, the covariance within subjects is taken, else that of all.
        """
        values = codes.double().cpu()
        mean = values.mean(dim=0)
        values = values - mean
        total = covariance = values.T @ values / len(values)
        if subjects is not None and len(set(subjects)) < len(values):
            names, which, scans = np.unique(list(subjects), return_inverse=True, return_counts=True)
            means = torch.zeros(len(names), values.shape[1], dtype=values.dtype)
            means.index_add_(0, torch.from_numpy(which), values).div_(torch.from_numpy(scans)[:, None])
            within = values - means[which]
            covariance = within.T @ within / (len(values) - len(names))
        average = covariance.diagonal().mean().clamp_min(1e-30)
        variance, vectors = torch.linalg.eigh(covariance)
        shrunk = (1 - SHRINKAGE) * variance.clamp_min(0) + SHRINKAGE * average
        power = shrunk ** (-degree / 2)
        spread = torch.einsum("sv,st,tv->v", vectors, total, vectors)
        power = power / (power.square() * spread.clamp_min(0)).mean().clamp_min(1e-30).sqrt()
        self.mean.copy_(mean)
        self.matrix.copy_(vectors @ torch.diag(power) @ vectors.T)

    @torch.no_grad()
    def fold_into(self, layer: nn.Linear) -> None:
        """Let a layer that read y read y' instead, to the same output.

        Args:
            layer: with a bias.
        """
        weight, mean, matrix = (each.cpu().double() for each in (layer.weight, self.mean, self.matrix))
        layer.bias.add_((weight @ mean).to(layer.bias))
        layer.weight.copy_(weight @ torch.linalg.inv(matrix))

    def undo(self, whitened: Tensor) -> Tensor:
        """The codes as they were learnt, (B, S), on the CPU in float64."""
        whitened, mean, matrix = (each.cpu().double() for each in (whitened, self.mean, self.matrix))
        return whitened @ torch.linalg.inv(matrix) + mean

    def forward(self, y: Tensor) -> Tensor:
        """(B, S) to (B, S)."""
        with single_precision(y.device):
            return (y.float() - self.mean) @ self.matrix
