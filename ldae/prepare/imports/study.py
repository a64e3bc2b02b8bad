"""A manifest from a study's tables and a folder of images.

A manifest's values hold at the scan, whereas a study's tables speak of visits and subjects:

- **age**: from the date of birth and the date of the scan; else the age at the visit, moved by the time between visit and
  scan; else the age at baseline and the time since.
- **months**: from the column of months or the visit's code; else from days since entry or dates, counted from the subject's
  first scan. One way for all scans of a subject.
- **diagnosis**: at the visit; the one at baseline goes to scans of month 0 only. Where it is missing it is n/a, unless the
  map allows that of the nearest visit (`carry_days`); `diagnosis_gap_days` then holds the days between.
- **sex** and **date of birth** are of the subject: rows that disagree give n/a.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ldae.data.manifest import write_manifest
from ldae.data.schema import MAX_AGE_YEARS
from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.columns import identifier_words
from ldae.prepare.imports.image_files import find_images, manifest_path
from ldae.prepare.imports.import_report import ImportReport, Skipped, Taken, check_out
from ldae.prepare.imports.study_map import StudyMap
from ldae.prepare.imports.study_match import match_scans, plain_image
from ldae.prepare.imports.study_tables import EXTRA, read_study
from ldae.prepare.imports.visits import DAYS_PER_YEAR, months_since_first

__all__ = ["import_study"]


def import_study(
    tables: Sequence[Path], study: StudyMap, images: Path, out: Path, *, follow_links: bool = False
) -> ImportReport:
    """Write a manifest from a study's tables and images, and a report beside it.

    Args:
        tables: CSV or TSV files of the study, whose rows are pooled by subject.
        study: the map of their columns.
        images: folder of images, searched with its subfolders.
        out: the manifest to write, .tsv or .csv.
        follow_links: take images behind links that lead out of the folder.

    Raises:
        CohortError: if there is no image, a table has no column of identifiers, a date could be two days, nothing matches,
            `out` is one of the tables or another file that no import wrote, or anything is ambiguous under a strict map.
        ManifestError: if a table cannot be read.
    """
    tables, images, out = [Path(table) for table in tables], Path(images), Path(out)
    check_out(out, tables)
    known = read_study(tables, study)
    found = find_images(images, follow_links=follow_links)
    paths = {found.name(path): path for path in found.files}
    scans, pairs, unmatched = match_scans(list(paths), known.visits, study)
    if scans.empty:
        reasons = [f"{item.source}: {item.reason}" for item in unmatched]
        msg = (
            f"{', '.join(map(str, tables))}: none of {len(paths)} images in {images} belongs to a visit of "
            f"{known.visits['person'].nunique()} subjects ({shortlist(reasons)}); the identifiers are such as "
            f"{known.visits['participant_id'].iloc[0]!r}: name their column with --id-column, or correct images.patterns in a "
            "copy of the map"
        )
        raise CohortError(msg)
    doubts: list[str] = []
    frame = _values(scans, pairs, known.visits, study, doubts)
    order = frame.sort_values(["participant_id", "months", "session_id"], na_position="last").index
    frame, scans = frame.loc[order], scans.loc[order]
    frame["image"] = [manifest_path(paths[image], out) for image in scans["image"]]
    write_manifest(frame, out)
    near = scans.index.isin(pairs["scan"])
    far = f"no visit within {study.images.within_days} days"
    report = ImportReport(
        kind="table",
        source=tables[0] if len(tables) == 1 else tables[0].parent,
        manifest=out,
        taken=tuple(
            Taken(f"{scan.participant_id}_{scan.session_id}", scan.image, "" if is_near else far)
            for scan, is_near in zip(scans.itertuples(), near, strict=True)
        ),
        skipped=(
            *unmatched,
            *found.skipped,
            *known.skipped,
            *_without_image(scans, pairs, unmatched, known.visits, study),
        ),
        notes=(
            f"map: {study.study}",
            f"tables: {', '.join(table.name for table in tables)}",
            *known.notes,
            *_renamed(scans, known.visits),
            *doubts,
            *_diagnosis_notes(frame),
        ),
    )
    report.write()
    return report


def _values(
    scans: pd.DataFrame, pairs: pd.DataFrame, visits: pd.DataFrame, study: StudyMap, doubts: list[str]
) -> pd.DataFrame:
    """The manifest's columns for each scan but the image; index as in `scans`."""
    rows = pairs.join(visits, on="row")
    at_visit = rows.groupby("scan").first().reindex(scans.index)
    scans = scans.assign(
        day=scans["day"].fillna(at_visit["day"]),
        date=scans["date"].fillna(at_visit["exam_date"]),
        stated_day=scans["day"],
    )
    own = visits[visits["person"].isin(scans["person"])]

    def of_person(values: pd.Series) -> pd.Series:
        return values.reindex(scans["person"]).set_axis(scans.index)

    sex, born, entry_age = (
        of_person(_agreed(own, column, what, doubts))
        for column, what in (("sex", "sex"), ("birth_date", "date of birth"), ("baseline_age", "age at baseline"))
    )
    rows["gap"] = _gap_days(scans, rows)
    gap_years = rows.groupby("scan")["gap"].first().reindex(scans.index).fillna(0) / DAYS_PER_YEAR
    moved_age = (rows["age"] + rows["gap"].fillna(0) / DAYS_PER_YEAR).groupby(rows["scan"]).first()
    since = at_visit["months"].fillna(scans["code_months"])
    age = (scans["date"] - born).dt.days / DAYS_PER_YEAR
    for other in (moved_age, entry_age + scans["day"] / DAYS_PER_YEAR, entry_age + since / 12 + gap_years):
        age = age.fillna(other)
    for scan in age.index[(age < 0) | (age > MAX_AGE_YEARS)]:
        doubts.append(f"age at {scans['image'][scan]} comes to {age[scan]:.1f} years, so n/a: check the dates")
    frame = scans[["participant_id", "session_id"]].assign(
        age=age.where(age.between(0, MAX_AGE_YEARS)).round(3),
        sex=sex,
        months=months_since_first(scans["person"], since, scans["day"], scans["date"]).round(2),
    )
    anywhere = own.groupby("person")[["site", "split", "baseline_diagnosis"]].first()
    for column in ("site", "split"):
        frame[column] = at_visit[column].fillna(of_person(anywhere[column]))
    unkeyed = own[~own["keyed"]].groupby("person").first()
    for column in visits.columns[visits.columns.str.startswith(EXTRA)]:
        frame[column.removeprefix(EXTRA)] = at_visit[column].fillna(of_person(unkeyed[column]))
    frame["diagnosis"], gaps = _diagnosis(scans, rows, own, since, study, of_person(anywhere["baseline_diagnosis"]))
    if gaps.gt(0).any():
        frame["diagnosis_gap_days"] = gaps.astype("Int64")
    return frame


