"""The folder of preprocessed scans: names, files written whole or not at all, and the recognition of finished work."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ldae.data.manifest import Manifest, Record, write_manifest
from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.head.alignment import write_transform
from ldae.head.preprocess import PreprocessedScan
from ldae.head.quality import Quality
from ldae.io.files import sha256_of, write_bytes, write_json
from ldae.prepare.preprocess.overlay import draw_overlay
from ldae.version import __version__
from ldae.volume import Grid, write_volume

__all__ = [
    "Outcome",
    "ScanJob",
    "check_folder",
    "finished_outcome",
    "plan_jobs",
    "write_derived_manifest",
    "write_scan",
]

# Raised whenever the pipeline gives other results for the same scan, so that old ones count as unfinished.
PIPELINE_VERSION = 2
SPACE = "MNI152"
MANIFEST, DESCRIPTION = "manifest.tsv", "dataset_description.json"


@dataclass(frozen=True)
class ScanJob:
    """One scan to preprocess.

    Attributes:
        key: participant and session, as the manifest names them.
        image: the raw scan.
        stem: path of the results without their endings, `.../sub-X_ses-Y`.
        config: the configuration as plain values, for the fingerprint and the provenance.
        brain_mask_source: somebody's mask of the raw scan's brain, or None.
    """

    key: str
    image: Path
    stem: Path
    config: Mapping[str, Any]
    brain_mask_source: Path | None = None

    @property
    def preprocessed(self) -> Path:
        """The image in template space."""
        return self._path(f"_space-{SPACE}_desc-preproc_T1w.nii.gz")

    @property
    def brain_mask(self) -> Path:
        """Its brain mask."""
        return self._path(f"_space-{SPACE}_desc-brain_mask.nii.gz")

    @property
    def native_mask(self) -> Path:
        """The brain mask on the raw scan's own grid."""
        return self._path("_desc-brain_mask.nii.gz")

    @property
    def transform(self) -> Path:
        """The affine in ITK's text format: applied to the raw image, it brings it to the template."""
        return self._path(f"_from-T1w_to-{SPACE}_mode-image_xfm.txt")

    @property
    def overlay(self) -> Path:
        """The picture to look at."""
        return self._path(f"_space-{SPACE}_desc-preproc_overlay.png")

    @property
    def sidecar(self) -> Path:
        """Transform, quality and provenance; written last, so its presence says that the rest is there."""
        return self._path(f"_space-{SPACE}_desc-preproc_T1w.json")

    @property
    def files(self) -> tuple[Path, ...]:
        """All that a finished scan has."""
        return self.preprocessed, self.brain_mask, self.native_mask, self.transform, self.overlay, self.sidecar

    def _path(self, ending: str) -> Path:
        return self.stem.with_name(self.stem.name + ending)


@dataclass(frozen=True)
class Outcome:
    """What became of a scan.

    Attributes:
        key: participant and session, as the manifest names them.
        image: the preprocessed image; None for a failure.
        overlay: its picture.
        quality: what was measured of it.
        brain_volume_ml: in native space.
        warnings: what deserves a look.
        skipped: it was finished before.
        failure: why it could not be preprocessed.
    """

    key: str
    image: Path | None = None
    overlay: Path | None = None
    quality: Quality | None = None
    brain_volume_ml: float | None = None
    warnings: tuple[str, ...] = ()
    skipped: bool = False
    failure: str | None = None


