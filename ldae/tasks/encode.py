"""Encode: scans to codes; images and latents pass one batch at a time."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import atomic_file, write_json
from ldae.base.hardware import trim_heap
from ldae.base.part import Part
from ldae.base.ranges import Range, check_range
from ldae.codes import Codes
from ldae.contract import PREPARATION
from ldae.data.manifest import Record
from ldae.errors import OutputError, TaskError
from ldae.image_files import Reading
from ldae.io.checkpoints import stream_tensors
from ldae.tasks.encoded_batch import EncodedBatch
from ldae.tasks.encoded_scans import EncodedScans, Images, Progress, ScanBatch, ScanSource
from ldae.tasks.probe.embeddings import origin_of_table, write_arrays, write_embeddings

__all__ = [
    "CODES",
    "EncodeResult",
    "check_place",
    "encode_manifest",
    "encode_part",
    "encode_scans",
    "write_codes",
    "write_slices",
]


CODES = "codes.parquet"
CACHE = ".encoding"


@dataclass(frozen=True)
class EncodeResult:
    """Files of an encoded manifest.

    Attributes:
        codes: the table of y, one row a scan.
        noise: the file of noise codes, if asked for.
        encoded: number of scans.
        failures: reason by scan, for those that could not be encoded.
        worst_round_trip: largest rms error of a latent after inversion and sampling; None where it was not measured.
        outside: scans outside the model's training domain; None where the model does not know it.
        forced: reason by scan, for those that were encoded against it.
    """

    codes: Path
    noise: Path | None
    encoded: int
    failures: dict[str, str]
    worst_round_trip: float | None = None
    outside: int | None = None
    forced: dict[str, str] = field(default_factory=dict)


def encode_scans(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    *,
    batch_size: int = 16,
    cache: Path | None = None,
    keep: bool = False,
    visit: Sequence[Callable[[ScanBatch], None]] = (),
    failures: dict[str, str] | None = None,
    forced: dict[str, str] | None = None,
    progress: Progress = lambda done, total: None,
) -> EncodedScans:
    """Semantic codes of scans; :meth:`EncodedScans.with_noise` adds the noise codes.

    Args:
        model: the trained model.
        records: rows of a manifest.
        batch_size: scans at a time.
        cache: folder that keeps the latents; a temporary one if it is not given.
        keep: keep finished batches in the cache, and take those that an interrupted run kept; they are not visited again.
        visit: called with each batch, so that what else needs all images reads them in the same pass.
        failures: takes the reason of each scan that cannot be read, or is no T1-weighted brain in template space, by key;
            without it the first that cannot be read is an error, and what scans show is not examined.
        forced: takes the reasons of scans that are none and are encoded all the same.
        progress: called with (done, total).

    Raises:
        VolumeError: naming the first scan that cannot be read.
        TaskError: if there are no scans, or none can be read.
    """
    check_range("batch_size", batch_size, Range(1))
    source = ScanSource(model, cache)
    kept: list[Record] = []
    codes: list[Codes] = []
    for start in range(0, len(records), batch_size):
        part = records[start : start + batch_size]
        about = [
            *(PREPARATION, model.fingerprint(), str(model.config), str(model.dtype), repr(Reading.current().geometry)),
            *(failures is not None, forced is not None, [_identity(each) for each in part]),
        ]
        path = source.cache / "codes" / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()}.safetensors"
        done = EncodedBatch.read(path) if keep else None
        if done is None:
            done = EncodedBatch.encode(source, part, visit, examine=failures is not None, force=forced is not None)
            if keep:
                done.write(path)
        if failures is not None:
            failures |= done.failures
        if forced is not None:
            forced |= done.forced
        kept += [record for record in part if record.key not in done.failures]
        codes += done.codes
        trim_heap()
        progress(min(start + batch_size, len(records)), len(records))
    if not kept:
        reason = next(iter((failures or {}).values()), "the manifest selects no scan; check it and the split")
        msg = f"none of {len(records)} scans could be encoded; the first reason: {reason}"
        raise TaskError(msg)
    return EncodedScans(tuple(kept), tuple(codes), source)


def _identity(record: Record) -> list[str]:
    """Name of a scan and what its file holds."""
    try:
        return [record.key, record.content_hash]
    except OSError:  # reading it gives the reason
        return [record.key, ""]


def check_place(path: Path, model: LatentDiffusionAutoencoder) -> None:
    """Refuse to replace a table of another model's codes.

    Raises:
        OutputError: naming both models.
    """
    origin = origin_of_table(path)
    if origin is not None and origin.model != model.fingerprint():
        msg = (
            f"{path}: holds codes of the model {origin.model[:12]}, and these would be of {model.fingerprint()[:12]}; delete "
            "it, or give another --out"
        )
        raise OutputError(msg)


def write_codes(path: Path, scans: EncodedScans, forced: Mapping[str, str] | None = None) -> Path:
    """Write semantic codes with their model, their distances from its training domain, and why scans should not be encoded.

    Args:
        path: of the table.
        scans: with codes.
        forced: reason by scan.
    """
    notes: dict[str, list[Any]] = {}
    if scans.source.model.domain is not None:
        notes["domain_distance"] = [each.domain_distance for each in scans.codes]
    if forced:
        notes["forced"] = [forced.get(record.key) for record in scans.records]
    return write_embeddings(path, scans.records, scans.semantic.astype(np.float32), scans.source.model.origin, notes)


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
    round_trip: bool = False,
    force: bool = False,
    batch_size: int = 16,
    cache: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> EncodeResult:
    """Encode every scan to `out`/codes.parquet; one that cannot be used is reported and never stops the others.

    The same call after an interruption goes on with the batch that it was in.

    Args:
        model: the trained model.
        records: rows of a manifest.
        out: folder.
        noise: write `out`/noise.safetensors too: of each scan one tensor (C, d, h, w) under its key, and what an exact solver
            recorded, (K, C, d, h, w), under its key and `:record`.
        round_trip: also sample each noise code back and measure what is lost, which takes about as long again.
        force: encode what is no T1-weighted brain in template space too, and say so in the column `forced`.
        batch_size: scans at a time.
        cache: folder that keeps what is finished until all is; `out`/.encoding if it is not given.
        progress: called with (done, total).

    Raises:
        TaskError: if no scan could be encoded.
    """
    cache = cache or out / CACHE
    failures: dict[str, str] = {}
    forced: dict[str, str] = {}
    passes = 2 if noise else 1
    scans = encode_scans(
        model,
        records,
        batch_size=batch_size,
        cache=cache,
        keep=True,
        visit=[_compress] if noise else [],
        failures=failures,
        forced=forced if force else None,
        progress=lambda done, total: progress(done, passes * total),
    )
    path = write_codes(out / CODES, scans, forced)
    outside = None if model.domain is None else sum((each.domain_distance or 0) > 1 for each in scans.codes)
    facts = {
        "model": model.fingerprint(),
        "encoded": len(scans),
        "semantic_width": scans.semantic.shape[1],
        "outside_training_domain": outside,
        "failures": failures,
        "forced": forced,
    }
    noise_path = worst = None
    if noise:
        solver, start = str(model.config.sampling), len(records)
        inverted = scans.with_noise(
            model,
            batch_size=batch_size,
            round_trip=round_trip,
            progress=lambda done, total: progress(start + done, start + total),
        )
        noise_path, worst = _write_noise(
            inverted, out / "noise.safetensors", {"model": model.fingerprint(), "solver": solver}
        )
        facts |= {"solver": solver} | ({"worst_round_trip_rms": worst} if round_trip else {})
    write_json(out / "encode.json", facts)
    shutil.rmtree(cache)
    return EncodeResult(path, noise_path, len(scans), failures, worst, outside, forced)


def encode_part(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    out: Path,
    part: Part,
    *,
    noise: bool = False,
    round_trip: bool = False,
    force: bool = False,
    batch_size: int = 16,
    cache: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, str]:
    """Encode a part of the batches and keep them for :func:`encode_manifest`, which then writes the files of all.

    Parts may run at once, on machines that share the folder; what one of them has left undone, the last call does.

    Args:
        model: as for :func:`encode_manifest`, and so are the other arguments.
        records: all rows of the manifest.
        out: folder.
        part: which batches; their size is the same in all calls.
        noise: find the noise codes too.
        round_trip: as there.
        force: as there.
        batch_size: as there.
        cache: as there.
        progress: called with (done, total).

    Returns:
        Reason of each scan that could not be encoded, by key.
    """
    chosen = part.choose_batches(records, batch_size)
    failures: dict[str, str] = {}
    try:
        scans = encode_scans(
            model,
            chosen,
            batch_size=batch_size,
            cache=cache or out / CACHE,
            keep=True,
            visit=[_compress] if noise else [],
            failures=failures,
            forced={} if force else None,
            progress=progress,
        )
    except TaskError:
        if len(failures) < len(chosen):
            raise
        return failures  # no scan of this part, perhaps one of others
    if noise:
        scans.with_noise(model, batch_size=batch_size, round_trip=round_trip, progress=progress)
    return failures


def _compress(batch: ScanBatch) -> None:
    """Compress scans while their images are at hand, so that inversion reads no image again."""
    batch.source.latents(batch.records, batch.images)


def _write_noise(scans: EncodedScans, path: Path, metadata: dict[str, str]) -> tuple[Path, float | None]:
    """Write the noise codes, each read from its file once; the file and the largest error of the round trip, if measured."""
    left, codes, worst = iter(scans.codes), scans.codes[0], scans.codes[0].round_trip

    def read(name: str) -> Tensor:
        nonlocal codes, worst
        _, _, kind = name.partition(":")
        if not kind:  # of each scan the noise code comes first
            codes = next(left)
            if worst is not None and codes.round_trip is not None:
                worst = max(worst, codes.round_trip)
        tensor = codes.record if kind else codes.noise
        assert tensor is not None
        return tensor.float().contiguous()

    kinds = {
        kind: tuple(each.shape) for kind, each in (("", codes.noise), (":record", codes.record)) if each is not None
    }
    shapes = {f"{record.key}{kind}": shape for record in scans.records for kind, shape in kinds.items()}
    with atomic_file(path) as temporary:
        stream_tensors(temporary, shapes, read, metadata)
    return path, worst
