"""Encode: scans to codes; images and latents pass one batch at a time."""

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
from ldae.base.ranges import Range, check_range
from ldae.codes import Codes
from ldae.contract import PreparedScan
from ldae.data.manifest import Record
from ldae.errors import CheckpointError, OutputError, TaskError, VolumeError
from ldae.head.intake import contract_problem
from ldae.image_files import Reading
from ldae.io.checkpoints import load_tensors, save_tensors, stream_tensors
from ldae.tasks.code_files import semantic_codes, semantic_tensors
from ldae.tasks.encoded_scans import EncodedScans, Images, Progress, ScanBatch, ScanSource
from ldae.tasks.probe.embeddings import read_embeddings, write_arrays, write_embeddings
from ldae.volume import read_volume

__all__ = [
    "CODES",
    "EncodeResult",
    "check_place",
    "encode_manifest",
    "encode_scans",
    "write_codes",
    "write_slices",
]


CODES = "codes.parquet"


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
        path = source.cache / "codes" / f"{start}.safetensors"
        about = {
            "model": [model.fingerprint(), str(model.config), str(model.dtype)],
            "reading": repr(Reading.current().geometry),
            "force": forced is not None,
            "scans": [_identity(each) for each in part],
        }
        done = _read_batch(path, about) if keep else None
        if done is None:
            done = _encode_batch(source, part, visit, examine=failures is not None, force=forced is not None)
            if keep:
                notes = {"about": about, "failures": done.failures, "forced": done.forced}
                save_tensors(path, semantic_tensors(done.codes), {"notes": json.dumps(notes)})
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


@dataclass(frozen=True)
class _Batch:
    """Codes of a batch without the scans that failed, and reasons by key."""

    codes: list[Codes]
    failures: dict[str, str]
    forced: dict[str, str]


def _encode_batch(
    source: ScanSource,
    records: Sequence[Record],
    visit: Sequence[Callable[[ScanBatch], None]],
    *,
    examine: bool,
    force: bool,
) -> _Batch:
    model = source.model
    modality = model.config.preprocessing.modality
    failures: dict[str, str] = {}
    forced: dict[str, str] = {}
    batch: list[tuple[Record, PreparedScan]] = []
    for record in records:
        if not examine:
            batch.append((record, model.prepare_record(record)))
            continue
        try:
            volume = read_volume(record.image)
            if problem := contract_problem(volume, modality):
                if not force:
                    raise VolumeError(problem)
                forced[record.key] = problem
            batch.append((record, model.prepare(volume)))
        except VolumeError as error:
            failures[record.key] = str(error)
    if not batch:
        return _Batch([], failures, forced)
    prepared = [scan for _, scan in batch]
    seen = ScanBatch([record for record, _ in batch], np.stack([scan.data for scan in prepared]), source)
    codes = model.encode_prepared(prepared, *seen.latents(), noise=False)
    wrong = [r.key for r, each in zip(seen.records, codes, strict=True) if not each.semantic.isfinite().all()]
    if wrong:
        msg = f"the codes of {', '.join(wrong)} are not finite; encode with --precision fp32"
        raise TaskError(msg)
    for see in visit:
        see(seen)
    return _Batch(codes, failures, forced)


def _identity(record: Record) -> list[str]:
    """Name of a scan and what its file holds."""
    try:
        return [record.key, record.content_hash]
    except OSError:  # reading it gives the reason
        return [record.key, ""]


def _read_batch(path: Path, about: Mapping[str, Any]) -> _Batch | None:
    """A batch that an interrupted run kept; None where there is none of these scans."""
    try:
        tensors, metadata = load_tensors(path)
        notes = json.loads(metadata["notes"])
    except (CheckpointError, KeyError, ValueError):
        return None
    if notes["about"] != about:
        return None
    return _Batch(semantic_codes(tensors), notes["failures"], notes["forced"])


def check_place(path: Path, model: LatentDiffusionAutoencoder) -> None:
    """Refuse to replace a table of another model's codes.

    Raises:
        OutputError: naming both models.
    """
    try:
        origin = read_embeddings(path).origin if path.is_file() else None
    except TaskError:  # no table of codes
        return
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
    cache = out / ".encoding" if cache is None else cache
    failures: dict[str, str] = {}
    forced: dict[str, str] = {}
    # Compressed while the images are at hand, so that inversion reads no image again.
    compress = [lambda batch: batch.source.latents(batch.records, batch.images)] if noise else []
    passes = 2 if noise else 1
    scans = encode_scans(
        model,
        records,
        batch_size=batch_size,
        cache=cache,
        keep=True,
        visit=compress,
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
