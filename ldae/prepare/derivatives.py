"""The folder of preprocessed scans: names, files written whole or not at all, and the recognition of finished work."""

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ldae import __version__
from ldae.data.manifest import Manifest, write_manifest
from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.io.files import sha256_of, write_json
from ldae.prepare.overlay import draw_overlay
from ldae.volume import Volume, write_volume

__all__ = ["Outcome", "ScanJob", "finished_outcome", "plan_jobs", "write_derived_manifest", "write_scan"]

# Raised whenever the pipeline gives other results for the same scan, so that old ones count as unfinished.
PIPELINE_VERSION = 1
SPACE = "MNI152"


@dataclass(frozen=True)
class ScanJob:
    """One scan to preprocess.

    Attributes:
        key: participant and session, as the manifest names them.
        image: the raw scan.
        stem: path of the results without their endings, `.../sub-X_ses-Y_space-MNI152`.
        config: the configuration as plain values, for the fingerprint and the provenance.
    """

    key: str
    image: Path
    stem: Path
    config: Mapping[str, Any]

    @property
    def preprocessed(self) -> Path:
        """The image in template space."""
        return self._path("_desc-preproc_T1w.nii.gz")

    @property
    def brain_mask(self) -> Path:
        """Its brain mask."""
        return self._path("_desc-brain_mask.nii.gz")

    @property
    def overlay(self) -> Path:
        """The picture to look at."""
        return self._path("_desc-preproc_overlay.png")

    @property
    def sidecar(self) -> Path:
        """Transform, quality and provenance; written last, so its presence says that the rest is there."""
        return self._path("_desc-preproc_T1w.json")

    def _path(self, ending: str) -> Path:
        return self.stem.with_name(self.stem.name + ending)


@dataclass(frozen=True)
class Outcome:
    """What became of a scan.

    Attributes:
        key: participant and session, as the manifest names them.
        image: the preprocessed image; None for a failure.
        quality: correlation with the template.
        warnings: what deserves a look.
        skipped: it was finished before.
        failure: why it could not be preprocessed.
    """

    key: str
    image: Path | None = None
    quality: float | None = None
    warnings: tuple[str, ...] = ()
    skipped: bool = False
    failure: str | None = None


def plan_jobs(manifest: Manifest, out_dir: Path, config: Mapping[str, Any]) -> list[ScanJob]:
    """One job a row, in order, with its place in the folder.

    Raises:
        CohortError: if two rows would write the same files.
    """
    jobs: list[ScanJob] = []
    owner: dict[Path, str] = {}
    for record in manifest.records:
        # BIDS labels are letters and digits only.
        subject = _label(record.participant_id, "sub-")
        session = _label(record.session_id, "ses-")
        stem = out_dir / subject / session / "anat" / f"{subject}_{session}_space-{SPACE}"
        other = owner.setdefault(stem, record.key)
        if other != record.key:
            msg = (
                f"{manifest.path}: {other} and {record.key} would both be written as {stem.name}; "
                "rename one so that they differ in letters or digits"
            )
            raise CohortError(msg)
        jobs.append(ScanJob(record.key, record.image, stem, config))
    return jobs


def _label(identifier: str, prefix: str) -> str:
    return prefix + re.sub(r"[^A-Za-z0-9]", "", identifier.removeprefix(prefix))


def finished_outcome(job: ScanJob) -> Outcome | None:
    """The outcome of an earlier run, if its files are all there and came from the same scan and configuration."""
    if not all(path.is_file() for path in (job.sidecar, job.preprocessed, job.brain_mask, job.overlay)):
        return None
    try:
        sidecar = json.loads(job.sidecar.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(sidecar, dict) or sidecar.get("Fingerprint") != _fingerprint(job):
        return None
    return Outcome(
        job.key,
        image=job.preprocessed,
        quality=float(sidecar["CorrelationWithTemplate"]),
        warnings=tuple(sidecar["Warnings"]),
        skipped=True,
    )


def _fingerprint(job: ScanJob) -> dict[str, Any]:
    return {"SourceSha256": sha256_of(job.image), "Config": dict(job.config), "PipelineVersion": PIPELINE_VERSION}


def write_scan(job: ScanJob, *, image: Volume, brain_mask: Volume, sidecar: Mapping[str, Any]) -> Outcome:
    """Write the files of a preprocessed scan, the sidecar last.

    Args:
        job: where to.
        image: on the template grid.
        brain_mask: on the template grid.
        sidecar: transform, quality ("CorrelationWithTemplate") and "Warnings".
    """
    job.sidecar.unlink(missing_ok=True)
    write_volume(image, job.preprocessed, description="ldae preprocessed T1w")
    write_volume(brain_mask, job.brain_mask, description="ldae brain mask")
    quality = float(sidecar["CorrelationWithTemplate"])
    _write_bytes(job.overlay, draw_overlay(image, brain_mask, title=f"{job.key}   r = {quality:.2f}"))
    write_json(
        job.sidecar,
        {
            **sidecar,
            "Space": SPACE,
            "SkullStripped": True,
            "Sources": [str(job.image)],
            "GeneratedBy": {"Name": "ldae", "Version": __version__},
            "Fingerprint": _fingerprint(job),
        },
    )
    return Outcome(job.key, image=job.preprocessed, quality=quality, warnings=tuple(sidecar["Warnings"]))


def _write_bytes(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(name).chmod(0o644)
    Path(name).replace(path)


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
    table["preprocess_quality"] = [round(o.quality, 4) for o in outcomes if o.quality is not None]
    write_json(
        out_dir / "dataset_description.json",
        {
            "Name": "T1w images preprocessed by ldae",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "ldae", "Version": __version__}],
        },
    )
    return write_manifest(table, out_dir / "manifest.tsv")
