"""A manifest from a study's tables and a folder of images.

What a manifest says of a scan is meant at the scan, whereas a study's tables speak of visits and people:

- **age**: from the date of birth and the date of the scan; else the age at the visit, moved by the time between visit and
  scan; else the age at baseline and the time since.
- **months**: from the column of months or the visit's code; else from days since entry or dates, counted from the person's
  first scan. One way for all scans of a person.
- **diagnosis**: at the visit; the one at baseline goes to scans of month 0 only. Where it is missing it is n/a, unless the
  map allows that of the nearest visit (`carry_days`); `diagnosis_gap_days` then says how far it came.
- **sex** and **date of birth** are of the person: rows that disagree give n/a.
"""

import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

import pandas as pd

from ldae.data.manifest import write_manifest
from ldae.data.schema import MAX_AGE_YEARS
from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.columns import plain_identifier
from ldae.prepare.imports.image_files import find_images, manifest_path
from ldae.prepare.imports.import_report import ImportReport, Skipped, Taken, check_out
from ldae.prepare.imports.study.column_map import StudyMap
from ldae.prepare.imports.study.match import Match, match_images
from ldae.prepare.imports.study.table import StudyTables, Visit, plain_image, read_study
from ldae.prepare.imports.visits import DAYS_PER_MONTH, DAYS_PER_YEAR, months_of_visit

__all__ = ["import_study"]

T = TypeVar("T")


def import_study(
    tables: Sequence[Path], study: StudyMap, images: Path, out: Path, *, follow_links: bool = False
) -> ImportReport:
    """Write a manifest from a study's tables and images, and a report beside it.

    Args:
        tables: CSV or TSV files of the study, whose rows are pooled by person.
        study: the map of their columns.
        images: folder of images, searched with its subfolders.
        out: the manifest to write, .tsv or .csv.
        follow_links: take images behind links that lead out of the folder.

    Raises:
        CohortError: if there is no image, a table has no column of identifiers, a date could be two days, nothing matches,
            or `out` is one of the tables or another file that no import wrote.
        ManifestError: if a table cannot be read.
    """
    tables, images, out = [Path(table) for table in tables], Path(images), Path(out)
    check_out(out, tables)
    people = read_study(tables, study)
    found = find_images(images, follow_links=follow_links)
    paths = {found.name(path): path for path in found.files}
    matches, unmatched = match_images(list(paths), people, study)
    if not matches:
        reasons = [f"{item.source}: {item.reason}" for item in unmatched]
        msg = (
            f"{', '.join(str(table) for table in tables)}: none of {len(paths)} images in {images} belongs to a visit of "
            f"{len(people.people)} people ({shortlist(reasons)}); correct images.patterns in a copy of the map"
        )
        raise CohortError(msg)
    doubts: list[str] = []
    frame = pd.DataFrame(_rows(matches, people, study, doubts), dtype=object)
    frame["image"] = [manifest_path(paths[image], out) for image in frame["scan"]]
    write_manifest(frame.drop(columns="scan"), out)
    near = {match.image: bool(match.rows) for match in matches}
    taken = [
        Taken(f"{person}_{session}", image, "" if near[image] else f"no visit within {study.images.within_days} days")
        for person, session, image in zip(frame["participant_id"], frame["session_id"], frame["scan"], strict=True)
    ]
    report = ImportReport(
        kind="table",
        source=tables[0] if len(tables) == 1 else tables[0].parent,
        manifest=out,
        taken=tuple(taken),
        skipped=(*unmatched, *found.skipped, *people.skipped, *_without_image(matches, unmatched, people)),
        notes=(
            f"map: {study.study}",
            f"tables: {', '.join(table.name for table in tables)}",
            *people.notes,
            *_renamed(matches, people),
            *doubts,
            *_gaps(frame),
        ),
    )
    report.write()
    return report


