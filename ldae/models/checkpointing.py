"""Activation checkpointing (Chen et al. 2016): less memory for a second forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from ldae.models import convnext
from ldae.models.blocks import ResidualBlock, SelfAttention

__all__ = ["checkpointed"]


@contextmanager
def checkpointed(network: nn.Module) -> Iterator[None]:
    """Within the block, the network's blocks keep only their inputs for the backward pass, which computes the rest again.

    The backward pass itself may run after the block. Gradients are the same: dropout draws again what it drew. Neither
    modules nor the names of their tensors change.

    Args:
        network: whose residual, attention and resampling blocks are meant.
    """
    from monai.networks.blocks import UpSample
    from monai.networks.nets.autoencoderkl import AEKLDownsample, AEKLResBlock

    kinds = (ResidualBlock, SelfAttention, convnext.Block, AEKLResBlock, AEKLDownsample, UpSample)
    blocks = [module for module in network.modules() if isinstance(module, kinds)]
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
