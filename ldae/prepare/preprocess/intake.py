"""Scans given as files or as a BIDS folder: raw ones are preprocessed, and all become one manifest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ldae.base.processes import run_each
from ldae.contract import Modality, Preprocessing
from ldae.data.manifest import Manifest, Record, build_manifest, read_manifest
from ldae.data.text_table import MISSING_WORDS, shortlist
from ldae.errors import CohortError, LdaeError, ManifestError, VolumeError
from ldae.head.intake import Content, check_prepared, content_of, only_t1w
from ldae.head.preprocess import PreprocessConfig
from ldae.prepare.imports.bids import import_bids
from ldae.prepare.preprocess.cohort import preprocess_manifest
from ldae.volume import SUFFIXES, read_volume

__all__ = ["OpenedScans", "open_scans", "read_scans"]


@dataclass(frozen=True)
class OpenedScans:
    """Scans that a model can read.

    Attributes:
        failures: reason of each scan that is no T1-weighted head or brain, or could not be preprocessed, by key.
        preprocessed: number of scans that were raw.
        warnings: reasons to look at what was made of a scan, by key.
    """

    manifest: Manifest
    failures: dict[str, str]
    preprocessed: int = 0
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)


def open_scans(
    paths: Sequence[Path],
    out: Path,
    *,
    contract: Callable[[], Preprocessing],
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> OpenedScans:
    """The scans of a manifest as they are; those of files or of a BIDS folder, preprocessed where they are raw.

    Args:
        paths: one manifest, one BIDS folder, or image files.
        out: folder for what is made of raw scans, `prepared` under it; unchanged scans are not preprocessed again.
        contract: tells the model's; asked where something is raw or given as a file.
        workers: processes.
        progress: called with (scans done, all scans) of each kind, heads and brains.

    Raises:
        ManifestError: for a manifest or an image that cannot be used.
        CohortError: if the folder is no BIDS data set, or no scan can be used.
    """
    folder = len(paths) == 1 and paths[0].is_dir()
    manifest = None if folder else read_scans(paths)
    if manifest is not None and not any(path.name.lower().endswith(SUFFIXES) for path in paths):
        return OpenedScans(manifest, {})
    made, of = out / "prepared", contract()
    if manifest is None:
        manifest = read_manifest(import_bids(paths[0], made / "scans.tsv", force=True).manifest)
    found = run_each(partial(_examine, of.modality), manifest.records, lost=_lost, workers=min(workers, len(manifest)))
    failures = {record.key: reason for record, (_, reason) in zip(manifest.records, found, strict=True) if reason}
    images = {record.key: record.image for record, (what, _) in zip(manifest.records, found, strict=True) if what}
    warnings: dict[str, tuple[str, ...]] = {}
    raw = 0
    for content in ("head", "brain"):
        chosen = manifest.select(np.array([what == content for what, _ in found]))
        if not len(chosen):
            continue
        raw += len(chosen)
        config = PreprocessConfig(voxel_size_mm=of.voxel_size_mm, already_stripped=content == "brain")
        report = preprocess_manifest(chosen, made / content, config, workers=workers, progress=progress)
        failures |= report.failures
        warnings |= report.warnings
        for outcome in report.outcomes:
            if outcome.image is not None:
                images[outcome.key] = outcome.image
                try:
                    check_prepared(read_volume(outcome.image), of.modality)
                except LdaeError as error:
                    failures[outcome.key] = str(error)
    usable = [record.key in images and record.key not in failures for record in manifest.records]
    kept = manifest.select(np.array(usable))
    if not len(kept):
        key, reason = next(iter(failures.items()))
        msg = f"none of {len(manifest)} scans can be used; {key}: {reason}"
        raise CohortError(msg)
    rows = kept.table.assign(image=[str(images[record.key].absolute()) for record in kept.records])
    return OpenedScans(build_manifest(rows, manifest.path), failures, raw, warnings)


def read_scans(paths: Sequence[Path]) -> Manifest:
    """Read one manifest, or make one of image files: subject and session as in BIDS names, else the file's name and `1`.

    Raises:
        ManifestError: for a manifest or an image that cannot be used, or both at once.
    """
    if not any(path.name.lower().endswith(SUFFIXES) for path in paths):
        if len(paths) == 1:
            return read_manifest(paths[0])
        msg = (
            f"{len(paths)} inputs of which none is an image; give one manifest, or image files ({', '.join(SUFFIXES)})"
        )
        raise ManifestError(msg)
    absent = [str(path) for path in paths if not path.is_file()]
    if absent:
        msg = f"{shortlist(absent)}: no such image file; check the path"
        raise ManifestError(msg)
    rows = []
    for path in paths:
        name = path.name.partition(".")[0]
        name = f"sub-{name}" if name.lower() in MISSING_WORDS else name
        entities = dict(part.partition("-")[::2] for part in name.split("_"))
        subject, session = entities.get("sub"), entities.get("ses")
        rows.append(
            {
                "participant_id": f"sub-{subject}" if subject else name,
                "session_id": f"ses-{session}" if session else "1",
                "image": str(path.absolute()),
            }
        )
    return build_manifest(pd.DataFrame(rows), paths[0].absolute())


def _examine(modality: Modality, record: Record) -> tuple[Content | None, str]:
    """What a scan shows, or why it cannot be used."""
    try:
        volume = read_volume(record.image)
        content, fit = content_of(volume, modality)
        if content == "prepared":
            check_prepared(volume, modality, fit)
        elif modality != "T1w":
            raise VolumeError(only_t1w(content, modality))
        return content, ""
    except LdaeError as error:
        return None, str(error)


def _lost(_: object, error: BaseException) -> tuple[Content | None, str]:
    return None, f"its process ended ({error}); use fewer --workers"