def _rows(
    matches: Sequence[Match], tables: StudyTables, study: StudyMap, doubts: list[str]
) -> list[dict[str, object | None]]:
    codes = {key.lower(): months for key, months in study.visits.items()}
    by_person: dict[str, list[Match]] = {}
    for match in matches:
        by_person.setdefault(match.person, []).append(match)
    rows: list[dict[str, object | None]] = []
    for person, own in by_person.items():
        everything = tables.people[person]
        name = own[0].participant_id
        sex = _agreed(everything, lambda row: row.sex, f"sex of {name}", doubts)
        born = _agreed(everything, lambda row: row.birth_date, f"date of birth of {name}", doubts)
        entry_age = _agreed(everything, lambda row: row.baseline_age, f"age of {name} at baseline", doubts)
        nominal = [_nominal_months(match, codes) for match in own]
        for match, since, months in zip(own, nominal, _clock(own, nominal), strict=True):
            age = _age(match, born, entry_age, since)
            if age is not None and not 0 <= age <= MAX_AGE_YEARS:
                doubts.append(f"age at {match.image} comes to {age:.1f} years, so n/a: check the dates")
                age = None
            diagnosis, diagnosis_gap = _diagnosis(match, everything, since, study)
            extra: dict[str, object] = {}
            for visit in (*match.rows, *(row for row in everything if not row.keyed)):
                for column, value in visit.extra:
                    extra.setdefault(column, value)
            rows.append(
                {
                    "scan": match.image,
                    "participant_id": match.participant_id,
                    "session_id": match.session_id,
                    "age": _figure(age, 3),
                    "sex": sex,
                    "diagnosis": diagnosis,
                    "months": _figure(months, 2),
                    "site": _first(match.rows, lambda row: row.site) or _first(everything, lambda row: row.site),
                    **extra,
                    "diagnosis_gap_days": diagnosis_gap,
                }
            )
    rows.sort(key=lambda row: (str(row["participant_id"]), float(str(row["months"] or "inf")), str(row["session_id"])))
    columns = dict.fromkeys(name for row in rows for name in row)
    if not any(row["diagnosis_gap_days"] for row in rows):
        columns.pop("diagnosis_gap_days")
    return [{name: row.get(name) for name in columns} for row in rows]


def _age(match: Match, born: date | None, entry_age: float | None, months: float | None) -> float | None:
    """Years at the scan."""
    scanned = _scan_date(match)
    if born is not None and scanned is not None:
        return float((scanned - born).days / DAYS_PER_YEAR)
    for row in match.rows:
        if row.age is not None:
            return row.age + (_gap_days(match, row) or 0) / DAYS_PER_YEAR
    if entry_age is None:
        return None
    day = _scan_day(match)
    if day is not None:
        return entry_age + day / DAYS_PER_YEAR
    gap = next((gap for row in match.rows if (gap := _gap_days(match, row)) is not None), 0)
    return None if months is None else entry_age + months / 12 + gap / DAYS_PER_YEAR


def _diagnosis(
    match: Match, everything: Sequence[Visit], months: float | None, study: StudyMap
) -> tuple[str | None, int | None]:
    """Diagnosis at the visit, and how many days from the scan it was made, where that is known."""
    for row in match.rows:
        if row.diagnosis is not None:
            gap = _gap_days(match, row)
            return row.diagnosis, None if gap is None else abs(gap)
    at_baseline = _first(everything, lambda row: row.baseline_diagnosis)
    if at_baseline is not None and (months == 0 or match.day == 0):
        return at_baseline, None
    near = [
        (abs(gap), i)
        for i, row in enumerate(everything)
        if row.diagnosis is not None and (gap := _gap_days(match, row)) is not None
    ]
    if study.diagnosis.carry_days > 0 and near and min(near)[0] <= study.diagnosis.carry_days:
        return everything[min(near)[1]].diagnosis, min(near)[0]
    return None, None


def _gap_days(match: Match, row: Visit) -> int | None:
    """Days from a visit to the scan; negative where the visit came later."""
    day, scanned = _scan_day(match), _scan_date(match)
    if day is not None and row.day is not None:
        return day - row.day
    return None if scanned is None or row.exam_date is None else (scanned - row.exam_date).days


def _scan_day(match: Match) -> int | None:
    return match.day if match.day is not None else _first(match.rows, lambda row: row.day)


def _scan_date(match: Match) -> date | None:
    return match.scan_date or _first(match.rows, lambda row: row.exam_date)


