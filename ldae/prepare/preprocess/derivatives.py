"""Folder of preprocessed scans: names, files written whole or not at all, and recognition of finished work."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ldae.base.files import read_json, sha256_of, write_bytes, write_json
from ldae.data.manifest import Manifest, Record, write_manifest
from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.head.alignment import write_transform
from ldae.head.preprocess import PreprocessConfig, PreprocessedScan, Quality
from ldae.image_files import Reading
from ldae.io.bids import DESCRIPTION, TEMPLATE, bids_path, write_description
from ldae.io.version import __version__
from ldae.prepare.preprocess.overlay import draw_overlay
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
MANIFEST = "manifest.tsv"
# Files of a finished scan; the side-car is written last, so that its presence means that the others are there.
ENDINGS = {
    "image": f"_space-{TEMPLATE}_desc-preproc_T1w.nii.gz",
    "mask": f"_space-{TEMPLATE}_desc-brain_mask.nii.gz",
    "native_mask": "_desc-brain_mask.nii.gz",
    "transform": f"_from-T1w_to-{TEMPLATE}_mode-image_xfm.txt",
    "overlay": f"_space-{TEMPLATE}_desc-preproc_overlay.png",
    "sidecar": f"_space-{TEMPLATE}_desc-preproc_T1w.json",
}


@dataclass(frozen=True)
class ScanJob:
    """One scan to preprocess.

    Attributes:
        key: participant and session, as the manifest names them.
        image: the raw scan.
        stem: path of the results without their endings, `.../sub-X_ses-Y`.
        config: settings.
        brain_mask_source: given mask of the raw scan's brain, or None.
    """

    key: str
    image: Path
    stem: Path
    config: PreprocessConfig
    brain_mask_source: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Files of the finished scan, by the names of `ENDINGS`."""
        return {name: self.stem.with_name(self.stem.name + ending) for name, ending in ENDINGS.items()}


@dataclass(frozen=True)
class Outcome:
    """Result of preprocessing one scan.

    Attributes:
        key: participant and session, as the manifest names them.
        image: the preprocessed image; None for a failure.
        overlay: its picture.
        quality: measures of the result.
        brain_volume_ml: in native space.
        warnings: reasons to look at the result.
        skipped: it was finished before.
        failure: reason of a failure.
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
    """Refuse a folder in which raw data would be overwritten.

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
            found = read_json(description)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("DatasetType") != "derivative":
            msg = f"{out_dir} is a data set of its own, not a folder of preprocessed scans; choose another --out"
            raise CohortError(msg)


def plan_jobs(
    manifest: Manifest, out_dir: Path, config: PreprocessConfig, brain_masks: str | None = None
) -> list[ScanJob]:
    """One job for each raw scan, in order, with its place in the folder.

    Raises:
        CohortError: if two rows would write the same files, or a scan has no mask.
    """
    jobs: list[ScanJob] = []
    owner: dict[Path, str] = {}
    for record in manifest.records:
        stem = bids_path(out_dir, record.stem, "")
        other = owner.setdefault(stem, record.key)
        if other != record.key:
            both = f"{manifest.path}: {other} and {record.key} would both be written as {stem.name}"
            raise CohortError(f"{both}; rename one so that they differ in letters or digits")
        mask = None if brain_masks is None else _mask_of(record, manifest, brain_masks)
        jobs.append(ScanJob(record.key, record.image, stem, config, mask))
    return jobs


def _mask_of(record: Record, manifest: Manifest, brain_masks: str) -> Path:
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
            known = "only {participant_id} and {session_id} can be filled in"
            msg = f"brain masks {brain_masks!r}: {known}, got {error}"
            raise CohortError(msg) from error
    if not path.is_file():
        remedy = "give a column of the manifest, or a path with {participant_id} and {session_id}"
        msg = f"{path}: no such brain mask for {record.key}; {remedy}"
        raise CohortError(msg)
    return path


def finished_outcome(job: ScanJob) -> Outcome | None:
    """The outcome of an earlier run, if its files are all there and came from the same scan and configuration."""
    if not all(path.is_file() for path in job.files.values()):
        return None
    try:
        sidecar = read_json(job.files["sidecar"])
    except ValueError:
        return None
    hashes = {"Fingerprint": _fingerprint(job), "ResultsSha256": _results(job)}
    if not isinstance(sidecar, dict) or any(sidecar.get(name) != value for name, value in hashes.items()):
        return None
    return _outcome(job, sidecar, skipped=True)


