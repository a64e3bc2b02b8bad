"""Encode: scans to codes; images and latents pass one batch at a time."""

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
from ldae.codes import Codes
from ldae.contract import PreparedScan
from ldae.data.manifest import Record
from ldae.errors import TaskError, VolumeError
from ldae.files import atomic_file, write_json
from ldae.hardware import trim_heap
from ldae.io.checkpoints import stream_tensors
from ldae.tasks.noise_file import FiledCodes
from ldae.tasks.probe.embeddings import write_arrays, write_embeddings

__all__ = [
    "EncodeResult",
    "EncodedScans",
    "Progress",
    "ScanBatch",
    "ScanSource",
    "encode_manifest",
    "encode_scans",
    "write_codes",
    "write_slices",
]

Images = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


class ScanSource:
    """Images and latents of scans on a model's grid, read when a batch needs them.

    Args:
        model: whose grid and compression.
        cache: folder that keeps the latents, `cache` of a run folder; a temporary one if it is not given.
    """

    def __init__(self, model: LatentDiffusionAutoencoder, cache: Path | None = None) -> None:
        if cache is None:
            cache = Path(tempfile.mkdtemp(prefix="ldae-latents-"))
            weakref.finalize(self, shutil.rmtree, cache, ignore_errors=True)
        self.model = model
        self._latents = model.latent_cache(cache)

    def images(self, records: Sequence[Record]) -> Images:
        """Images in [0, 1], (B, D, H, W).

        Raises:
            VolumeError: naming the first scan that cannot be read.
        """
        return np.stack([self.model.prepare_record(record).data for record in records])

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

    def latents(self) -> tuple[Tensor | None, Tensor | None]:
        """Latents and mirrored latents, (B, C, d, h, w) each, as far as the semantic encoder reads them."""
        encoder = self.source.model.networks.semantic_encoder
        return (
            self.source.latents(self.records, self.images) if encoder.reads_latent else None,
            self.source.latents(self.records, self.images, mirrored=True) if encoder.reads_mirrored_latent else None,
        )


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
        measure: bool = True,
        progress: Progress = lambda done, total: None,
    ) -> "EncodedScans":
        """The same scans with their noise codes, which stay in a temporary file until they are taken.

        Args:
            model: that encoded them.
            batch_size: scans at a time.
            measure: sample each latent back, to know the error of the round trip.
            progress: called with (done, total).
        """

        def inverted() -> Iterator[Codes]:
            done = 0
            for batch in self.batches(batch_size):
                yield from model.with_noise(batch.codes, batch.latents(), measure=measure)
                done += len(batch)
                progress(done, len(self))

        return replace(self, codes=FiledCodes.write(inverted()))


@dataclass(frozen=True)
class EncodeResult:
    """Files of an encoded manifest.

    Attributes:
        codes: the table of y, one row a scan.
        noise: the file of noise codes, if asked for.
        encoded: number of scans.
        failures: reason by scan, for those that could not be encoded.
        worst_round_trip: largest rms error of a latent after inversion and sampling; None without noise codes.
        outside: scans outside the model's training domain; None where the model does not know it.
    """

    codes: Path
    noise: Path | None
    encoded: int
    failures: dict[str, str]
    worst_round_trip: float | None = None
    outside: int | None = None


def encode_scans(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    *,
    batch_size: int = 16,
    cache: Path | None = None,
    visit: Sequence[Callable[[ScanBatch], None]] = (),
    failures: dict[str, str] | None = None,
    progress: Progress = lambda done, total: None,
) -> EncodedScans:
    """Semantic codes of scans; :meth:`EncodedScans.with_noise` adds the noise codes.

    Args:
        model: the trained model.
        records: rows of a manifest.
        batch_size: scans at a time.
        cache: folder that keeps the latents; a temporary one if it is not given.
        visit: called with each batch, so that what else needs all images reads them in the same pass.
        failures: takes the reason of each scan that cannot be read, by key; without it the first one is an error.
        progress: called with (done, total).

    Raises:
        VolumeError: naming the first scan that cannot be read.
        TaskError: if there are no scans, or none can be read.
    """
    source = ScanSource(model, cache)
    kept: list[Record] = []
    codes: list[Codes] = []
    for start in range(0, len(records), batch_size):
        batch: list[tuple[Record, PreparedScan]] = []
        for record in records[start : start + batch_size]:
            try:
                batch.append((record, model.prepare_record(record)))
            except VolumeError as error:
                if failures is None:
                    raise
                failures[record.key] = str(error)
        if batch:
            prepared = [scan for _, scan in batch]
            seen = ScanBatch([record for record, _ in batch], np.stack([scan.data for scan in prepared]), source)
            found = model.encode_prepared(prepared, *seen.latents(), noise=False)
            wrong = [r.key for r, each in zip(seen.records, found, strict=True) if not each.semantic.isfinite().all()]
            if wrong:
                msg = f"the codes of {', '.join(wrong)} are not finite; encode with --precision fp32"
                raise TaskError(msg)
            kept += seen.records
            codes += found
            for see in visit:
                see(seen)
        trim_heap()
        progress(min(start + batch_size, len(records)), len(records))
    if not kept:
        reason = next(iter((failures or {}).values()), "the manifest selects no scan; check it and the split")
        msg = f"none of {len(records)} scans could be encoded; the first reason: {reason}"
        raise TaskError(msg)
    return EncodedScans(tuple(kept), tuple(codes), source)


