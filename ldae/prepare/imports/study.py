"""A manifest from a study's tables and a folder of images."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ldae.data.manifest import write_manifest
from ldae.data.text_table import shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.columns import Unusable, identifier_words
from ldae.prepare.imports.image_files import find_images, manifest_path
from ldae.prepare.imports.import_report import ImportReport, Skipped, Taken, check_out
from ldae.prepare.imports.scan_values import scan_values
from ldae.prepare.imports.study_map import StudyMap
from ldae.prepare.imports.study_match import match_scans, plain_image
from ldae.prepare.imports.study_tables import read_study

__all__ = ["import_study"]


def import_study(
    tables: Sequence[Path], study: StudyMap, images: Path, out: Path, *, follow_links: bool = False, force: bool = False
) -> ImportReport:
    """Write a manifest from a study's tables and images, and a report beside it.

    Args:
        tables: CSV or TSV files of the study, whose rows are pooled by subject.
        study: the map of their columns.
        images: folder of images, searched with its subfolders.
        out: the manifest to write, .tsv or .csv.
        follow_links: take images behind links that lead out of the folder.
        force: replace a file that no import wrote.

    Raises:
        CohortError: if there is no image, a table has no column of identifiers, a date could be two days, nothing matches,
            `out` is one of the tables or another file that no import wrote, or anything is ambiguous under a strict map.
        ManifestError: if a table cannot be read.
    """
    tables, images, out = [Path(table) for table in tables], Path(images), Path(out)
    check_out(out, tables, force=force)
    unused: list[Skipped] = []
    unusable = Unusable()
    visits = read_study(tables, study, unused, unusable)
    found = find_images(images, follow_links=follow_links)
    paths = {found.name(path): path for path in found.files}
    scans, pairs, unmatched = match_scans(list(paths), visits, study)
    if scans.empty:
        reasons = [f"{item.source}: {item.reason}" for item in unmatched]
        msg = (
            f"{', '.join(map(str, tables))}: none of {len(paths)} images in {images} belongs to a visit of "
            f"{visits['subject'].nunique()} subjects ({shortlist(reasons)}); the identifiers are such as "
            f"{visits['participant_id'].iloc[0]!r}: name their column with --id-column, or correct images.patterns in a "
            "copy of the map"
        )
        raise CohortError(msg)
    doubts: list[str] = []
    frame = scan_values(scans, pairs, visits, study, doubts)
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
            *unused,
            *_without_image(scans, pairs, unmatched, visits, study),
        ),
        notes=(
            f"map: {study.study}",
            f"tables: {', '.join(table.name for table in tables)}",
            *unusable.notes(),
            *_renamed(scans, visits),
            *doubts,
            *_diagnosis_notes(frame),
        ),
    )
    report.write()
    return report


def _diagnosis_notes(frame: pd.DataFrame) -> list[str]:
    missing = int(frame["diagnosis"].isna().sum())
    notes = [f"diagnosis is n/a for {missing} of {len(frame)} scan(s)"] if missing else []
    if "diagnosis_gap_days" in frame:
        far = frame["diagnosis_gap_days"][frame["diagnosis_gap_days"] > 0]
        notes.append(f"diagnosis made on another day than the scan for {len(far)} scan(s), up to {far.max()} days away")
    return notes


def _renamed(scans: pd.DataFrame, visits: pd.DataFrame) -> list[str]:
    """Subjects whose identifier lost letters that a manifest cannot hold."""
    written = visits.drop_duplicates("subject").set_index("subject")["participant_id"]
    lost = [
        f"{written[scan.subject]!r} is {scan.participant_id!r}"
        for scan in scans.drop_duplicates("subject").itertuples()
        if identifier_words(scan.participant_id).replace(" ", "") != scan.subject
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
    with_list = visits.loc[visits["image_id"].notna(), "subject"]
    absent = visits[~visits["subject"].isin([*scans["subject"], *with_list])].drop_duplicates("subject")
    reason = "a subject of the tables without an image"
    missing += [Skipped(row.participant_id, reason, not study.strict, row.where) for row in absent.itertuples()]
    for row in unused[unused["subject"].isin(scans["subject"]) & unused["keyed"] & ~listed].itertuples():
        at = row.visit or (f"{row.exam_date:%Y-%m-%d}" if pd.notna(row.exam_date) else f"day {row.day:.0f}")
        detail = f"{row.participant_id} {at}"
        missing.append(Skipped(row.where, "a visit of the table without an image", not study.strict, detail))
    return missing
