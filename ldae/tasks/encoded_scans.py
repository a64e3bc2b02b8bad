"""Scans with their codes; images and latents are read when a batch needs them."""

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.hardware import trim_heap
from ldae.base.ranks import barrier, own_part
from ldae.codes import Codes
from ldae.contract import PREPARATION
from ldae.data.manifest import Record
from ldae.image_files import Reading
from ldae.io.checkpoints import is_whole
from ldae.tasks.code_files import FiledCodes, keep_noise

__all__ = ["EncodedScans", "Progress", "ScanBatch", "ScanSource"]

Images = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


class ScanSource:
    """Images and latents of scans on a model's grid, read when a batch needs them.

    Args:
        model: whose grid and compression.
        cache: folder that keeps latents and noise codes, `cache` of a run folder; a temporary one if it is not given.
    """

    def __init__(self, model: LatentDiffusionAutoencoder, cache: Path | None = None) -> None:
        if cache is None:
            cache = Path(tempfile.mkdtemp(prefix="ldae-latents-"))
            weakref.finalize(self, shutil.rmtree, cache, ignore_errors=True)
        self.model = model
        self.cache = cache
        self._latents = model.latent_cache(cache)

    def images(self, records: Sequence[Record]) -> Images:
        """Images in [0, 1], (B, D, H, W).

        Raises:
            VolumeError: naming the first scan that cannot be read.
        """
        return np.stack([self.model.prepare_record(record).data for record in records])

    def flush(self) -> None:
        """Write the latents that were computed, for other processes to read."""
        self._latents.flush()

    def latents(self, records: Sequence[Record], images: Images | None = None, *, mirrored: bool = False) -> Tensor:
        """Standardised latents, (B, C, d, h, w), each computed once.

        Args:
            records: of the scans.
            images: of the scans, where they have been read already.
            mirrored: of the left-right mirrored images.
        """
        batch = None if images is None else torch.from_numpy(images)[:, None]
        return self._latents.means(records, batch, mirrored=mirrored)


@dataclass(frozen=True, eq=False)
class ScanBatch:
    """A batch of scans while they are encoded.

    Attributes:
        records: rows of the manifest, B.
        images: (B, D, H, W) in [0, 1].
        source: of the latents.
    """

    records: Sequence[Record]
    images: Images
    source: ScanSource


@dataclass(frozen=True, eq=False)
class EncodedScans:
    """Scans with their codes, in the same order; images and latents are read when a batch needs them.

    Attributes:
        records: rows of the manifest, N.
        codes: of each scan.
        source: of images and latents.
    """

    records: tuple[Record, ...]
    codes: Sequence[Codes]
    source: ScanSource

    def __len__(self) -> int:
        return len(self.records)

    @property
    def subjects(self) -> list[str]:
        """The subject of each scan."""
        return [record.participant_id for record in self.records]

    @property
    def semantic(self) -> npt.NDArray[np.float64]:
        """y of every scan, (N, S)."""
        return np.stack([codes.semantic.numpy() for codes in self.codes]).astype(np.float64)

    @property
    def first_rows(self) -> list[int]:
        """The row of each subject's first scan, in the order of the scans."""
        first: dict[str, int] = {}
        for row, subject in enumerate(self.subjects):
            first.setdefault(subject, row)
        return list(first.values())

    def select(self, rows: Sequence[int]) -> "EncodedScans":
        """Some of the scans."""
        codes = self.codes
        chosen = codes.select(rows) if isinstance(codes, FiledCodes) else [codes[row] for row in rows]
        return EncodedScans(tuple(self.records[row] for row in rows), chosen, self.source)

    def of_split(self, split: str) -> "EncodedScans":
        """The scans of a split."""
        return self.select([row for row, record in enumerate(self.records) if record.split == split])

    def batches(self, size: int) -> "Iterator[EncodedScans]":
        """All scans, so many at a time."""
        for start in range(0, len(self), size):
            yield self.select(range(start, min(start + size, len(self))))
            trim_heap()

    def images(self) -> Images:
        """Images of all these scans, (N, D, H, W) in [0, 1]: for a batch."""
        return self.source.images(self.records)

    def latents(self) -> Tensor:
        """Standardised latents of all these scans, (N, C, d, h, w): for a batch."""
        return self.source.latents(self.records)

    def with_noise(
        self,
        model: LatentDiffusionAutoencoder,
        *,
        batch_size: int = 16,
        round_trip: bool = False,
        progress: Progress = lambda done, total: None,
    ) -> "EncodedScans":
        """The same scans with their noise codes, which stay in files until they are taken; those known already are kept.

        Processes that have joined share the work, and must all call this.

        Args:
            model: that encoded them.
            batch_size: scans at a time.
            round_trip: also sample each latent back and measure the error of the round trip.
            progress: called with (done, total).
        """
        kind = [PREPARATION, model.fingerprint(), model.config, model.dtype, round_trip, Reading.current().geometry]
        folder = self.source.cache / f"noise-{hashlib.sha256(repr(kind).encode()).hexdigest()[:16]}"
        paths = [folder / f"{record.content_hash}.safetensors" for record in self.records]
        missing = [row for row, path in enumerate(paths) if not is_whole(path)]
        known = len(self) - len(missing)
        barrier()  # all know the same
        for start in own_part().choose(range(0, len(missing), batch_size)):
            rows = missing[start : start + batch_size]
            batch = self.select(rows)
            found = model.with_noise(batch.codes, batch.latents(), round_trip=round_trip)
            for row, codes in zip(rows, found, strict=True):
                keep_noise(codes, paths[row])
            progress(known + start + len(rows), len(self))
            trim_heap()
        barrier()
        return replace(self, codes=FiledCodes(self.codes, paths, self.source))
