"""The doctor: everything about a cohort that would spoil results, found before it does."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ldae.head.findings import ERROR, NOTICE, WARNING, Finding, Severity
from ldae.head.intensities import SkullState
from ldae.io.files import write_json, write_text
from ldae.prepare.check.confounding import check_confounding
from ldae.prepare.check.lenient_manifest import LenientManifest, read_leniently
from ldae.prepare.check.likeness import LikenessStatistics, compare_brains
from ldae.prepare.check.model_contract import read_contract
from ldae.prepare.check.scan import Examination, ScanToExamine, examine
from ldae.prepare.check.shape_spread import check_spread
from ldae.prepare.check.table import check_table, scan_keys
from ldae.prepare.processes import ProcessLanes, one_itk_thread

__all__ = ["CheckReport", "check_cohort"]

# Voxel sizes of a cohort that differ by more make scans tell their protocol.
MAX_RESOLUTION_RATIO = 1.5


@dataclass(frozen=True, eq=False)
class CheckReport:
    """What a check found.

    Attributes:
        manifest: the table checked.
        findings: the worst first.
        figures: scan -> what was measured in it.
        likeness: how alike the cohort's brains are, if they were compared.
        spread: how much ventricles and brains differ between people in template space, if that was asked.
        seconds: that the check took.
    """

    manifest: Path
    findings: tuple[Finding, ...]
    figures: dict[str, dict[str, Any]]
    likeness: LikenessStatistics | None
    spread: dict[str, float]
    seconds: float

    def count(self, severity: Severity) -> int:
        """Findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write ``check.json`` (everything) and ``check.tsv`` (one row a finding and scan).

        Args:
            folder: made if need be.

        Returns:
            Both paths.
        """
        content = {
            "manifest": str(self.manifest),
            "scans": len(self.figures),
            "counts": {severity.word: self.count(severity) for severity in Severity},
            "seconds": round(self.seconds, 2),
            "findings": [finding.to_dict() for finding in self.findings],
            "likeness": None if self.likeness is None else asdict(self.likeness),
            "spread": self.spread,
            "measurements": self.figures,
        }
        rows = ["severity\tcode\tsubjects\tscans\tmessage\tremedy"]
        for finding in self.findings:
            cells = (
                finding.severity.word,
                finding.code,
                ",".join(finding.subjects) or "n/a",
                ",".join(finding.scans) or "n/a",
                finding.message,
                finding.remedy,
            )
            rows.append("\t".join(" ".join(cell.split()) for cell in cells))
        return write_json(folder / "check.json", content), write_text(folder / "check.tsv", "\n".join(rows) + "\n")


def check_cohort(
    manifest: Path,
    *,
    model: Path | None = None,
    anatomy: bool = True,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check a cohort: its table, every image, images against one another, and against a model.

    Args:
        manifest: a table that may break the schema's rules.
        model: a model folder whose contract the scans should meet.
        anatomy: align heads with the template, to tell the kind of image and to compare brains.
        workers: processes.
        progress: called with (scans done, all scans).

    Raises:
        CohortError: if there are fewer than one worker.
        ManifestError: if the table cannot be read at all.
        CheckpointError: if the model's contract cannot be read.
    """
    started = time.perf_counter()
    contract = None if model is None else read_contract(model)
    table = read_leniently(Path(manifest))
    jobs = [
        ScanToExamine(key, table.path.parent / image, anatomy, contract)
        for key, image in zip(_unique_keys(table), table.table["image"], strict=True)
        if isinstance(image, str)
    ]
    examinations = _examine_all(jobs, workers, progress)
    findings = [*table.findings, *check_table(table.table, table.path.parent), *check_confounding(table.table)]
    for examination in examinations:
        findings += examination.findings
    subject_of = dict(zip(_unique_keys(table), table.table["participant_id"], strict=True))
    findings += [*_same_voxels(examinations, subject_of), *_mixtures(examinations)]
    twins = _copies(examinations)
    compared = [one for one in examinations if one.signature is not None and one.key not in twins]
    same, likeness = compare_brains(
        [one.signature for one in compared if one.signature is not None],
        [one.key for one in compared],
        [subject_of[one.key] for one in compared],
    )
    alike, spread = _spread(compared, subject_of)
    return CheckReport(
        manifest=table.path,
        findings=tuple(sorted([*findings, *same, *alike], key=lambda one: (one.severity, one.code, one.scans))),
        figures={one.key: one.figures for one in examinations},
        likeness=likeness,
        spread=spread,
        seconds=time.perf_counter() - started,
    )


def _unique_keys(table: LenientManifest) -> list[str]:
    """The scans' names; a repeated one gets a number, so that both are examined."""
    seen: dict[str, int] = {}
    keys = []
    for key in scan_keys(table.table):
        seen[key] = seen.get(key, 0) + 1
        keys.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return keys


def _examine_all(
    jobs: Sequence[ScanToExamine], workers: int, progress: Callable[[int, int], None] | None
) -> list[Examination]:
    done: dict[str, Examination] = {}
    for examination in _examined(jobs, workers):
        done[examination.key] = examination
        if progress is not None:
            progress(len(done), len(jobs))
    return [done[job.key] for job in jobs]


