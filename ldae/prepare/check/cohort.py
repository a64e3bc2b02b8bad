"""Quality control of a cohort: its images, its table, duplicates, confounding, and the contract of a model."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ldae.base.files import write_json, write_text
from ldae.base.processes import run_each
from ldae.head.findings import ERROR, NOTICE, WARNING, Finding, Severity
from ldae.head.intensities import SkullState
from ldae.prepare.check.confounding import check_confounding
from ldae.prepare.check.lenient_manifest import read_leniently
from ldae.prepare.check.likeness import LikenessStatistics, compare_brains
from ldae.prepare.check.model_contract import read_contract
from ldae.prepare.check.scan import Examination, ScanToExamine, examine
from ldae.prepare.check.shape_spread import check_spread
from ldae.prepare.check.table import check_table, scan_keys

__all__ = ["CheckReport", "check_cohort"]

# With voxel sizes that differ by more, scans reveal their protocol.
MAX_RESOLUTION_RATIO = 1.5


@dataclass(frozen=True, eq=False)
class CheckReport:
    """Result of quality control.

    Attributes:
        findings: the worst first.
        measurements: of each scan, by key.
        likeness: similarity of the cohort's brains, if they were compared.
        spread: variation of ventricles and brains between subjects in template space, if it was measured.
    """

    manifest: Path
    findings: tuple[Finding, ...]
    measurements: dict[str, dict[str, Any]]
    likeness: LikenessStatistics | None
    spread: dict[str, float]
    seconds: float

    def count(self, severity: Severity) -> int:
        """Findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write ``check.json`` (everything) and ``check.tsv`` (one row a finding); returns both paths."""
        content = {
            "manifest": str(self.manifest),
            "scans": len(self.measurements),
            "counts": {severity.word: self.count(severity) for severity in Severity},
            "seconds": round(self.seconds, 2),
            "findings": [finding.to_dict() for finding in self.findings],
            "likeness": None if self.likeness is None else asdict(self.likeness),
            "spread": self.spread,
            "measurements": self.measurements,
        }
        rows = ["severity\tcode\tsubjects\tscans\tmessage\tremedy"]
        for one in self.findings:
            concerned = (",".join(one.subjects) or "n/a", ",".join(one.scans) or "n/a")
            cells = (one.severity.word, one.code, *concerned, one.message, one.remedy)
            rows.append("\t".join(" ".join(cell.split()) for cell in cells))
        return write_json(folder / "check.json", content), write_text(folder / "check.tsv", "\n".join(rows) + "\n")


def check_cohort(
    manifest: Path,
    *,
    model: Path | None = None,
    anatomy: bool = True,
    fast: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check a cohort: its table, every image, images against one another, and against a model.

    Args:
        manifest: a table that may break the schema's rules.
        model: a model folder whose contract the scans should meet.
        anatomy: align heads with the template, to recognise the modality and to compare brains.
        fast: read the table and the headers of images, and no voxels.
        workers: processes.
        progress: called with (scans done, all scans).

    Raises:
        CohortError: if there is less than one worker.
        ManifestError: if the table cannot be read at all.
        CheckpointError: if the model's contract cannot be read.
    """
    started = time.perf_counter()
    contract = None if model is None else read_contract(model)
    manifest = Path(manifest)
    table, broken = read_leniently(manifest)
    names = pd.Series(scan_keys(table), dtype=object)
    # A repeated key gets a number, so that both scans are examined.
    keys = [f"{key}#{n + 1}" if n else key for key, n in zip(names, names.groupby(names).cumcount(), strict=True)]
    jobs = [
        ScanToExamine(key, manifest.parent / image, anatomy, contract, fast)
        for key, image in zip(keys, table["image"], strict=True)
        if isinstance(image, str)
    ]
    examinations = run_each(examine, jobs, lost=_lost, workers=workers, progress=progress)
    subject_of = dict(zip(keys, table["participant_id"], strict=True))
    copies = _copies(examinations)
    # All but the first of identical scans: comparing their anatomy would give the same finding again.
    twins = {key for same in copies for key in same[1:]}
    compared = {one.key: one.signature for one in examinations if one.signature is not None and one.key not in twins}
    alike, likeness = compare_brains(list(compared.values()), list(compared), [subject_of[key] for key in compared])
    # Of each subject, the first scan in template space.
    first: dict[str, Examination] = {}
    for one in examinations:
        if one.in_place and one.key in compared:
            first.setdefault(subject_of[one.key], one)
    volumes = {subject: one.measurements["ventricle_ml"] for subject, one in first.items()}
    uniform, spread = check_spread(volumes, [compared[one.key] for one in first.values()])
    findings = [
        *broken,
        *check_table(table, manifest.parent),
        *check_confounding(table),
        *(finding for one in examinations for finding in one.findings),
        *_check_copies(copies, subject_of),
        *_check_mixtures(examinations),
        *alike,
        *uniform,
    ]
    return CheckReport(
        manifest=manifest,
        findings=tuple(sorted(findings, key=lambda one: (one.severity, one.code, one.scans))),
        measurements={one.key: one.measurements for one in examinations},
        likeness=likeness,
        spread=spread,
        seconds=time.perf_counter() - started,
    )


