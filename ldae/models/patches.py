"""Volumes as grids of cells, whose voxels are the channels."""

from torch import Tensor

__all__ = ["from_patches", "to_patches"]


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
