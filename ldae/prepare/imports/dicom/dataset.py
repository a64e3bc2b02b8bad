"""A cohort from DICOM folders: T1w series as de-identified NIfTI in BIDS layout, and their manifest."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ldae.data.schema import NUMBER
from ldae.dicom.headers import Scan, Series, read_folder
from ldae.dicom.select import SeriesRule, select_series
from ldae.dicom.series import read_series, series_grid, sorted_planes
from ldae.errors import CohortError, VolumeError
from ldae.io.files import atomic_folder, write_json
from ldae.prepare.imports.dicom.files import (
    KeyRow,
    read_key,
    scan_path,
    write_descriptions,
    write_key,
    write_tables,
)
from ldae.prepare.imports.dicom.people import age_at_study, capped_age, scan_facts, sex_of
from ldae.prepare.imports.dicom.table import PeopleTable, read_people
from ldae.prepare.imports.dicom.visits import Visit, group_visits, name_visits, patient_of
from ldae.prepare.imports.image_files import find_files
from ldae.prepare.imports.import_report import Skipped
from ldae.volume import sidecar_path, write_volume

__all__ = ["DicomOptions", "DicomReport", "SeriesOutcome", "import_dicom"]

MANIFEST_NAME = "manifest.tsv"
REPORT_NAME = "manifest_import.json"


@dataclass(frozen=True)
class DicomOptions:
    """How people are named and what is taken.

    Attributes:
        rule: which series.
        keep_patient_id: PatientID gives the labels, instead of new numbers.
        exact_age: ages over 89 are kept.
        key: a file outside the cohort that tells which label is whose; labels that stand there
            already are kept, and visits are numbered on from there.
        table: of people or visits, matched by PatientID: diagnosis, site, and what headers do not know.
        follow_links: read files behind links that lead out of the folder.
    """

    rule: SeriesRule = SeriesRule()
    keep_patient_id: bool = False
    exact_age: bool = False
    key: Path | None = None
    table: Path | None = None
    follow_links: bool = False


@dataclass(frozen=True)
class SeriesOutcome:
    """What became of a series.

    Attributes:
        outcome: "skipped" is what is no T1w scan; "refused" would be one, but cannot be used.
        reason: in fixed words that identify nobody; empty for what the manifest lists.
        name: number, description and identifier of the series, and files that are broken. It may identify a person and
            is never written.
        subject: the label; empty where none was given.
        session: the label; empty where none was given.
        image: relative to the cohort; empty where none was written.
    """

    outcome: Literal["taken", "skipped", "refused"]
    reason: str
    name: str
    subject: str = ""
    session: str = ""
    image: str = ""


@dataclass(frozen=True)
class DicomReport:
    """What an import took, skipped and refused.

    Attributes:
        manifest: the manifest written.
        series: what became of each.
        warnings: what deserves a look, in fixed words under the new labels.
        other: files that are no DICOM images -> why. Their names are never written.
        unreadable: DICOM files that cannot be used -> why. Their names are never written.
        unmatched: rows of the table that no scan was found for, by PatientID. Never written.
        links: links and folders that were not followed. Their names are never written.
    """

    manifest: Path
    series: tuple[SeriesOutcome, ...]
    warnings: tuple[str, ...]
    other: Mapping[str, str]
    unreadable: Mapping[str, str]
    unmatched: tuple[str, ...]
    links: tuple[Skipped, ...] = ()

    def of(self, outcome: str) -> tuple[SeriesOutcome, ...]:
        """The series with that outcome."""
        return tuple(each for each in self.series if each.outcome == outcome)

    def to_dict(self) -> dict[str, Any]:
        """What may be published: no description, identifier or name of a file."""
        # In an order that knows of labels and reasons only: that of the series here is the order of PatientID.
        ordered = sorted(self.series, key=lambda e: (not e.subject, e.subject, e.session, e.image, e.outcome, e.reason))
        series = [
            {"outcome": e.outcome, "reason": e.reason, "subject": e.subject, "session": e.session, "image": e.image}
            for e in ordered
        ]
        return {
            "manifest": self.manifest.name,
            "series": series,
            "warnings": list(self.warnings),
            "files_that_are_no_image": len(self.other),
            "unreadable_files": len(self.unreadable),
            "rows_without_scan": len(self.unmatched),
            "links_not_followed": len(self.links),
        }


def import_dicom(
    folder: Path,
    out: Path,
    options: DicomOptions | None = None,
    *,
    rng: random.Random | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DicomReport:
    """Write the T1w series of a folder of DICOM files as a de-identified BIDS data set with a manifest.

    Args:
        folder: searched with its subfolders.
        out: the cohort's folder; must not hold anything yet. It appears when all is done.
        options: how people are named and what is taken.
        rng: deals the labels; the operating system's randomness if not given.
        progress: called with the number of files read and their total.

    Returns:
        What was taken, skipped and refused.

    Raises:
        CohortError: if nothing can be taken, if `out` holds something, or if the key would lie in it.
        DependencyError: if pydicom is not installed.
    """
    options = options or DicomOptions()
    folder, out = Path(folder), Path(out)
    _check_places(folder, out, options)
    table = PeopleTable() if options.table is None else read_people(options.table)
    known = [] if options.key is None else read_key(options.key)
    found = find_files(folder, ("",), follow_links=options.follow_links)
    scan = read_folder(found.root, progress, files=found.files)
    if not scan.series:
        links = sum(not item.expected for item in found.skipped)
        left_out = f", {links} links that were not followed: see --follow-links" if links else ""
        msg = (
            f"{folder}: no DICOM image in it ({len(scan.other)} other files, {len(scan.unreadable)} unreadable DICOM "
            f"files{left_out}); choose the folder that the scanner or the archive exported"
        )
        raise CohortError(msg)
    outcomes: dict[str, SeriesOutcome] = {}
    visits = group_visits(_select(scan, options.rule, outcomes))
    warnings: list[str] = []
    dealt = rng or random.SystemRandom()
    named = name_visits(visits, known, dealt, warnings, keep_patient_id=options.keep_patient_id)
    rows: list[dict[str, Any]] = []
    keys: list[KeyRow] = []
    with atomic_folder(out) as place:
        for visit in named:
            taken = _write_visit(visit, place, outcomes)
            if taken:
                rows.append(_manifest_row(visit, taken, table, options, warnings))
                keys += [KeyRow.of(visit.subject, visit.session, visit.patient, s.header, image) for s, image in taken]
        report = DicomReport(
            manifest=out / MANIFEST_NAME,
            series=tuple(outcomes[series.uid] for series in scan.series),
            warnings=tuple(warnings),
            other=scan.other,
            unreadable=scan.unreadable,
            unmatched=table.unused,
            links=tuple(item for item in found.skipped if not item.expected),
        )
        if not rows:
            raise CohortError(_nothing(folder, report))
        write_tables(place, MANIFEST_NAME, rows)
        write_descriptions(place, REPORT_NAME)
        write_json(place / REPORT_NAME, report.to_dict())
        if options.key is not None:
            # Before the cohort takes its name: without its key, nobody could tell whose it is.
            write_key(options.key, known, keys)
    return report


def _check_places(folder: Path, out: Path, options: DicomOptions) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out}: there is something already; give a new folder with --out"
        raise CohortError(msg)
    inside = out.resolve()
    if inside.is_relative_to(folder.resolve()):
        msg = f"{out}: the cohort would lie among the DICOM files; choose a folder outside {folder}"
        raise CohortError(msg)
    if options.key is not None and options.key.resolve().is_relative_to(inside):
        msg = f"{options.key}: the key would lie in the de-identified cohort; choose a place outside {out}"
        raise CohortError(msg)


def _select(scan: Scan, rule: SeriesRule, outcomes: dict[str, SeriesOutcome]) -> list[Series]:
    """The T1w series that make volumes; what becomes of the others is noted."""
    studies: dict[tuple[str, str], list[Series]] = {}
    for series in scan.series:
        studies.setdefault((patient_of(series), series.header.text("StudyInstanceUID")), []).append(series)
    reasons = {uid: reason for study in studies.values() for uid, reason in select_series(study, rule).items()}
    contradictory = _contradictory_patients(scan.series)
    suitable = []
    for series in scan.series:
        reason = reasons[series.uid]
        refusal = _refusal(series, contradictory) if reason is None else None
        if reason is not None:
            outcomes[series.uid] = SeriesOutcome("skipped", reason, series.name)
        elif refusal is not None:
            broken = "".join(f"; {path}" for path in sorted(series.broken)[:3])
            outcomes[series.uid] = SeriesOutcome("refused", refusal, series.name + broken)
        else:
            suitable.append(series)
    return suitable


def _contradictory_patients(all_series: Iterable[Series]) -> set[str]:
    """Patients with several birth dates or sexes."""
    births: dict[str, set[str]] = {}
    sexes: dict[str, set[str]] = {}
    for series in all_series:
        births.setdefault(patient_of(series), set()).add(series.header.text("PatientBirthDate"))
        sexes.setdefault(patient_of(series), set()).add(sex_of(series.header) or "")
    return {patient for patient in births if len(births[patient] - {""}) > 1 or len(sexes[patient] - {""}) > 1}


def _refusal(series: Series, contradictory: set[str]) -> str | None:
    if len(series.patients) > 1:
        return f"images of {len(series.patients)} patients in one series; sort the files by patient"
    if patient_of(series) in contradictory:
        return "one patient identifier with several birth dates or sexes: two people mixed? give each their own"
    try:
        series_grid(sorted_planes(series))
    except VolumeError as error:
        return str(error)
    return None


def _write_visit(visit: Visit, place: Path, outcomes: dict[str, SeriesOutcome]) -> list[tuple[Series, str]]:
    """Write the runs of a visit; the first of those returned is the one for the manifest."""
    written: list[tuple[Series, str]] = []
    for number, series in enumerate(visit.series, start=1):
        image = scan_path(visit.subject, visit.session, number if len(visit.series) > 1 else None)
        try:
            write_volume(read_series(series), place / image, description="ldae import")
        except VolumeError as error:
            outcomes[series.uid] = SeriesOutcome("refused", str(error), series.name)
            continue
        write_json(sidecar_path(place / image), scan_facts(series.header))
        written.append((series, image))
    written.sort(key=lambda run: _preference(run[0]))
    for rank, (series, image) in enumerate(written):
        reason = "" if rank == 0 else "written, but another run of the visit is in the manifest"
        outcomes[series.uid] = SeriesOutcome("taken", reason, series.name, visit.subject, visit.session, image)
    return written


def _preference(series: Series) -> tuple[float, bool, float]:
    """Smaller is better: fine voxels, then images that the scanner normalised, then the last: a repeat was made for a reason."""
    x, y, z = series_grid(sorted_planes(series)).spacing
    normalised = "NORM" in series.header.words("ImageType")
    return round(x * y * z, 2), not normalised, -(series.header.number("SeriesNumber") or 0.0)


def _manifest_row(
    visit: Visit,
    taken: Sequence[tuple[Series, str]],
    table: PeopleTable,
    options: DicomOptions,
    warnings: list[str],
) -> dict[str, Any]:
    series, image = taken[0]
    where = f"{visit.subject} {visit.session}"
    age = age_at_study(series.header, exact=options.exact_age)
    if age.warning is not None:
        warnings.append(f"{where}: {age.warning}")
    for run, _ in taken:
        if run.repeated:
            warnings.append(f"{where}: {run.repeated} exact copies of files were left out")
        if len(run.slices) < (run.header.number("ImagesInAcquisition") or 0):
            warnings.append(f"{where}: the header promises more images than were found: is the end missing?")
    row: dict[str, Any] = {
        "participant_id": visit.subject,
        "session_id": visit.session,
        "image": image,
        "age": age.years,
        "sex": sex_of(series.header),
        "months": visit.months,
    }
    day = None if visit.day is None else visit.day.isoformat()
    for name, value in table.find(visit.patient, visit.session, day).items():
        former = row.get(name)
        if name == "sex" and former is not None and former != value:
            warnings.append(f"{where}: the table and the header disagree about the sex; the table's was taken")
        row[name] = value
        if name == "age" and NUMBER.fullmatch(value):
            capped = capped_age(float(value), exact=options.exact_age)
            if capped.warning is not None:
                row[name] = capped.years
                if age.warning != capped.warning:
                    warnings.append(f"{where}: {capped.warning}")
    return row


def _nothing(folder: Path, report: DicomReport) -> str:
    counts: dict[str, int] = {}
    for each in report.series:
        counts[each.reason] = counts.get(each.reason, 0) + 1
    first = next(iter(report.of("refused")), report.series[0])
    reasons = "; ".join(
        f"{count} x {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1])[:3]
    )
    return (
        f"{folder}: none of its {len(report.series)} series can be taken ({reasons}), such as {first.name}; name a series "
        "with --series-description, or see what --include-derived and --any-modality do"
    )