def check_folder(out_dir: Path, manifest: Manifest) -> None:
    """See that nothing is overwritten that was not preprocessed.

    Args:
        out_dir: where results are to go.
        manifest: of the raw scans.

    Raises:
        CohortError: if the folder is a file, is that of the raw manifest, or a raw data set.
    """
    if out_dir.exists() and not out_dir.is_dir():
        msg = f"{out_dir}: is a file, and preprocessed scans need a folder; choose another --out"
        raise CohortError(msg)
    taken = out_dir / MANIFEST
    if taken.resolve() == manifest.path.resolve():
        msg = f"{taken} lists the raw scans and would be overwritten by the preprocessed ones; choose another --out"
        raise CohortError(msg)
    description = out_dir / DESCRIPTION
    if description.is_file():
        try:
            found = json.loads(description.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("DatasetType") != "derivative":
            msg = f"{out_dir} is a data set of its own, not a folder of preprocessed scans; choose another --out"
            raise CohortError(msg)


def plan_jobs(
    manifest: Manifest, out_dir: Path, config: Mapping[str, Any], brain_masks: str | None = None
) -> list[ScanJob]:
    """One job a row, in order, with its place in the folder.

    Args:
        manifest: the raw scans.
        out_dir: where results go.
        config: the configuration as plain values.
        brain_masks: a column of the manifest, or a path with `{participant_id}` and `{session_id}`.

    Raises:
        CohortError: if two rows would write the same files, or a scan has no mask.
    """
    jobs: list[ScanJob] = []
    owner: dict[Path, str] = {}
    for record in manifest.records:
        # BIDS labels are letters and digits only.
        subject = _label(record.participant_id, "sub-")
        session = _label(record.session_id, "ses-")
        stem = out_dir / subject / session / "anat" / f"{subject}_{session}"
        other = owner.setdefault(stem, record.key)
        if other != record.key:
            msg = (
                f"{manifest.path}: {other} and {record.key} would both be written as {stem.name}; "
                "rename one so that they differ in letters or digits"
            )
            raise CohortError(msg)
        mask = None if brain_masks is None else _mask_of(record, manifest, brain_masks)
        jobs.append(ScanJob(record.key, record.image, stem, config, mask))
    return jobs


def _mask_of(record: Record, manifest: Manifest, brain_masks: str) -> Path:
    """The file of a scan's brain mask."""
    if brain_masks in manifest.table.columns:
        value = record.extra.get(brain_masks)
        if value is None:
            msg = f"{manifest.path}: {record.key} has no {brain_masks}; give every scan a mask, or leave out those without"
            raise CohortError(msg)
        path = manifest.path.parent.absolute() / str(value)
    else:
        try:
            path = Path(brain_masks.format(participant_id=record.participant_id, session_id=record.session_id))
        except (KeyError, IndexError, ValueError) as error:
            msg = (
                f"brain masks {brain_masks!r}: only {{participant_id}} and {{session_id}} can be filled in, got {error}"
            )
            raise CohortError(msg) from error
    if not path.is_file():
        msg = (
            f"{path}: no such brain mask for {record.key}; name a column of the manifest, or a path with {{participant_id}} and "
            "{session_id}"
        )
        raise CohortError(msg)
    return path


def _label(identifier: str, prefix: str) -> str:
    return prefix + re.sub(r"[^A-Za-z0-9]", "", identifier.removeprefix(prefix))


def finished_outcome(job: ScanJob) -> Outcome | None:
    """The outcome of an earlier run, if its files are all there and came from the same scan and configuration."""
    if not all(path.is_file() for path in job.files):
        return None
    try:
        sidecar = json.loads(job.sidecar.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(sidecar, dict) or sidecar.get("Fingerprint") != _fingerprint(job):
        return None
    if sidecar.get("ResultsSha256") != _results(job):
        return None
    return _outcome(job, sidecar, skipped=True)


def _outcome(job: ScanJob, sidecar: Mapping[str, Any], *, skipped: bool = False) -> Outcome:
    quality = sidecar["Quality"]
    return Outcome(
        job.key,
        image=job.preprocessed,
        overlay=job.overlay,
        quality=Quality(quality["Correlation"], quality["Coverage"], quality["Overlap"]),
        brain_volume_ml=float(sidecar["BrainVolumeMl"]),
        warnings=tuple(sidecar["Warnings"]),
        skipped=skipped,
    )


def _fingerprint(job: ScanJob) -> dict[str, Any]:
    mask = job.brain_mask_source
    return {
        "SourceSha256": sha256_of(job.image),
        "BrainMaskSha256": None if mask is None else sha256_of(mask),
        "Config": dict(job.config),
        "PipelineVersion": PIPELINE_VERSION,
    }


def _results(job: ScanJob) -> dict[str, str]:
    """Hashes of what was written beside the side-car."""
    return {path.name: sha256_of(path) for path in job.files if path != job.sidecar}


def write_scan(job: ScanJob, scan: PreprocessedScan, native_grid: Grid) -> Outcome:
    """Write the files of a preprocessed scan, the sidecar last.

    Args:
        job: where to.
        scan: what.
        native_grid: of the raw scan, as it is stored.
    """
    job.sidecar.unlink(missing_ok=True)
    write_volume(scan.image, job.preprocessed, description="ldae preprocessed T1w")
    write_volume(scan.brain_mask, job.brain_mask, description="ldae brain mask")
    write_volume(scan.native_mask, job.native_mask, description="ldae brain mask")
    write_transform(scan.affine_native_to_template, job.transform)
    quality = scan.quality
    title = f"{job.key}   score {quality.score:.2f}, correlation {quality.correlation:.2f}"
    write_bytes(job.overlay, draw_overlay(scan.image, scan.brain_mask, title=title))
    sidecar = {
        "AffineNativeToTemplate": scan.affine_native_to_template.tolist(),
        "NativeGrid": native_grid.to_dict(),
        "NativeBrainMask": job.native_mask.name,
        "Transform": job.transform.name,
        "IntensityWindow": list(scan.window),
        "Quality": {
            "Score": quality.score,
            "Correlation": quality.correlation,
            "Coverage": quality.coverage,
            "Overlap": quality.overlap,
        },
        "BrainVolumeMl": scan.brain_volume_ml,
        "Warnings": list(scan.warnings),
        "Space": SPACE,
        "SkullStripped": True,
        "Sources": [str(path) for path in (job.image, job.brain_mask_source) if path is not None],
        "GeneratedBy": {"Name": "ldae", "Version": __version__},
        "Fingerprint": _fingerprint(job),
        "ResultsSha256": _results(job),
    }
    write_json(job.sidecar, sidecar)
    return _outcome(job, sidecar)


def write_derived_manifest(manifest: Manifest, out_dir: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write the manifest of the scans that succeeded, and the folder's BIDS description.

    Args:
        manifest: of the raw scans.
        out_dir: the folder.
        outcomes: one a row of the manifest, in order.

    Raises:
        CohortError: if not one scan succeeded.
    """
    succeeded = np.array([outcome.image is not None for outcome in outcomes])
    if not succeeded.any():
        reasons = [f"{outcome.key}: {outcome.failure}" for outcome in outcomes]
        msg = f"{manifest.path}: none of {len(outcomes)} scans could be preprocessed: {shortlist(reasons)}"
        raise CohortError(msg)
    table = manifest.table[succeeded].reset_index(drop=True)
    images = [outcome.image for outcome in outcomes if outcome.image is not None]
    table["image"] = pd.Series([os.path.relpath(image, out_dir) for image in images], dtype=object)
    table["preprocess_quality"] = [round(o.quality.score, 4) for o in outcomes if o.quality is not None]
    write_json(
        out_dir / DESCRIPTION,
        {
            "Name": "T1w images preprocessed by ldae",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "ldae", "Version": __version__}],
        },
    )
    return write_manifest(table, out_dir / MANIFEST)