def _outcome(job: ScanJob, sidecar: Mapping[str, Any], *, skipped: bool = False) -> Outcome:
    quality = sidecar["Quality"]
    return Outcome(
        job.key,
        image=job.files["image"],
        overlay=job.files["overlay"],
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
        "Config": asdict(job.config),
        "PipelineVersion": PIPELINE_VERSION,
        # Where the file itself did not say where its voxels lie.
        **({"Reading": repr(reading)} if (reading := Reading.current().geometry) != Reading().geometry else {}),
    }


def _results(job: ScanJob) -> dict[str, str]:
    """Hashes of the files beside the side-car."""
    return {path.name: sha256_of(path) for name, path in job.files.items() if name != "sidecar"}


def write_scan(job: ScanJob, scan: PreprocessedScan, native_grid: Grid) -> Outcome:
    """Write the files of a preprocessed scan, the side-car last; `native_grid` is the raw scan's, as it is stored."""
    files, quality = job.files, scan.quality
    files["sidecar"].unlink(missing_ok=True)
    write_volume(scan.image, files["image"], description="ldae preprocessed T1w", mni=True)
    write_volume(scan.brain_mask, files["mask"], description="ldae brain mask", mni=True)
    write_volume(scan.native_mask, files["native_mask"], description="ldae brain mask")
    write_transform(scan.affine_native_to_template, files["transform"])
    title = f"{job.key}   score {quality.score:.2f}, correlation {quality.correlation:.2f}"
    write_bytes(files["overlay"], draw_overlay(scan.image, scan.brain_mask, title=title))
    sidecar = {
        "AffineNativeToTemplate": scan.affine_native_to_template.tolist(),
        "NativeGrid": native_grid.to_dict(),
        "NativeBrainMask": files["native_mask"].name,
        "Transform": files["transform"].name,
        "IntensityWindow": list(scan.window),
        "Quality": {"Score": quality.score, **{name.capitalize(): value for name, value in asdict(quality).items()}},
        "BrainVolumeMl": scan.brain_volume_ml,
        "Warnings": list(scan.warnings),
        "Space": TEMPLATE,
        "SkullStripped": True,
        # Relative to this file: an absolute path may hold the name of a user.
        "Sources": [
            os.path.relpath(path, files["sidecar"].parent)
            for path in (job.image, job.brain_mask_source)
            if path is not None
        ],
        "GeneratedBy": {"Name": "ldae", "Version": __version__},
        "Fingerprint": _fingerprint(job),
        "ResultsSha256": _results(job),
    }
    write_json(files["sidecar"], sidecar)
    return _outcome(job, sidecar)


def write_derived_manifest(manifest: Manifest, out_dir: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write the manifest of the scans that succeeded, and the folder's BIDS description.

    Of each row of the raw scans' manifest there is one outcome, in order.

    Raises:
        CohortError: if not one scan succeeded.
    """
    images = [os.path.relpath(outcome.image, out_dir) for outcome in outcomes if outcome.image is not None]
    if not images:
        reasons = [f"{outcome.key}: {outcome.failure}" for outcome in outcomes]
        msg = f"{manifest.path}: none of {len(outcomes)} scans could be preprocessed: {shortlist(reasons)}"
        raise CohortError(msg)
    quality = [round(outcome.quality.score, 4) for outcome in outcomes if outcome.quality is not None]
    table = manifest.table[[outcome.image is not None for outcome in outcomes]]
    table = table.assign(image=images, preprocess_quality=quality)
    readme = (
        "T1w scans without bias field and skull, in template space by an affine registration. manifest.tsv lists them for ldae.\n"
        "The JSON file beside each scan holds the transform, the quality, and the settings that it was made with.\n"
    )
    write_description(out_dir, "T1w images preprocessed by ldae", readme)
    mask = {"Type": "Brain", "Description": "voxels of the brain"}
    write_json(out_dir / "desc-brain_mask.json", mask)  # of every mask below, as BIDS has side-cars inherited
    return write_manifest(table, out_dir / MANIFEST)
