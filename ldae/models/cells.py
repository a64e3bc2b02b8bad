"""Volumes as grids of cells: padded to whole ones, reversibly, and with a cell's voxels as channels."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["crop_to", "from_patches", "pad_to_multiple", "padded_shape", "to_patches"]


def padded_shape(shape: Sequence[int], multiple: int) -> tuple[int, ...]:
    """The smallest shape that holds `shape` and whose axes are multiples of `multiple`, in voxels."""
    return tuple(-(-n // multiple) * multiple for n in shape)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zeros (background) at both ends of each axis, one more behind where the number is odd.

    Args:
        x: volumes, (B, C, D, H, W).
        multiple: what each spatial axis becomes a multiple of; a volume that is one already is returned as it is.
    """
    added = [whole - n for n, whole in zip(x.shape[2:], padded_shape(x.shape[2:], multiple), strict=True)]
    if not any(added):
        return x
    # F.pad wants the last axis first.
    return F.pad(x, [side for n in reversed(added) for side in (n // 2, n - n // 2)])


def crop_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The middle of a padded volume: `crop_to(pad_to_multiple(x, m), x.shape[2:])` is x.

    Args:
        x: volumes, (B, C, D', H', W').
        shape: the volumes' own (D, H, W), no larger.
    """
    for axis, n in enumerate(shape, start=2):
        if x.shape[axis] != n:
            x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


def to_patches(x: Tensor, cell: int, channels: int) -> Tensor:
    """Means of equal parts of each cell's voxels, (B, 1, D, H, W) to (B, channels, D / cell, H / cell, W / cell)."""
    b, _, *shape = x.shape
    d, h, w = (n // cell for n in shape)
    cells = x.reshape(b, d, cell, h, cell, w, cell).permute(0, 2, 4, 6, 1, 3, 5)
    return cells.reshape(b, channels, -1, d, h, w).mean(dim=2)


def from_patches(latent: Tensor, cell: int) -> Tensor:
    """Each channel in all the voxels that it is the mean of, (B, C, d, h, w) to (B, 1, d cell, h cell, w cell)."""
    b, channels, d, h, w = latent.shape
    voxels = latent.repeat_interleave(cell**3 // channels, dim=1).reshape(b, cell, cell, cell, d, h, w)
    return voxels.permute(0, 4, 1, 5, 2, 6, 3).reshape(b, 1, d * cell, h * cell, w * cell)