def _diagnosis(
    scans: pd.DataFrame,
    rows: pd.DataFrame,
    own: pd.DataFrame,
    since: pd.Series,
    study: StudyMap,
    at_baseline: pd.Series,
) -> tuple[pd.Series, pd.Series]:
    """Diagnosis at each scan, and how many days from the scan it was made, where that is known."""
    stated = rows.dropna(subset="diagnosis").drop_duplicates("scan").set_index("scan").reindex(scans.index)
    diagnosis, gaps = stated["diagnosis"], stated["gap"].abs()
    diagnosis = diagnosis.fillna(at_baseline.where((since == 0) | (scans["stated_day"] == 0)))
    if study.diagnosis.carry_days > 0:
        missing = scans.loc[diagnosis.isna(), ["person"]].reset_index(names="scan")
        near = missing.merge(own.dropna(subset="diagnosis"), on="person")
        near["gap"] = _gap_days(scans, near).abs()
        near = near[near["gap"] <= study.diagnosis.carry_days].sort_values("gap", kind="stable")
        near = near.drop_duplicates("scan").set_index("scan")
        diagnosis, gaps = diagnosis.fillna(near["diagnosis"]), gaps.fillna(near["gap"])
    return diagnosis, gaps


def _gap_days(scans: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Days from each row's visit to its scan; negative where the visit came later."""
    days = rows["scan"].map(scans["day"]) - rows["day"]
    return days.fillna((rows["scan"].map(scans["date"]) - rows["exam_date"]).dt.days)


def _agreed(own: pd.DataFrame, column: str, what: str, doubts: list[str]) -> pd.Series:
    """The value of each subject whose rows agree."""
    known = own.dropna(subset=column).drop_duplicates(["person", column])
    differing = known[known.duplicated("person", keep=False)]
    for _, rows in differing.groupby("person"):
        values = [f"{value} ({where})" for value, where in zip(rows[column], rows["where"], strict=True)]
        name = rows["participant_id"].iloc[0]
        doubts.append(f"{what} of {name} differs between rows, so n/a: {shortlist(values)}")
    return known.drop(index=differing.index).set_index("person")[column]


def _diagnosis_notes(frame: pd.DataFrame) -> list[str]:
    missing = int(frame["diagnosis"].isna().sum())
    notes = [f"diagnosis is n/a for {missing} of {len(frame)} scan(s)"] if missing else []
    if "diagnosis_gap_days" in frame:
        far = frame["diagnosis_gap_days"][frame["diagnosis_gap_days"] > 0]
        notes.append(f"diagnosis made on another day than the scan for {len(far)} scan(s), up to {far.max()} days away")
    return notes


def _renamed(scans: pd.DataFrame, visits: pd.DataFrame) -> list[str]:
    """Subjects whose identifier lost letters that a manifest cannot hold."""
    written = visits.drop_duplicates("person").set_index("person")["participant_id"]
    lost = [
        f"{written[scan.person]!r} is {scan.participant_id!r}"
        for scan in scans.drop_duplicates("person").itertuples()
        if identifier_words(scan.participant_id).replace(" ", "") != scan.person
    ]
    return [f"identifiers without the letters that a manifest cannot hold: {shortlist(lost)}"] if lost else []


def _without_image(
    scans: pd.DataFrame, pairs: pd.DataFrame, unmatched: Sequence[Skipped], visits: pd.DataFrame, study: StudyMap
) -> list[Skipped]:
    """Subjects, visits and images of the tables that have no file. Only a listed image, or a strict map's row, should."""
    # A file that was left out for a reason of its own is there all the same.
    there = {number.lstrip("0") for item in unmatched for number in re.findall(r"\d+", item.source)}
    there |= {plain_image(number).lstrip("0") for number in scans["image_id"].dropna()}
    unused = visits[~visits.index.isin(pairs["row"])]
    listed = unused["image_id"].notna()
    missing = [
        Skipped(row.where, "an image of the table that is not in the folder", detail=row.image_id)
        for row in unused[listed].itertuples()
        if plain_image(row.image_id).lstrip("0") not in there
    ]
    with_list = visits.loc[visits["image_id"].notna(), "person"]
    nobody = visits[~visits["person"].isin([*scans["person"], *with_list])].drop_duplicates("person")
    reason = "a subject of the tables without an image"
    missing += [Skipped(row.participant_id, reason, not study.strict, row.where) for row in nobody.itertuples()]
    for row in unused[unused["person"].isin(scans["person"]) & unused["keyed"] & ~listed].itertuples():
        at = row.visit or (f"{row.exam_date:%Y-%m-%d}" if pd.notna(row.exam_date) else f"day {row.day:.0f}")
        detail = f"{row.participant_id} {at}"
        missing.append(Skipped(row.where, "a visit of the table without an image", not study.strict, detail))
    return missing
