"""Latents of scans, compressed once, keyed by what the image file holds and by what compresses it."""

import hashlib
import json
import uuid
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldae.contract import LEFT_RIGHT, PREPARATION, Preprocessing
from ldae.data.manifest import Record
from ldae.image_files import Reading
from ldae.io.checkpoints import hash_tensors, save_tensors
from ldae.io.plain import to_plain
from ldae.models.compression import CompressionAutoencoder, Posterior

__all__ = ["LatentCache", "latent_key"]

SUFFIX = ".safetensors"
SHARD_SCANS, SHARD_BYTES = 256, 1 << 26
"""A shard is written once it holds so many scans or bytes."""


@dataclass(eq=False)
class LatentCache:
    """Standardised latent posteriors of scans and of their mirror images, on the CPU; never a noisy draw.

    Training and tasks share one cache in a run folder. Latents lie in shards: safetensors files of many scans. Such a file is
    memory-mapped, so that only indexed latents are read and a cohort need not fit into memory; its header names the scans, so
    that there is no index that a killed process could leave wrong; and torch reads it without another dependency, as Zarr would
    be. Any number of processes write shards into one folder, each under a name of its own, whole or not at all: a killed one
    loses the scans since its last shard. What cannot be read is computed again.

    Attributes:
        read: images of scans on the model's grid, (B, 1, D, H, W) in [0, 1].
        compress: standardised posteriors of such images.
        folder: of the shards of all keys; None keeps nothing.
        key: of all that a latent depends on beside the scan, :func:`latent_key`.
    """

    read: Callable[[Sequence[Record]], Tensor]
    compress: Callable[[Tensor], Posterior]
    folder: Path | None = None
    key: str = ""

    def __post_init__(self) -> None:
        # Mean and std of each scan, (2, C, d, h, w), by its name: in memory, and in shards.
        self._fresh: dict[str, Tensor] = {}
        self._kept: dict[str, Any] = {}
        self._opened: set[Path] = set()
        if self.shards is not None:
            weakref.finalize(self, _write, self.shards, self._fresh)

    @property
    def shards(self) -> Path | None:
        """The folder of the shards of this key."""
        return None if self.folder is None else self.folder / self.key[:16]

    def posterior(
        self, records: Sequence[Record], images: Tensor | None = None, *, mirrored: bool = False
    ) -> Posterior:
        """Posteriors of a batch of scans, (B, C, d, h, w), float32, read where they are known, else computed and kept.

        Args:
            records: the scans, B.
            images: their images, (B, 1, D, H, W), if they have been read already.
            mirrored: of the scans mirrored left to right.

        Raises:
            VolumeError: naming the first scan that cannot be read.
        """
        found = [self._find(record, mirrored) for record in records]
        missing = [row for row, each in enumerate(found) if each is None]
        if missing:
            fresh = self.read([records[row] for row in missing]) if images is None else images[missing]
            posterior = self.compress(fresh.flip(LEFT_RIGHT) if mirrored else fresh)
            for row, mean, std in zip(missing, posterior.mean, posterior.std, strict=True):
                found[row] = self.keep(records[row], mean, std, mirrored=mirrored)
        mean, std = torch.stack([each for each in found if each is not None], dim=1)
        return Posterior(mean, std)

    def means(self, records: Sequence[Record], images: Tensor | None = None, *, mirrored: bool = False) -> Tensor:
        """Posterior means alone, (B, C, d, h, w); arguments as for :meth:`posterior`."""
        return self.posterior(records, images, mirrored=mirrored).mean

    def keep(self, record: Record, mean: Tensor, std: Tensor, *, mirrored: bool = False) -> Tensor:
        """Keep a scan's posterior, mean and std of (C, d, h, w); returns both, (2, C, d, h, w)."""
        both = torch.stack([mean, std]).float().cpu()
        if self.shards is not None:
            self.shards.mkdir(parents=True, exist_ok=True)
            self._fresh[_name(record, mirrored)] = both
            if len(self._fresh) >= min(SHARD_SCANS, SHARD_BYTES / both.nbytes):
                self.flush()
        return both

    def flush(self) -> None:
        """Write a shard of what was kept since the last one, as happens at the end of the cache and of its process, too."""
        if self.shards is not None:
            _write(self.shards, self._fresh)

    def _find(self, record: Record, mirrored: bool) -> Tensor | None:
        """Mean and std of a scan, (2, C, d, h, w); None where they are not known."""
        if self.shards is None:
            return None
        name = _name(record, mirrored)
        if name in self._fresh:
            return self._fresh[name]
        if name not in self._kept:
            self._open_shards(self.shards)
        return self._kept[name].get_tensor(name) if name in self._kept else None

    def _open_shards(self, folder: Path) -> None:
        """Take up the shards that are new in the folder."""
        from safetensors import SafetensorError, safe_open

        for path in set(folder.glob(f"[!.]*{SUFFIX}")) - self._opened:
            self._opened.add(path)
            with suppress(OSError, SafetensorError):  # a damaged one, whose scans are computed again
                shard: Any = safe_open(path, framework="pt")
                self._kept |= dict.fromkeys(shard.keys(), shard)


def _name(record: Record, mirrored: bool) -> str:
    return f"{record.content_hash}{'-mirrored' if mirrored else ''}"


def _write(folder: Path, latents: dict[str, Tensor]) -> None:
    """Write latents as a shard; where the folder has been removed they are no longer wanted."""
    if latents and folder.is_dir():
        save_tensors(folder / f"{uuid.uuid4().hex}{SUFFIX}", latents)
    latents.clear()


def latent_key(compression: CompressionAutoencoder, preprocessing: Preprocessing, precision: torch.dtype) -> str:
    """Hash of what turns a scan into its latent: compression weights, contract, precision, and how files are read."""
    reading = Reading.current().geometry
    parts = [
        hash_tensors(compression.state_dict()),
        to_plain(preprocessing),
        PREPARATION,
        str(precision),
        *(reading if any(reading) else ()),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
