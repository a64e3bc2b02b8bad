"""A cohort from DICOM folders: T1w series as de-identified NIfTI in BIDS layout, and their manifest."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ldae.base.files import atomic_folder, check_new_folder, write_json, write_text
from ldae.data.manifest import write_manifest
from ldae.data.schema import NUMBER
from ldae.dicom.deidentify import published_facts, published_warnings
from ldae.dicom.headers import Scan, Series, read_folder
from ldae.dicom.read import convert_series
from ldae.dicom.select import SeriesRule, select_series
from ldae.errors import CohortError, VolumeError
from ldae.io.bids import write_description
from ldae.prepare.imports.dicom.subjects import (
    KeyRow,
    Visit,
    age_at_study,
    capped_age,
    group_visits,
    name_visits,
    patient_of,
    read_key,
    sex_of,
    write_key,
)
from ldae.prepare.imports.dicom.table import SubjectTable, read_subjects
from ldae.prepare.imports.image_files import find_files
from ldae.prepare.imports.import_report import Skipped
from ldae.volume import sidecar_path, write_volume

__all__ = ["DicomOptions", "DicomReport", "SeriesOutcome", "import_dicom"]

MANIFEST_NAME = "manifest.tsv"
REPORT_NAME = "manifest_import.json"
UNNAMED = ".unnamed"
CONTRADICTORY = "one patient identifier with several birth dates or sexes: two subjects mixed? give each their own"


@dataclass(frozen=True)
class DicomOptions:
    """Choice of series and naming of subjects.

    Attributes:
        rule: which series.
        keep_patient_id: PatientID gives the labels, instead of new numbers.
        exact_age: ages over 89 are kept.
        key: a file outside the cohort with the patient of each label; labels in it are kept, and visits are numbered on.
        table: of subjects or visits, matched by PatientID: diagnosis, site, and other values that headers lack.
        follow_links: read files behind links that lead out of the folder.
        force: replace the folder of a former import.
    """

    rule: SeriesRule = SeriesRule()
    keep_patient_id: bool = False
    exact_age: bool = False
    key: Path | None = None
    table: Path | None = None
    follow_links: bool = False
    force: bool = False


@dataclass(frozen=True)
class SeriesOutcome:
    """The outcome of a series.

    Attributes:
        outcome: "skipped" is no T1w scan; "refused" would be one, but cannot be used.
        reason: in fixed words that identify no subject; empty for the images that the manifest lists.
        name: number, description and identifier of the series. It may identify a person and is never written.
        subject, session: the labels; empty where none were given.
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
    """The series that an import took, skipped and refused.

    Attributes:
        series: the outcome of each.
        warnings: what deserves a look, in fixed words under the new labels.
        other: files that are no DICOM images -> reason. Their names are never written.
        unreadable: DICOM files that cannot be used -> reason. Their names are never written.
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
        """The part that may be published: no description, identifier or name of a file."""
        # In an order that knows of labels and reasons only: that of the series here is the order of PatientID.
        ordered = sorted(self.series, key=lambda e: (not e.subject, e.subject, e.session, e.image, e.outcome, e.reason))
        return {
            "manifest": self.manifest.name,
            "series": [{key: value for key, value in asdict(each).items() if key != "name"} for each in ordered],
            "warnings": list(self.warnings),
            "files_that_are_no_image": len(self.other),
            "unreadable_files": len(self.unreadable),
            "rows_without_scan": len(self.unmatched),
            "links_not_followed": len(self.links),
        }


@dataclass(frozen=True)
class _Image:
    """A converted series that has no label yet."""

    series: Series
    path: Path
    voxel_mm3: float
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]

    @property
    def preference(self) -> tuple[float, bool, float]:
        """Smaller is better: fine voxels, then normalised by the scanner, then the last: a repeat was made for a reason."""
        header = self.series.header
        normalised = "NORM" in header.words("ImageType")
        return round(self.voxel_mm3, 2), not normalised, -(header.number("SeriesNumber") or 0.0)


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
        out: the cohort's new folder. It appears when all is done.
        options: choice of series and naming of subjects.
        rng: deals the labels; the operating system's randomness if not given.
        progress: called with the number of files read and their total.

    Raises:
        CohortError: if nothing can be taken, or if the key would lie in `out`.
        OutputError: if `out` holds something that is not to be replaced.
        DependencyError: if pydicom or dcm2niix is not installed.
    """
    options = options or DicomOptions()
    folder, out = Path(folder), Path(out)
    _check_places(folder, out, options)
    table = SubjectTable() if options.table is None else read_subjects(options.table)
    known = [] if options.key is None else read_key(options.key)
    found = find_files(folder, ("",), follow_links=options.follow_links)
    scan = read_folder(found.root, progress, files=found.files)
    links = tuple(item for item in found.skipped if not item.expected)
    if not scan.series:
        left_out = f", {len(links)} links that were not followed: see --follow-links" if links else ""
        msg = (
            f"{folder}: no DICOM image in it ({len(scan.other)} other files, {len(scan.unreadable)} unreadable DICOM "
            f"files{left_out}); choose the folder that the scanner or the archive exported"
        )
        raise CohortError(msg)
    outcomes: dict[str, SeriesOutcome] = {}
    warnings: list[str] = []
    rows: list[dict[str, Any]] = []
    keys: list[KeyRow] = []
    with atomic_folder(out) as place:
        suitable = _select(scan, options.rule, outcomes)
        images = _convert(suitable, place, outcomes)
        visits = group_visits(series for series in suitable if series.uid in images)
        for visit in name_visits(
            visits, known, rng or random.SystemRandom(), warnings, keep_patient_id=options.keep_patient_id
        ):
            taken = _write_visit(visit, [images[series.uid] for series in visit.series], place, outcomes, warnings)
            rows.append(_manifest_row(visit, taken, table, options, warnings))
            labels = (visit.subject.removeprefix("sub-"), visit.session.removeprefix("ses-"))
            for series, image in taken:
                day = series.header.text("StudyDate")
                keys.append(KeyRow(*labels, visit.patient, day, visit.study, series.uid, image))
        report = DicomReport(
            manifest=out / MANIFEST_NAME,
            series=tuple(outcomes[series.uid] for series in scan.series),
            warnings=tuple(warnings),
            other=scan.other,
            unreadable=scan.unreadable,
            unmatched=table.unused,
            links=links,
        )
        if not rows:
            raise CohortError(_nothing(folder, report))
        (place / UNNAMED).rmdir()
        _write_tables(place, rows)
        _write_descriptions(place)
        write_json(place / REPORT_NAME, report.to_dict())
        if options.key is not None:
            # Before the cohort takes its name: without the key, its subjects cannot be identified.
            write_key(options.key, [*known, *keys])
    return report


