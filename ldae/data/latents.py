"""Cached latents: the posterior mean and std of every scan, keyed by the weights that made them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ldae.errors import CheckpointError
from ldae.io.checkpoints import load_tensors, save_tensors

__all__ = ["LatentCache", "load_or_encode"]

EncodeBatch = Callable[[Sequence[int]], tuple[Tensor, Tensor]]
"""Indices of scans -> standardised posterior means and stds, each (B, C, d, h, w)."""


@dataclass(frozen=True)
class LatentCache:
    """Latents of a cohort, on the CPU.

    Attributes:
        mean: standardised posterior means, (N, C, d, h, w), float32. Never a noisy draw.
        std: standardised posterior stds, the same shape.
        fingerprint: hash of the compression weights and of the scans' keys.
    """

    mean: Tensor
    std: Tensor
    fingerprint: str


def load_or_encode(
    path: Path,
    *,
    fingerprint: str,
    count: int,
    encode: EncodeBatch,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> LatentCache:
    """Read the cache if it was made by the same weights from the same scans, else make and save it.

    Args:
        path: of the safetensors file.
        fingerprint: what the latents depend on.
        count: number of scans N.
        encode: encodes a batch of scans by index.
        batch_size: scans at a time.
        progress: told (done, total).
    """
    if path.is_file():
        try:
            tensors, metadata = load_tensors(path)
        except CheckpointError:
            metadata = {}  # damaged: made again below
        if metadata.get("fingerprint") == fingerprint:
            return LatentCache(tensors["mean"], tensors["std"], fingerprint)
    means, stds = [], []
    for start in range(0, count, batch_size):
        mean, std = encode(range(start, min(start + batch_size, count)))
        means.append(mean.float().cpu().contiguous())
        stds.append(std.float().cpu().contiguous())
        if progress is not None:
            progress(min(start + batch_size, count), count)
    cache = LatentCache(torch.cat(means), torch.cat(stds), fingerprint)
    save_tensors(path, {"mean": cache.mean, "std": cache.std}, {"fingerprint": fingerprint})
    return cache
