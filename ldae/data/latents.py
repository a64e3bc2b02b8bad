"""Latents of scans, compressed once: a file a scan, keyed by what the image file holds and by what compresses it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ldae.contract import LEFT_RIGHT, Preprocessing
from ldae.data.manifest import Record
from ldae.errors import CheckpointError
from ldae.image_files import Reading
from ldae.io.checkpoints import hash_tensors, load_tensors, save_tensors
from ldae.io.plain import to_plain
from ldae.models.compression import CompressionAutoencoder, Posterior

__all__ = ["LatentCache", "latent_key"]


@dataclass(frozen=True)
class LatentCache:
    """Standardised latent posteriors of scans and of their mirror images, on the CPU; never a noisy draw.

    Training and tasks share one cache in a run folder. Only indexed latents are read, so a cohort need not fit into memory.

    Attributes:
        read: images of scans on the model's grid, (B, 1, D, H, W) in [0, 1].
        compress: standardised posteriors of such images.
        folder: of the files; None keeps nothing.
        key: of all that a latent depends on beside the scan, :func:`latent_key`.
    """

    read: Callable[[Sequence[Record]], Tensor]
    compress: Callable[[Tensor], Posterior]
    folder: Path | None = None
    key: str = ""

    def path(self, record: Record, *, mirrored: bool = False) -> Path | None:
        """The file of a scan's latents, there or not yet."""
        if self.folder is None:
            return None
        return self.folder / self.key[:16] / f"{record.content_hash}{'-mirrored' if mirrored else ''}.safetensors"

    def posterior(
        self, records: Sequence[Record], images: Tensor | None = None, *, mirrored: bool = False
    ) -> Posterior:
        """Posteriors of a batch of scans, read where they are known, else computed and kept.

        Args:
            records: the scans, B.
            images: their images, (B, 1, D, H, W), if they have been read already.
            mirrored: of the scans mirrored left to right.

        Returns:
            Mean and std, (B, C, d, h, w), float32.

        Raises:
            VolumeError: naming the first scan that cannot be read.
        """
        paths = [self.path(record, mirrored=mirrored) for record in records]
        found = [None if path is None else _load(path) for path in paths]
        missing = [row for row, each in enumerate(found) if each is None]
        if missing:
            fresh = self.read([records[row] for row in missing]) if images is None else images[missing]
            posterior = self.compress(fresh.flip(LEFT_RIGHT) if mirrored else fresh)
            for row, mean, std in zip(missing, posterior.mean, posterior.std, strict=True):
                found[row] = self.keep(records[row], mean, std, mirrored=mirrored)
        mean, std = (torch.stack([each[name] for each in found if each]) for name in ("mean", "std"))
        return Posterior(mean, std)

    def keep(self, record: Record, mean: Tensor, std: Tensor, *, mirrored: bool = False) -> dict[str, Tensor]:
        """Keep a scan's posterior, mean and std of (C, d, h, w); returns both by name."""
        tensors = {"mean": mean.float().cpu(), "std": std.float().cpu()}
        if (path := self.path(record, mirrored=mirrored)) is not None:
            save_tensors(path, tensors)
        return tensors

    def means(self, records: Sequence[Record], images: Tensor | None = None, *, mirrored: bool = False) -> Tensor:
        """Posterior means alone, (B, C, d, h, w); arguments as for :meth:`posterior`."""
        return self.posterior(records, images, mirrored=mirrored).mean


def latent_key(compression: CompressionAutoencoder, preprocessing: Preprocessing, precision: torch.dtype) -> str:
    """Hash of what turns a scan into its latent: compression weights, contract, precision, and how files are read."""
    reading = Reading.current().geometry
    parts = [
        hash_tensors(compression.state_dict()),
        to_plain(preprocessing),
        str(precision),
        *(reading if any(reading) else ()),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _load(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file; None where there is none, or a damaged one."""
    if not path.is_file():
        return None
    try:
        return load_tensors(path)[0]
    except CheckpointError:
        return None