def _check_places(folder: Path, out: Path, options: DicomOptions) -> None:
    check_new_folder(out, force=options.force, sign=REPORT_NAME)
    inside = out.resolve()
    if inside.is_relative_to(folder.resolve()):
        msg = f"{out}: the cohort would lie among the DICOM files; choose a folder outside {folder}"
        raise CohortError(msg)
    if options.key is not None and options.key.resolve().is_relative_to(inside):
        msg = f"{options.key}: the key would lie in the de-identified cohort; choose a place outside {out}"
        raise CohortError(msg)


def _select(scan: Scan, rule: SeriesRule, outcomes: dict[str, SeriesOutcome]) -> list[Series]:
    """The T1w series; the outcome of the others is noted."""
    visits = group_visits(scan.series)
    reasons = {uid: reason for visit in visits for uid, reason in select_series(visit.series, rule).items()}
    contradictory = _contradictory_patients(scan.series)
    suitable = []
    for series in scan.series:
        if (reason := reasons[series.uid]) is not None:
            outcomes[series.uid] = SeriesOutcome("skipped", reason, series.name)
        elif len(series.patients) > 1:
            refusal = f"images of {len(series.patients)} patients in one series; sort the files by patient"
            outcomes[series.uid] = SeriesOutcome("refused", refusal, series.name)
        elif patient_of(series) in contradictory:
            outcomes[series.uid] = SeriesOutcome("refused", CONTRADICTORY, series.name)
        else:
            suitable.append(series)
    return suitable


def _contradictory_patients(all_series: Iterable[Series]) -> set[str]:
    """Patients with several birth dates or sexes."""
    table = pd.DataFrame(
        [(patient_of(each), each.header.text("PatientBirthDate") or None, sex_of(each.header)) for each in all_series]
    )
    several = table.groupby(0).nunique().gt(1).any(axis=1)
    return set(several.index[several])


