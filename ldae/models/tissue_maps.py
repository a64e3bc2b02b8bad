"""Tissue maps of T1-weighted scans: what an encoder sees of the anatomy, without the scanner's contrast."""

import torch
from torch import Tensor, nn

from ldae.base.hardware import single_precision

__all__ = ["TissueMaps"]

LEVELS = 512
"""Intensities that are told apart; 0 is the background."""

STARTS = (0.08, 0.45, 0.85)
"""Quantiles of the brain's intensities at which the means of fluid, grey and white matter begin."""

ITERATIONS = 30
SMALLEST_VARIANCE, SMALLEST_SHARE = 1e-4, 1e-3


class TissueMaps(nn.Module):
    """Probabilities of fluid, grey and white matter at each voxel of skull-stripped T1-weighted scans.

    A mixture of three normal distributions is fitted to the histogram of each scan by itself (expectation maximisation, Dempster
    et al. 1977). The maps take one variance for all three, as with its own the widest would claim the brightest voxels too.
    Averages of the maps are volumes of tissue, whatever the contrast; averages of intensities mix fluid and white matter up with
    grey.

    The maps go from dark to bright. In T2w they are white matter, grey matter and fluid. In FLAIR the darkest is fluid, and the
    others hardly tell grey matter from white.
    """

    CHANNELS = 3

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, D, H, W) in [0, 1], background 0, to (B, 3, D, H, W): sums to 1 in the brain, 0 outside."""
        with single_precision(x.device):
            flat = x.float().flatten(1).clamp(0, 1)
            level = (flat * (LEVELS - 1)).round_().clamp_min_(1).mul_(flat > 0).long()
            counts = flat.new_zeros(len(flat), LEVELS).scatter_add_(1, level, (flat > 0).float())
            table = _probabilities(counts)
            maps = table.gather(2, level[:, None].expand(-1, self.CHANNELS, -1))
            return maps.reshape(len(x), self.CHANNELS, *x.shape[2:])


def _probabilities(counts: Tensor) -> Tensor:
    """Of the tissues at each intensity, (B, 3, LEVELS), from a histogram of the brain, (B, LEVELS); 0 at the background's."""
    values = torch.linspace(0, 1, LEVELS, device=counts.device)
    below = counts.cumsum(dim=1) / counts.sum(dim=1, keepdim=True).clamp_min(1)
    starts = [(below < quantile).sum(dim=1) for quantile in STARTS]
    means = torch.stack(starts, dim=1).clamp_max(LEVELS - 1) / (LEVELS - 1)
    shares = torch.full_like(means, 1 / TissueMaps.CHANNELS)
    variance = ((means[:, 2:] - means[:, :1]).square() / 36 + SMALLEST_VARIANCE).expand_as(means)
    for _ in range(ITERATIONS):
        weights = _likely(values, means, variance, shares) * counts[:, None]
        total = weights.sum(dim=2).clamp_min(1e-6)
        means = (weights * values).sum(dim=2) / total
        variance = (weights * (values - means[..., None]).square()).sum(dim=2) / total + SMALLEST_VARIANCE
        shares = (total / total.sum(dim=1, keepdim=True)).clamp_min(SMALLEST_SHARE)
    found = _likely(values, means, variance.mean(dim=1, keepdim=True).expand_as(means), shares)
    return found * (values > 0)


def _likely(values: Tensor, means: Tensor, variance: Tensor, shares: Tensor) -> Tensor:
    """Probability of each tissue at values (V,), (B, 3, V)."""
    means, variance, shares = (each[..., None] for each in (means, variance, shares))
    return (shares.log() - variance.log() / 2 - (values - means).square() / (2 * variance)).softmax(dim=1)
