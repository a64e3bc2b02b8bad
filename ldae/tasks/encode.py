"""Encode: scans to codes, kept as a table of y and, on request, a file of noise codes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.codes import Codes
from ldae.contract import PreparedScan
from ldae.data.manifest import Record
from ldae.errors import TaskError, VolumeError
from ldae.io.checkpoints import save_tensors
from ldae.io.files import write_json
from ldae.tasks.probe.embeddings import write_arrays, write_embeddings
from ldae.volume import read_volume

__all__ = ["EncodeResult", "EncodedScans", "Progress", "encode_manifest", "encode_scans", "write_slices"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EncodedScans:
    """Scans on the model's grid with their codes, in the same order.

    Attributes:
        records: rows of the manifest.
        images: (N, D, H, W) in [0, 1].
        codes: of each scan.
        latents: standardised latents, (N, C, d, h, w); what the codes should decode to.
    """

    records: tuple[Record, ...]
    images: npt.NDArray[np.float32]
    codes: tuple[Codes, ...]
    latents: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.records)

    def with_noise(
        self, model: LatentDiffusionAutoencoder, *, batch_size: int = 32, progress: "Progress | None" = None
    ) -> "EncodedScans":
        """The same scans with their noise codes found.

        Args:
            model: that encoded them.
            batch_size: scans at a time.
            progress: told (done, total).
        """
        codes: list[Codes] = []
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            codes += model.with_noise(self.codes[rows], torch.from_numpy(self.latents[rows]))
            if progress is not None:
                progress(len(codes), len(self))
        return replace(self, codes=tuple(codes))

    @property
    def semantic(self) -> npt.NDArray[np.float64]:
        """y of every scan, (N, S)."""
        return np.stack([codes.semantic.numpy() for codes in self.codes]).astype(np.float64)

    @property
    def first_rows(self) -> list[int]:
        """The row of each subject's first scan, in the order of the scans."""
        first: dict[str, int] = {}
        for row, record in enumerate(self.records):
            first.setdefault(record.participant_id, row)
        return list(first.values())

    def select(self, rows: Sequence[int]) -> "EncodedScans":
        """Some of the scans."""
        return EncodedScans(
            tuple(self.records[row] for row in rows),
            self.images[list(rows)],
            tuple(self.codes[row] for row in rows),
            self.latents[list(rows)],
        )


@dataclass(frozen=True)
class EncodeResult:
    """What encoding a manifest left.

    Attributes:
        codes: the table of y, one row a scan.
        noise: the file of noise codes, if asked for.
        encoded: number of scans.
        failures: reason by scan, for those that could not be encoded.
        worst_round_trip: largest rms error of a latent after inversion and sampling; None without noise codes.
    """

    codes: Path
    noise: Path | None
    encoded: int
    failures: dict[str, str]
    worst_round_trip: float | None = None


def encode_scans(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> EncodedScans:
    """Read scans and find their semantic codes and latents; :meth:`EncodedScans.with_noise` adds the noise codes.

    Args:
        model: the trained model.
        records: rows of a manifest.
        batch_size: scans at a time.
        progress: told (done, total).

    Raises:
        VolumeError: naming the first scan that cannot be read.
        TaskError: if there are no scans.
    """
    if not records:
        msg = "no scans to encode; check the manifest and the split"
        raise TaskError(msg)
    images, codes, latents = [], [], []
    for batch in _batches(records, batch_size):
        prepared = [prepare_record(model, record) for record in batch]
        images += [scan.data for scan in prepared]
        compressed = model.compress_prepared(prepared)
        codes += model.encode_prepared(prepared, compressed, noise=False)
        latents.append(compressed.numpy())
        if progress is not None:
            progress(len(codes), len(records))
    return EncodedScans(tuple(records), np.stack(images), tuple(codes), np.concatenate(latents))


def write_slices(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    path: Path,
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Path:
    """Write what the semantic encoder's 2D network says of each slice, as tokens for a probe with attention.

    Args:
        model: whose semantic encoder reads slices.
        records: rows of a manifest.
        path: NPZ file with participant_id, session_id and values, (scans, slices, S).
        batch_size: scans at a time.
        progress: told (done, total).

    Raises:
        ConfigError: if the semantic encoder reads whole volumes.
        VolumeError: naming the first scan that cannot be read.
    """
    values: list[npt.NDArray[np.float32]] = []
    for batch in _batches(records, batch_size):
        images = np.stack([prepare_record(model, record).data for record in batch])
        values += list(model.slice_vectors(torch.from_numpy(images)[:, None]).numpy())
        if progress is not None:
            progress(len(values), len(records))
    return write_arrays(path, records, np.stack(values))


def prepare_record(model: LatentDiffusionAutoencoder, record: Record) -> PreparedScan:
    """A row's scan on the model's grid; errors name the file."""
    volume = read_volume(record.image)
    try:
        return model.prepare(volume)
    except VolumeError as error:
        msg = f"{record.image}: {error}"
        raise VolumeError(msg) from error


def encode_manifest(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    out: Path,
    *,
    noise: bool = False,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> EncodeResult:
    """Encode every scan to `out`/codes.parquet; a scan that cannot be read is reported and never stops the others.

    Args:
        model: the trained model.
        records: rows of a manifest.
        out: folder.
        noise: write `out`/noise.safetensors too: of each scan one tensor (C, d, h, w) under its key, and what an exact solver
            recorded, (K, C, d, h, w), under its key and `:record`.
        batch_size: scans at a time.
        progress: told (done, total).

    Raises:
        TaskError: if no scan could be encoded.
    """
    failures: dict[str, str] = {}
    rows: list[tuple[Record, Codes]] = []
    done = 0
    for batch in _batches(records, batch_size):
        readable: list[tuple[Record, PreparedScan]] = []
        for record in batch:
            try:
                readable.append((record, prepare_record(model, record)))
            except VolumeError as error:
                failures[record.key] = str(error)
        if readable:
            codes = model.encode_prepared([scan for _, scan in readable], noise=noise)
            rows += zip((record for record, _ in readable), codes, strict=True)
        done += len(batch)
        if progress is not None:
            progress(done, len(records))
    if not rows:
        reason = next(iter(failures.values()), "the manifest selects no scan")
        msg = f"none of {len(records)} scans could be encoded; the first reason: {reason}"
        raise TaskError(msg)
    values = np.stack([each.semantic.numpy() for _, each in rows])
    path = write_embeddings(out / "codes.parquet", [record for record, _ in rows], values)
    noise_path = None
    fingerprint, solver = model.fingerprint(), str(model.config.sampling)
    if noise:
        tensors = {record.key: each.noise for record, each in rows if each.noise is not None}
        tensors |= {f"{record.key}:record": each.record for record, each in rows if each.record is not None}
        noise_path = save_tensors(out / "noise.safetensors", tensors, {"model": fingerprint, "solver": solver})
    round_trips = [each.round_trip for _, each in rows if each.round_trip is not None]
    worst = max(round_trips, default=None)
    result = EncodeResult(path, noise_path, len(rows), failures, worst)
    facts = {
        "model": fingerprint,
        "encoded": len(rows),
        "semantic_width": values.shape[1],
        "failures": failures,
    }
    if noise:
        facts |= {"solver": solver, "worst_round_trip_rms": worst}
    write_json(out / "encode.json", facts)
    return result


def _batches(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]
