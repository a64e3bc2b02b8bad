"""Volumes larger than memory: encoded and decoded by overlapping tiles whose seams are blended.

Up to `Tiling.whole` voxels a volume goes through the network whole. Up to `Tiling.tile` it is streamed, which gives the same
result (:mod:`ldae.models.streaming`). A larger one is cut into tiles no larger than that, laid out in latent cells. At a seam,
each tile throws away its last `halo` cells, which its edge has spoilt, and over `blend` cells one fades into the other. Weights
know which sides of a tile are the volume's own, and sum to one along each axis.

Group norms see a tile and not the volume, so tiles are an approximation: the larger they are, the better.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor, nn

from ldae.errors import ConfigError
from ldae.models.compression import CompressionAutoencoder, Posterior
from ldae.models.padding import crop_to, pad_to_multiple
from ldae.models.streaming import streamed

__all__ = ["Span", "Tiling", "blend_tiles", "decode_tiled", "encode_tiled", "lay_spans", "lay_tiles"]

# Thinner slabs repeat more planes, thicker ones need more scratch.
SLAB_VOXELS = 16


@dataclass(frozen=True)
class Tiling:
    """When a volume is streamed, and when and how it is cut.

    Attributes:
        whole: voxels of the largest volume that goes through the network at once.
        tile: voxels of the largest volume that is streamed uncut, and of a tile.
        halo: latent cells at each seam that a tile computes and throws away.
        blend: latent cells over which two tiles fade into one another.

    Raises:
        ConfigError: for impossible values.
    """

    whole: int = 160**3
    tile: int = 256**3
    halo: int = 2
    blend: int = 2

    def __post_init__(self) -> None:
        if min(self.whole, self.tile) < 1 or min(self.halo, self.blend) < 0:
            msg = f"whole and tile must be at least 1 voxel, halo and blend at least 0 cells, got {self}"
            raise ConfigError(msg)

    @property
    def overlap(self) -> int:
        """Latent cells that two neighbouring tiles share, at least."""
        return 2 * self.halo + self.blend


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in latent cells.

    Attributes:
        start: its first cell.
        stop: the cell behind its last.
        rise: where it fades in, (from, to); None at the volume's border.
        fall: where it fades out.
    """

    start: int
    stop: int
    rise: tuple[float, float] | None = None
    fall: tuple[float, float] | None = None

    def weight(self, scale: int) -> Tensor:
        """Its weight at each voxel, ((stop - start) * scale,), with `scale` voxels a cell."""
        centres = torch.arange(self.start * scale, self.stop * scale).add(0.5).div(scale)
        weight = torch.ones_like(centres)
        if self.rise is not None:
            weight = weight * _ramp(centres, *self.rise)
        if self.fall is not None:
            weight = weight * (1.0 - _ramp(centres, *self.fall))
        return weight


