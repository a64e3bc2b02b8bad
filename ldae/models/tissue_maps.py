"""Tissue maps of T1-weighted scans: what an encoder sees of the anatomy, without the scanner's contrast."""

import math

import torch
from torch import Tensor, nn

from ldae.hardware import single_precision

__all__ = ["TissueMaps"]

SAMPLED = 13_000
"""Voxels, brain and background, that a fit reads of a scan; about a third is brain."""

STARTS = (0.08, 0.45, 0.85)
"""Quantiles of the brain's intensities at which the means of fluid, grey and white matter begin."""

ITERATIONS = 30
SMALLEST_VARIANCE, SMALLEST_SHARE = 1e-4, 1e-3


class TissueMaps(nn.Module):
    """Probabilities of fluid, grey and white matter at each voxel of skull-stripped T1-weighted scans.

    A mixture of three normal distributions is fitted to each scan by itself (expectation maximisation, Dempster et al. 1977). The
    maps take one variance for all three, as with its own the widest would claim the brightest voxels too. Averages of the maps
    are volumes of tissue, whatever the contrast; averages of intensities mix fluid and white matter up with grey.
    """

    CHANNELS = 3

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, D, H, W), background 0, to (B, 3, D, H, W): sums to 1 in the brain, 0 outside.

        Every voxel of a left-right line is read or none, so that a mirrored scan has the mirrored maps.
        """
        with single_precision(x.device):
            x = x.float()
            step = max(1, round(math.sqrt(x[0].numel() / SAMPLED)))
            means, variance, shares = _fit(x[:, 0, :, ::step, ::step].flatten(1))
            pooled = variance.mean(dim=1, keepdim=True).expand_as(means)
            likely = _log_likelihood(x[:, 0], *(each[..., None, None, None] for each in (means, pooled, shares)))
            return likely.softmax(dim=1) * (x > 0)


def _fit(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means, variances and shares of the tissues, (B, 3) each, in the voxels above 0 of (B, V)."""
    brain = (values > 0)[:, None]
    known = values.where(values > 0, torch.nan)
    quantiles = torch.nanquantile(known, torch.tensor(STARTS, device=values.device), dim=1)
    means = quantiles.T.nan_to_num()
    shares = torch.full_like(means, 1 / TissueMaps.CHANNELS)
    variance = ((means[:, 2:] - means[:, :1]).square() / 36 + SMALLEST_VARIANCE).expand_as(means)
    for _ in range(ITERATIONS):
        weights = (
            _log_likelihood(values, means[..., None], variance[..., None], shares[..., None]).softmax(dim=1) * brain
        )
        counts = weights.sum(dim=2).clamp_min(1e-6)
        means = (weights * values[:, None]).sum(dim=2) / counts
        shares = (counts / counts.sum(dim=1, keepdim=True)).clamp_min(SMALLEST_SHARE)
        spread = (weights * (values[:, None] - means[..., None]).square()).sum(dim=2)
        variance = spread / counts + SMALLEST_VARIANCE
    return means, variance, shares


def _log_likelihood(values: Tensor, means: Tensor, variance: Tensor, shares: Tensor) -> Tensor:
    """Up to a constant, of each tissue: values (B, ...), the rest (B, 3, ...), to (B, 3, ...)."""
    return shares.log() - variance.log() / 2 - (values[:, None] - means).square() / (2 * variance)