def _lost(job: ScanToExamine, error: BaseException) -> Examination:
    message = f"the process that examined the scan ended ({type(error).__name__}), usually for lack of memory"
    remedy = "check this scan alone, with fewer --workers; its header may ask for more memory than there is"
    return Examination(job.key, [Finding(ERROR, "not-examined", message, remedy, (job.key,))])


def _copies(examinations: Sequence[Examination]) -> list[list[str]]:
    """Keys of scans that hold the same voxels, for each set of copies."""
    same: dict[str, list[str]] = {}
    for one in examinations:
        if one.voxel_hash is not None:
            same.setdefault(one.voxel_hash, []).append(one.key)
    return [keys for keys in same.values() if len(keys) > 1]


def _check_copies(copies: Sequence[Sequence[str]], subject_of: Mapping[str, str]) -> Iterator[Finding]:
    for keys in copies:
        subjects = tuple(dict.fromkeys(subject_of[key] for key in keys))
        several = len(subjects) > 1
        named = f"{', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}"
        owner = f"{len(subjects)} subjects" if several else subjects[0]
        message = f"{len(keys)} scans of {owner} hold the same voxels: {named}"
        remedy = "keep one; find out whose it is" if several else "keep one, or give each session its own scan"
        yield Finding(ERROR, "same-voxels", message, remedy, tuple(keys), subjects)


def _check_mixtures(examinations: Sequence[Examination]) -> Iterator[Finding]:
    """Scans that differ from most of the cohort in skull or voxel size."""
    shows = {one.key: one.measurements.get("shows") for one in examinations}
    heads = [key for key, skull in shows.items() if skull == SkullState.HEAD]
    brains = [key for key, skull in shows.items() if skull == SkullState.BRAIN]
    if heads and brains:
        message = f"{len(heads)} scans show heads and {len(brains)} brains alone"
        remedy = "preprocess heads and brains apart (brains with --already-stripped)"
        fewer = min(heads, brains, key=len)
        yield Finding(WARNING, "mixed-skull", message, remedy, tuple(fewer))
    sizes = {one.key: max(one.measurements["spacing_mm"]) for one in examinations if "spacing_mm" in one.measurements}
    typical = float(np.median(list(sizes.values()))) if sizes else 1.0
    odd = [key for key, size in sizes.items() if max(size / typical, typical / size) > MAX_RESOLUTION_RATIO]
    if odd:
        message = f"{len(odd)} scans have voxels much larger or smaller than the cohort's {typical:.3g} mm"
        remedy = "check that resolution does not depend on diagnosis or site"
        yield Finding(NOTICE, "mixed-resolution", message, remedy, tuple(odd))