def _nominal_months(match: Match, codes: dict[str, float]) -> float | None:
    """Months since baseline by the table's own column or the visit's code."""
    stated = _first(match.rows, lambda row: row.months)
    return stated if stated is not None or match.code is None else months_of_visit(match.code, codes)


def _clock(own: Sequence[Match], nominal: Sequence[float | None]) -> Sequence[float | None]:
    """Months of a person's scans, in one way for all: as stated, else by days, else by dates, from the first scan."""
    days = [_scan_day(match) for match in own]
    ordinals = [None if (scanned := _scan_date(match)) is None else scanned.toordinal() for match in own]

    def from_first(values: Sequence[int | None]) -> Sequence[float | None]:
        first = min((value for value in values if value is not None), default=0)
        return [None if value is None else (value - first) / DAYS_PER_MONTH for value in values]

    clocks = [nominal, from_first(days), from_first(ordinals)]
    whole = (clock for clock in clocks if None not in clock)
    return next(whole, None) or next((clock for clock in clocks if any(v is not None for v in clock)), nominal)


def _first(rows: Sequence[Visit], get: Callable[[Visit], T | None]) -> T | None:
    return next((value for row in rows if (value := get(row)) is not None), None)


def _agreed(rows: Sequence[Visit], get: Callable[[Visit], T | None], what: str, doubts: list[str]) -> T | None:
    """What all rows of a person say that say anything."""
    by_value = {value: row.where for row in rows if (value := get(row)) is not None}
    if len(by_value) > 1:
        doubts.append(f"{what} differs between rows, so n/a: {shortlist([f'{k} ({v})' for k, v in by_value.items()])}")
        return None
    return next(iter(by_value), None)


def _figure(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{round(value, digits):g}"


def _gaps(frame: pd.DataFrame) -> list[str]:
    missing = int(frame["diagnosis"].isna().sum())
    notes = [f"diagnosis is n/a for {missing} of {len(frame)} scan(s)"] if missing > 0 else []
    if "diagnosis_gap_days" in frame:
        far = [gap for gap in frame["diagnosis_gap_days"] if gap is not None and not pd.isna(gap) and gap > 0]
        notes.append(
            f"diagnosis made on another day than the scan for {len(far)} scan(s), up to {max(far):.0f} days away"
        )
    return notes


def _renamed(matches: Sequence[Match], tables: StudyTables) -> list[str]:
    """People whose identifier lost letters that a manifest cannot hold."""
    lost = {}
    for match in matches:
        written = tables.people[match.person][0].participant_id
        if plain_identifier(written) != plain_identifier(match.participant_id):
            lost[match.participant_id] = f"{written!r} is {match.participant_id!r}"
    return (
        [f"identifiers without the letters that a manifest cannot hold: {shortlist(list(lost.values()))}"]
        if lost
        else []
    )


def _without_image(matches: Sequence[Match], unmatched: Sequence[Skipped], tables: StudyTables) -> list[Skipped]:
    """People, visits and images of the tables that have no file. Only a listed image should have had one."""
    used = {row.where for match in matches for row in match.rows}
    with_image = {match.person for match in matches}
    numbers = {plain_image(match.image_id) for match in matches if match.image_id is not None}
    # A file that was left out for a reason of its own is there all the same.
    there = {number.lstrip("0") for item in unmatched for number in re.findall(r"\d+", item.source)}
    missing = []
    for person, rows in tables.people.items():
        listed = [row for row in rows if row.image_id is not None]
        for row in listed:
            number = plain_image(row.image_id or "")
            if row.where not in used and number not in numbers and number.lstrip("0") not in there:
                missing.append(
                    Skipped(row.where, "an image of the table that is not in the folder", detail=row.image_id or "")
                )
        if person not in with_image:
            if not listed:
                missing.append(Skipped(rows[0].participant_id, "a person of the table without an image", expected=True))
            continue
        for row in rows:
            if row.keyed and row.image_id is None and row.where not in used:
                detail = f"{row.participant_id} {row.code or row.exam_date or ('day ' + str(row.day))}"
                missing.append(
                    Skipped(row.where, "a visit of the table without an image", expected=True, detail=detail)
                )
    return missing