def _convert(suitable: Sequence[Series], place: Path, outcomes: dict[str, SeriesOutcome]) -> dict[str, _Image]:
    """SeriesInstanceUID -> converted image, in a hidden folder of the cohort; refusals are noted."""
    images: dict[str, _Image] = {}
    for number, series in enumerate(suitable):
        try:
            converted = convert_series(series)
        except VolumeError as error:
            outcomes[series.uid] = SeriesOutcome("refused", str(error), series.name)
            continue
        path = write_volume(converted.volume, place / UNNAMED / f"{number}.nii.gz", description="ldae import")
        volume_mm3 = converted.volume.grid.voxel_volume_ml * 1000
        facts, warnings = published_facts(converted.sidecar), published_warnings(converted.warnings)
        images[series.uid] = _Image(series, path, volume_mm3, facts, warnings)
    return images


def _write_visit(
    visit: Visit, runs: Sequence[_Image], place: Path, outcomes: dict[str, SeriesOutcome], warnings: list[str]
) -> list[tuple[Series, str]]:
    """Name the runs of a visit; the first of those returned is the one for the manifest."""
    taken = []
    for number, run in enumerate(runs, start=1):
        entity = f"_run-{number}" if len(runs) > 1 else ""
        image = f"{visit.subject}/{visit.session}/anat/{visit.subject}_{visit.session}{entity}_T1w.nii.gz"
        write_json(sidecar_path(place / image), dict(run.facts))
        run.path.rename(place / image)
        warnings += [f"{visit.subject} {visit.session}: dcm2niix: {warning}" for warning in run.warnings]
        taken.append((run, image))
    taken.sort(key=lambda pair: pair[0].preference)
    for rank, (run, image) in enumerate(taken):
        reason = "written, but another run of the visit is in the manifest" if rank else ""
        outcomes[run.series.uid] = SeriesOutcome("taken", reason, run.series.name, visit.subject, visit.session, image)
    return [(run.series, image) for run, image in taken]


def _manifest_row(
    visit: Visit,
    taken: Sequence[tuple[Series, str]],
    table: SubjectTable,
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
        if len(run.planes) < (run.header.number("ImagesInAcquisition") or 0):
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
        if name == "sex" and row["sex"] not in (None, value):
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
    first = next(iter(report.of("refused")), report.series[0])
    counts = Counter(each.reason for each in report.series).most_common(3)
    reasons = "; ".join(f"{count} x {reason}" for reason, count in counts)
    return (
        f"{folder}: none of its {len(report.series)} series can be taken ({reasons}), such as {first.name}; name a series "
        "with --series-description, or see what --include-derived and --any-modality do"
    )


def _write_tables(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The manifest, the participants and their sessions; of a subject, visits are in order."""
    frame = pd.DataFrame(list(rows), dtype=object)
    write_manifest(frame, folder / MANIFEST_NAME)

    def write(path: Path, table: pd.DataFrame, names: Sequence[str]) -> None:
        present = table[[name for name in names if name in table]]
        write_text(path, present.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n"))

    first = frame.drop_duplicates("participant_id")
    write(folder / "participants.tsv", first, ("participant_id", "age", "sex", "diagnosis", "site"))
    for subject, own in frame.groupby("participant_id"):
        path = folder / str(subject) / f"{subject}_sessions.tsv"
        write(path, own, ("session_id", "months", "age", "diagnosis"))


def _write_descriptions(folder: Path) -> None:
    """The files that describe the data set."""
    age = {"Description": "age at the first visit; 90 may stand for any age over 89", "Units": "years"}
    write_json(folder / "participants.json", {"age": age, "sex": {"Levels": {"F": "female", "M": "male"}}})
    months = {"Description": "since the first visit", "Units": "months"}
    write_json(folder / "sessions.json", {"months": months, "age": {**age, "Description": "age at the visit"}})
    write_description(
        folder,
        "T1w images imported from DICOM by ldae",
        "T1w images imported from DICOM. Of the headers, only numbers of the acquisition and words of closed lists were\n"
        "kept: no names, dates, identifiers or free text. Months count from the first visit that was imported.\n"
        "The images were not defaced: where a head has its face on, a person can be recognised.\n",
        kind="raw",
        ignored=[MANIFEST_NAME, REPORT_NAME],
    )