def write_codes(path: Path, scans: EncodedScans) -> Path:
    """Write semantic codes with their model, and their distances from its training domain where it knows that."""
    distances = [each.domain_distance for each in scans.codes]
    values = scans.semantic.astype(np.float32)
    return write_embeddings(path, scans.records, values, scans.source.model.origin, distances)


def write_slices(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    path: Path,
    *,
    batch_size: int = 8,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Write the 2D network's vector of each slice, as tokens for a probe with attention.

    Args:
        model: whose semantic encoder reads slices.
        records: rows of a manifest.
        path: NPZ file with participant_id, session_id and values, (scans, slices, S).
        batch_size: scans at a time.
        progress: called with (done, total).

    Raises:
        ConfigError: if the semantic encoder reads whole volumes.
        VolumeError: naming the first scan that cannot be read.
    """
    source = ScanSource(model)
    values: list[Images] = []
    for start in range(0, len(records), batch_size):
        images = source.images(records[start : start + batch_size])
        values += list(model.slice_vectors(torch.from_numpy(images)[:, None]).numpy())
        progress(len(values), len(records))
    return write_arrays(path, records, np.stack(values))


def encode_manifest(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    out: Path,
    *,
    noise: bool = False,
    batch_size: int = 16,
    progress: Progress = lambda done, total: None,
) -> EncodeResult:
    """Encode every scan to `out`/codes.parquet; a scan that cannot be read is reported and never stops the others.

    Args:
        model: the trained model.
        records: rows of a manifest.
        out: folder.
        noise: write `out`/noise.safetensors too: of each scan one tensor (C, d, h, w) under its key, and what an exact solver
            recorded, (K, C, d, h, w), under its key and `:record`.
        batch_size: scans at a time.
        progress: called with (done, total).

    Raises:
        TaskError: if no scan could be encoded.
    """
    failures: dict[str, str] = {}
    # Compressed while the images are at hand, so that inversion reads no image again.
    compress = [lambda batch: batch.source.latents(batch.records, batch.images)] if noise else []
    passes = 2 if noise else 1
    scans = encode_scans(
        model,
        records,
        batch_size=batch_size,
        visit=compress,
        failures=failures,
        progress=lambda done, total: progress(done, passes * total),
    )
    path = write_codes(out / "codes.parquet", scans)
    outside = None if model.domain is None else sum((each.domain_distance or 0) > 1 for each in scans.codes)
    facts = {
        "model": model.fingerprint(),
        "encoded": len(scans),
        "semantic_width": scans.semantic.shape[1],
        "outside_training_domain": outside,
        "failures": failures,
    }
    noise_path = worst = None
    if noise:
        solver, start = str(model.config.sampling), len(records)
        noise_path, worst = _write_noise(
            model,
            scans,
            out / "noise.safetensors",
            {"model": model.fingerprint(), "solver": solver},
            batch_size,
            lambda done, total: progress(start + done, start + total),
        )
        facts |= {"solver": solver, "worst_round_trip_rms": worst}
    write_json(out / "encode.json", facts)
    return EncodeResult(path, noise_path, len(scans), failures, worst, outside)


def _write_noise(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    path: Path,
    metadata: dict[str, str],
    batch_size: int,
    progress: Progress,
) -> tuple[Path, float]:
    """Invert and write a batch at a time; the file and the largest error of the round trip."""
    batches, waiting, worst, done = scans.batches(batch_size), dict[str, Tensor](), 0.0, 0

    def invert() -> None:
        nonlocal worst, done
        batch = next(batches)
        for record, codes in zip(batch.records, model.with_noise(batch.codes, batch.latents()), strict=True):
            for name, tensor in ((record.key, codes.noise), (f"{record.key}:record", codes.record)):
                if tensor is not None:
                    waiting[name] = tensor.float().contiguous()
            worst = max(worst, codes.round_trip or 0.0)
        done += len(batch)
        progress(done, len(scans))

    def read(name: str) -> Tensor:
        if name not in waiting:
            invert()
        return waiting.pop(name)

    invert()
    first = {kind: waiting.get(f"{scans.records[0].key}{kind}") for kind in ("", ":record")}
    kinds = {kind: tuple(each.shape) for kind, each in first.items() if each is not None}
    shapes = {f"{record.key}{kind}": shape for record in scans.records for kind, shape in kinds.items()}
    with atomic_file(path) as temporary:
        stream_tensors(temporary, shapes, read, metadata)
    return path, worst
