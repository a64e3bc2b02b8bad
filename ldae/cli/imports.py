"""`ldae cohort import`: a manifest of images that lie elsewhere."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ldae.cli.command import command
from ldae.cli.console import exit_code, progress_bar, say
from ldae.cli.options import Folder, Input, Inputs, Output

if TYPE_CHECKING:
    from ldae.prepare.imports.dicom.dataset import DicomOptions
    from ldae.prepare.imports.import_report import ImportReport
    from ldae.prepare.imports.study_map import StudyMap

ITEMS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Made:
    """The manifest that an import makes.

    Attributes:
        out: the manifest to write, .tsv or .csv.
        follow_links: take images behind links that lead out of the folder.
        strict: refuse cells and rows that cannot be used, instead of leaving them out; exit code 2, not 1, if something that
            should have matched did not.
        force: replace a file that no import wrote.
    """

    out: Output
    follow_links: bool = False
    strict: bool = False
    force: bool = False


@command("cohort import bids")
def import_bids(
    folder: Input,
    made: Made,
    *,
    include_derivatives: str | None = None,
    prefer: list[str] | None = None,
) -> int:
    """Make a manifest of a BIDS data set.

    Takes one T1w image a session, with the values of the data set's tables.

    Args:
        folder: the data set, raw or derivative.
        made: the manifest.
        include_derivatives: take the images of this folder in derivatives before raw ones.
        prefer: which of several T1w of a session comes first, each as entity-label, such as acq-mprage.

    Examples:
        ldae cohort import bids DATASET --out cohort.tsv
    """
    from ldae.prepare.imports.bids import import_bids

    derivative, preferred = include_derivatives, prefer or []
    links, force = made.follow_links, made.force
    report = import_bids(folder, made.out, derivative=derivative, prefer=preferred, follow_links=links, force=force)
    return show(report, made.strict)


@command("cohort import table")
def import_table(tables: Inputs, made: Made, *, map: str, images: Path) -> int:
    """Make a manifest of a study's tables, by a map of their columns.

    Args:
        tables: CSV, TSV or XLSX files, a row a visit, a scan or a subject.
        made: the manifest.
        map: map of the columns: adni, adni_search, oasis3, generic, or a YAML file.
        images: folder of images.

    Examples:
        ldae cohort import table ADNIMERGE.csv --map adni --images bids --out cohort.tsv
    """
    from ldae.prepare.imports.study_map import load_map

    return _import_study(tables, load_map(map), images, made)


@command("cohort import csv")
def import_csv(made: Made, *, images: Path, table: Path, id_column: str | None = None) -> int:
    """Make a manifest of a folder of images and a table of subjects, matched by identifier.

    Args:
        made: the manifest.
        images: folder of images.
        table: CSV, TSV or XLSX, a row a scan or a subject.
        id_column: column of the identifier that file names hold.

    Examples:
        ldae cohort import csv --images heads --table people.csv --out cohort.tsv
    """
    from ldae.prepare.imports.study_map import usual_map

    return _import_study([table], usual_map(id_column, strict=made.strict), images, made)


def _import_study(tables: list[Path], study: "StudyMap", images: Path, made: Made) -> int:
    from ldae.prepare.imports.study import import_study

    report = import_study(tables, study, images, made.out, follow_links=made.follow_links, force=made.force)
    return show(report, made.strict)


@command("cohort import dicom", settings="ldae.prepare.imports.dicom.dataset:DicomOptions")
def import_dicom(folder: Input, settings: "DicomOptions", *, out: Folder, strict: bool = False) -> int:
    """Import DICOM folders, as de-identified NIfTI in BIDS layout with a manifest.

    Takes T1w series. No text of a header is copied, dates become months, and subjects get new numbers. Faces stay on.
    Exit code 1 if a series that should be a T1w scan could not be used.

    Args:
        folder: folder of DICOM files, searched with its subfolders.
        settings: what is taken, and how subjects are named.
        out: folder of the cohort.
        strict: exit code 2, not 1, if a series that should be a T1w scan could not be used.

    Examples:
        ldae cohort import dicom EXPORT --out bids
    """
    from ldae.prepare.imports.dicom.dataset import import_dicom

    with progress_bar("headers") as move:
        report = import_dicom(folder, out, settings, progress=move)
    for each in report.series:
        where = f" as {each.image}" if each.image else ""
        say(f"{each.outcome}: {each.name}{where}" + (f": {each.reason}" if each.reason else ""))
    for name, reason in report.unreadable.items():
        say(f"unreadable: {name}: {reason}")
    for link in report.links:
        say(f"not followed: {link.source}: {link.reason}")
    if report.other:
        say(f"{len(report.other)} other files, such as {next(iter(report.other))}")
    for warning in report.warnings:
        say(f"look at {warning}")
    for patient in report.unmatched:
        say(f"no scan for the table's row of {patient}")
    counts = ", ".join(f"{len(report.of(outcome))} {outcome}" for outcome in ("taken", "skipped", "refused"))
    say(f"series: {counts}; the lines above may name subjects, the written files do not")
    if settings.key is not None:
        say(f"key, which names subjects: {settings.key}")
    say(f"manifest: {report.manifest}", manifest=report.manifest)
    return exit_code(report.of("refused") or report.unreadable or report.unmatched or report.links, strict=strict)


def show(report: "ImportReport", strict: bool) -> int:
    """Print what an import took and left out; exit code 1, or 2, if something that should have matched did not."""
    say(f"manifest: {report.manifest}, {len(report.taken)} scan(s)", manifest=report.manifest)
    for note in report.notes:
        say(f"note: {note}")
    for note, count in Counter(item.note for item in report.taken if item.note).items():
        say(f"note: {count} x {note}")
    for reason, expected, items in report.reasons():
        say(f"{'left out' if expected else 'CHECK'}: {len(items)} x {reason}")
        for item in items[:ITEMS_SHOWN]:
            say(f"  {item.source}" + (f" ({item.detail})" if item.detail else ""))
        if len(items) > ITEMS_SHOWN:
            say(f"  and {len(items) - ITEMS_SHOWN} more")
    say(f"report: {report.path}", report=report.path)
    return exit_code(not report.complete, strict=strict)