def _examined(jobs: Sequence[ScanToExamine], workers: int) -> Iterator[Examination]:
    if workers == 1:
        yield from map(_examine_on_one_thread, jobs)
        return
    with ProcessLanes(workers) as pool:
        futures = {pool.submit(_examine_on_one_thread, job): job for job in jobs}
        for future in as_completed(futures):
            error = future.exception()
            yield future.result() if error is None else _lost(futures[future], error)


def _examine_on_one_thread(job: ScanToExamine) -> Examination:
    with one_itk_thread():
        return examine(job)


def _lost(job: ScanToExamine, error: BaseException) -> Examination:
    """A scan whose process died, for want of memory as a rule."""
    message = f"the process that examined it ended ({type(error).__name__})"
    remedy = "check it alone, with fewer --workers; its header may ask for more memory than there is"
    return Examination(job.key, (Finding(ERROR, "not-examined", message, remedy, (job.key,)),))


def _by_voxels(examinations: Sequence[Examination]) -> list[list[str]]:
    same: dict[str, list[str]] = {}
    for examination in examinations:
        if examination.voxel_hash is not None:
            same.setdefault(examination.voxel_hash, []).append(examination.key)
    return [keys for keys in same.values() if len(keys) > 1]


def _copies(examinations: Sequence[Examination]) -> set[str]:
    """All but the first of each set of identical scans: comparing their anatomy would say the same again."""
    return {key for keys in _by_voxels(examinations) for key in keys[1:]}


def _same_voxels(examinations: Sequence[Examination], subject_of: dict[str, str]) -> list[Finding]:
    found = []
    for keys in _by_voxels(examinations):
        people = tuple(dict.fromkeys(subject_of[key] for key in keys))
        whose = f"of {len(people)} subjects" if len(people) > 1 else f"of {people[0]}"
        message = (
            f"{len(keys)} scans {whose} hold the same voxels: {', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}"
        )
        remedy = "keep one; find out whose it is" if len(people) > 1 else "keep one, or give each session its own scan"
        found.append(Finding(ERROR, "same-voxels", message, remedy, tuple(keys), people))
    return found


def _mixtures(examinations: Sequence[Examination]) -> list[Finding]:
    """Scans that differ in kind from most of the cohort."""
    found = []
    shown: dict[str, list[str]] = {}
    for one in examinations:
        shown.setdefault(one.figures.get("shows", SkullState.UNCLEAR), []).append(one.key)
    heads, brains = shown.get(SkullState.HEAD, []), shown.get(SkullState.BRAIN, [])
    if heads and brains:
        message = f"{len(heads)} scans show heads and {len(brains)} brains alone"
        fewer = min(heads, brains, key=len)
        remedy = "preprocess heads and brains apart (the latter with --already-stripped)"
        found.append(Finding(WARNING, "mixed-skull", message, remedy, tuple(fewer)))
    sizes = {one.key: max(one.figures["spacing_mm"]) for one in examinations if "spacing_mm" in one.figures}
    if sizes:
        typical = float(np.median(list(sizes.values())))
        odd = [
            key for key, size in sizes.items() if not 1 / MAX_RESOLUTION_RATIO <= size / typical <= MAX_RESOLUTION_RATIO
        ]
        if odd:
            message = f"{len(odd)} scans have voxels much larger or smaller than the cohort's {typical:.3g} mm"
            remedy = "check that resolution does not go with diagnosis or site"
            found.append(Finding(NOTICE, "mixed-resolution", message, remedy, tuple(odd)))
    turned = [one.key for one in examinations if _mirrored_storage(one)]
    plain = sum("axes" in one.figures for one in examinations) - len(turned)
    if turned and plain:
        fewer = turned if len(turned) <= plain else [one.key for one in examinations if not _mirrored_storage(one)]
        message = f"{len(fewer)} scans are stored with the opposite handedness of the others"
        remedy = "harmless if headers are true; check left and right in these first if they are not"
        found.append(Finding(NOTICE, "mixed-handedness", message, remedy, tuple(fewer)))
    return found


def _mirrored_storage(examination: Examination) -> bool:
    """Whether the voxel axes form a left-handed frame."""
    word = examination.figures.get("axes")
    if word is None:
        return False
    order = [next(i for i, pair in enumerate(("LR", "PA", "IS")) if letter in pair) for letter in word]
    signs = [1 if letter in "RAS" else -1 for letter in word]
    return float(np.linalg.det(np.eye(3)[order] * np.array(signs)[:, None])) < 0


def _spread(compared: Sequence[Examination], subject_of: dict[str, str]) -> tuple[list[Finding], dict[str, float]]:
    """Of the first scan in template space of each person."""
    first: dict[str, Examination] = {}
    for one in compared:
        if one.in_place:
            first.setdefault(subject_of[one.key], one)
    volumes = {person: float(one.figures["ventricle_ml"]) for person, one in first.items()}
    return check_spread(volumes, [one.signature for one in first.values() if one.signature is not None])
