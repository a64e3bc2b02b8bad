"""Volumes of any size through the compression network; large ones layer by layer, each layer slab by slab, with little memory.

A whole volume needs several feature maps of its finest level at once, and its convolutions as much scratch. Streamed, a feature
map is a list of slabs. A layer computes one slab at a time from it and a plane of each neighbour; slabs are freed once the layer
has used them, so that about one feature map is alive. Group norms take their statistics over all slabs. The result is that of the
whole volume, up to rounding.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldae.models.blocks import group_moments
from ldae.models.compression import CompressionAutoencoder, Posterior

__all__ = ["WHOLE_VOXELS", "decode_latents", "encode_images", "stream"]

WHOLE_VOXELS = 160**3
"""Voxels of the largest volume that is not streamed."""

SLAB_VOXELS = 16
"""Thickness of a slab: thinner ones repeat more planes, thicker ones need more scratch."""

Slabs = list[Tensor]
"""A feature map in parts along its first spatial axis, each (1, C, k, H, W). Whoever reads them empties the list."""


def encode_images(compression: CompressionAutoencoder, images: Tensor, whole: int = WHOLE_VOXELS) -> Posterior:
    """Standardised posteriors of images of any size, (B, C, d, h, w) on the CPU.

    Args:
        compression: the network, on its device.
        images: (B, 1, D, H, W), on any device; as many at a time as `whole` holds.
        whole: voxels of the largest volume that is not streamed.
    """
    device, cell, voxels = compression.latent_mean.device, compression.config.downsampling, images[0, 0].numel()
    large = voxels > whole and bool(compression.config.channels)
    parts = []
    for chunk in torch.split(images, max(1, whole // voxels)):
        with _streamed(compression.network, "encoder", max(1, SLAB_VOXELS // cell) * cell, active=large):
            parts.append(compression.encode(chunk.to(device, memory_format=torch.channels_last_3d)))
    mean, std = (torch.cat([getattr(part, name).contiguous().cpu() for part in parts]) for name in ("mean", "std"))
    return Posterior(mean, std)


def decode_latents(
    compression: CompressionAutoencoder, z_0: Tensor, shape: Sequence[int], whole: int = WHOLE_VOXELS
) -> Tensor:
    """Images of standardised latents, (B, 1, D, H, W), float32 on the CPU; one at a time, as they cost the most memory.

    Args:
        compression: the network, on its device.
        z_0: standardised latents, (B, C, d, h, w), on any device.
        shape: (D, H, W) of the images.
        whole: voxels of the largest volume that is not streamed.
    """
    device, cell = compression.latent_mean.device, compression.config.downsampling
    large = math.prod(shape) > whole and bool(compression.config.channels)
    with _streamed(compression.network, "decoder", max(1, SLAB_VOXELS // cell), active=large):
        return torch.cat([compression.decode(z.to(device), shape).float().cpu() for z in torch.split(z_0, 1)])


@contextmanager
def _streamed(network: Any, half: str, planes: int, *, active: bool) -> Iterator[None]:
    """Within the block, the encoder or decoder of MONAI's AutoencoderKL streams its input, if active."""
    if not active:
        yield
        return
    module = getattr(network, half)
    module.forward = partial(stream, module.blocks, planes=planes)
    try:
        yield
    finally:
        del module.forward


def stream(blocks: Iterable[nn.Module], x: Tensor, planes: int) -> Tensor:
    """Run the encoder or the decoder of MONAI's AutoencoderKL on one volume.

    Args:
        blocks: `network.encoder.blocks` or `network.decoder.blocks`.
        x: (1, C, D, H, W).
        planes: of x in a slab; for an encoder a multiple of its downsampling.

    Returns:
        What the blocks return in a row.
    """
    from monai.networks.blocks import Convolution, UpSample
    from monai.networks.nets.autoencoderkl import AEKLDownsample, AEKLResBlock

    slabs: Slabs = list(torch.split(x, planes, dim=2))
    for block in blocks:
        if isinstance(block, AEKLResBlock):
            slabs = _residual(block, slabs)
        elif isinstance(block, nn.GroupNorm):
            norm = _whole_norm(block, slabs)
            slabs = [norm(slab) for slab, _, _ in _with_neighbours(slabs, 0, 0)]
        elif isinstance(block, AEKLDownsample):
            # It pads behind only, and leaves the plane that it borrowed out by itself.
            slabs = [block(slab) for slab, _, _ in _with_neighbours(slabs, 0, 1)]
        elif isinstance(block, Convolution | UpSample):
            scale = 2 if isinstance(block, UpSample) else 1
            slabs = [_cut(block(slab), *(scale * n for n in borrowed)) for slab, *borrowed in _with_neighbours(slabs)]
        else:
            # Attention sees the whole feature map, which is small where networks attend.
            sizes = [slab.shape[2] for slab in slabs]
            slabs = list(torch.split(block(torch.cat(slabs, dim=2)), sizes, dim=2))
    return torch.cat(slabs, dim=2)


def _residual(block: Any, slabs: Slabs) -> Slabs:
    """An AEKLResBlock: norm, SiLU, convolution, twice, beside a shortcut."""
    norm = _whole_norm(block.norm1, slabs)
    hidden: Slabs = []
    shortcuts: Slabs = []
    for slab, before, after in _with_neighbours(slabs):
        hidden.append(_cut(block.conv1(F.silu(norm(slab), inplace=True)), before, after))
        shortcuts.append(block.nin_shortcut(_cut(slab, before, after)))
    norm = _whole_norm(block.norm2, hidden)
    output: Slabs = []
    for slab, before, after in _with_neighbours(hidden):
        output.append(shortcuts.pop(0) + _cut(block.conv2(F.silu(norm(slab), inplace=True)), before, after))
    return output


def _with_neighbours(slabs: Slabs, before: int = 1, after: int = 1) -> Iterator[tuple[Tensor, int, int]]:
    """Each slab with planes of its neighbours, and how many it got in front and behind; the list is emptied on the way."""
    front: Tensor | None = None
    while slabs:
        slab = slabs.pop(0)
        parts = [] if front is None or not before else [front]
        behind = [slabs[0][:, :, :after]] if slabs and after else []
        front = slab[:, :, -before:].clone() if before else None
        whole = torch.cat([*parts, slab, *behind], dim=2) if parts or behind else slab
        yield whole, before if parts else 0, after if behind else 0


def _cut(slab: Tensor, before: int, after: int) -> Tensor:
    """The slab without planes in front and behind; a copy, as a view would keep them alive."""
    return slab if not before and not after else slab[:, :, before : slab.shape[2] - after].clone()


def _whole_norm(norm: nn.GroupNorm, slabs: Slabs) -> Callable[[Tensor], Tensor]:
    """A group norm with the statistics of all slabs, for parts of them."""
    # As inference with a batch norm, which takes statistics for each channel.
    moments = group_moments(slabs, norm.num_groups)[:, 0].float()
    mean, variance = moments.repeat_interleave(norm.num_channels // norm.num_groups, dim=1)

    def apply(x: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, norm.weight, norm.bias, training=False, eps=norm.eps)

    return apply