Tile = tuple[Span, ...]
"""A span an axis."""


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, linear between."""
    return (x >= low).float() if high <= low else ((x - low) / (high - low)).clamp(0.0, 1.0)


def lay_spans(cells: int, count: int, tiling: Tiling) -> list[Span]:
    """Tiles of one length along an axis, evenly laid.

    Args:
        cells: of the axis.
        count: of tiles.
        tiling: their overlap.
    """
    length = _span_length(cells, count, tiling)
    starts = [round(index * (cells - length) / max(1, count - 1)) for index in range(count)]
    # Seams lie in the middle of what two tiles share.
    seams = [(former + length + start) / 2 for former, start in pairwise(starts)]
    fades = [(seam - tiling.blend / 2, seam + tiling.blend / 2) for seam in seams]
    return [
        Span(start, start + length, rise, fall)
        for start, rise, fall in zip(starts, [None, *fades], [*fades, None], strict=True)
    ]


def _span_length(cells: int, count: int, tiling: Tiling) -> int:
    return cells if count == 1 else tiling.overlap + math.ceil((cells - tiling.overlap) / count)


def lay_tiles(cells: Sequence[int], cell_voxels: int, tiling: Tiling) -> list[Tile]:
    """The fewest tiles that keep within the budget.

    Args:
        cells: latent shape of the volume, (d, h, w).
        cell_voxels: voxels that a cell spans along an axis.
        tiling: budget and overlap.

    Raises:
        ConfigError: if the budget leaves no room beside the overlap.
    """
    counts, budget = [1] * len(cells), tiling.tile // cell_voxels ** len(cells)
    # A seam's fade must end before the next begins.
    smallest = tiling.overlap + max(1, tiling.blend)
    while math.prod(lengths := [_span_length(n, k, tiling) for n, k in zip(cells, counts, strict=True)]) > budget:
        axis = max(range(len(cells)), key=lambda i: lengths[i])
        if cells[axis] <= smallest or _span_length(cells[axis], counts[axis] + 1, tiling) < smallest:
            voxels = (smallest * cell_voxels) ** len(cells)
            msg = (
                f"tiles of {tiling.tile:,} voxels leave no room beside an overlap of {tiling.overlap} latent cells of "
                f"{cell_voxels} voxels; allow {voxels:,} voxels or more, or lower halo or blend"
            )
            raise ConfigError(msg)
        counts[axis] += 1
    return list(product(*(lay_spans(n, k, tiling) for n, k in zip(cells, counts, strict=True))))


def encode_tiled(compression: CompressionAutoencoder, images: Tensor, tiling: Tiling = Tiling()) -> Posterior:
    """The standardised posterior of images of any size, on the CPU.

    Args:
        compression: the network, on its device.
        images: (B, 1, D, H, W), wherever they are.
        tiling: budgets and overlap.

    Returns:
        Mean and std, (B, C, d, h, w). Images that go through whole do so as many at a time as fit the budget.
    """
    device, cell = compression.latent_mean.device, compression.config.downsampling
    voxels = images[0, 0].numel()
    if voxels <= tiling.whole or not compression.config.channels:
        parts = [
            compression.encode(chunk.to(device, memory_format=torch.channels_last_3d))
            for chunk in torch.split(images, max(1, tiling.whole // voxels))
        ]
        means, stds = ([getattr(part, name).contiguous().cpu() for part in parts] for name in ("mean", "std"))
        return Posterior(torch.cat(means), torch.cat(stds))

    def encode(part: Tensor) -> Tensor:
        with _in_slabs(compression.network.encoder, part.numel(), SLAB_VOXELS // cell * cell or cell, tiling):
            posterior = compression.encode(part.to(device, memory_format=torch.channels_last_3d))
        return torch.cat([posterior.mean, posterior.std], dim=1)

    padded = pad_to_multiple(images, cell)
    tiles = lay_tiles([n // cell for n in padded.shape[2:]], cell, tiling)
    both = [blend_tiles(encode, image, tiles, scale_in=cell, scale_out=1) for image in torch.split(padded, 1)]
    mean, std = torch.cat(both).chunk(2, dim=1)
    return Posterior(mean.contiguous(), std.contiguous())


def decode_tiled(
    compression: CompressionAutoencoder, z_0: Tensor, shape: Sequence[int], tiling: Tiling = Tiling()
) -> Tensor:
    """Images of standardised latents, (B, 1, D, H, W), float32 on the CPU; one at a time, as they cost the most memory.

    Args:
        compression: the network, on its device.
        z_0: standardised latents, (B, C, d, h, w), wherever they are.
        shape: (D, H, W) of the images.
        tiling: budgets and overlap.
    """
    device, cell = compression.latent_mean.device, compression.config.downsampling
    if math.prod(shape) <= tiling.whole or not compression.config.channels:
        return torch.cat([compression.decode(latent.to(device), shape).float().cpu() for latent in torch.split(z_0, 1)])

    def decode(part: Tensor) -> Tensor:
        voxels = part[0, 0].numel() * cell**3
        with _in_slabs(compression.network.decoder, voxels, max(1, SLAB_VOXELS // cell), tiling):
            return compression.decode(part.to(device))

    tiles = lay_tiles(z_0.shape[2:], cell, tiling)
    return torch.cat(
        [
            crop_to(blend_tiles(decode, latent, tiles, scale_in=1, scale_out=cell), shape)
            for latent in torch.split(z_0, 1)
        ]
    )


def _in_slabs(half: nn.Module, voxels: int, planes: int, tiling: Tiling) -> AbstractContextManager[None]:
    """Stream a tile that is too large to go through whole."""
    return streamed(half, planes) if voxels > tiling.whole else nullcontext()


def _among(tile: Tile, scale: int) -> tuple[Any, ...]:
    """Where the tile lies in a volume of `scale` voxels a cell."""
    return (..., *(slice(span.start * scale, span.stop * scale) for span in tile))


def blend_tiles(
    function: Callable[[Tensor], Tensor], x: Tensor, tiles: Sequence[Tile], *, scale_in: int, scale_out: int
) -> Tensor:
    """A function of one volume, applied tile by tile: the weighted mean of what tiles say of each voxel.

    Args:
        function: from `scale_in` to `scale_out` voxels a cell, (1, C, ...) to (1, C', ...).
        x: the volume, (1, C, ...).
        tiles: that cover it.
        scale_in: voxels of x that a cell spans along an axis.
        scale_out: voxels of the result that a cell spans.

    Returns:
        (1, C', ...), float32 on the CPU.
    """
    output: Tensor | None = None
    for tile in tiles:
        part = function(x[_among(tile, scale_in)]).float().cpu()
        if output is None:
            output = torch.zeros(1, part.shape[1], *(n // scale_in * scale_out for n in x.shape[2:]))
        for axis, span in enumerate(tile):
            part = part * span.weight(scale_out).reshape(-1, *[1] * (len(tile) - axis - 1))
        output[_among(tile, scale_out)] += part
    assert output is not None
    return output
