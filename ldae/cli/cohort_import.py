"""`ldae cohort import`: a manifest of images that lie elsewhere."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_out
from ldae.cli.console import progress_bar, say

__all__ = ["register"]


def register(actions: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the commands to `ldae cohort`."""
    importing = Parser(description="Make a manifest of images that lie elsewhere.")
    actions.add_subcommand("import", importing, help="make a manifest of images that lie elsewhere")
    kinds = importing.add_subcommands(required=True, dest="subcommand")
    for name, build, text, run in (
        ("csv", _csv, "a folder of images and a table", run_csv),
        ("dicom", _dicom, "DICOM folders, as de-identified NIfTI", run_dicom),
    ):
        kinds.add_subcommand(name, build(), help=text)
        runs["cohort", "import", name] = run


def _csv() -> Parser:
    parser = Parser(description="A folder of images and a table of people, matched by identifier.")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--table", type=Path, required=True, help="CSV or TSV, a row a scan or a subject")
    parser.add_argument("--id-column", default=None, help="column of the identifier that file names hold")
    parser.add_argument("--out", type=Path, required=True, help="the manifest to write, .tsv or .csv")
    return parser


def run_csv(options: Namespace) -> int:
    """Match and write; exit code 1 if something was left over."""
    from ldae.prepare.tables import import_csv

    report = import_csv(options.images, options.table, options.out, id_column=options.id_column)
    say(f"manifest: {report.manifest}, {report.matched} scans")
    for row in report.rows_without_image:
        say(f"no image for row: {row}")
    for image in report.images_without_row:
        say(f"no row for image: {image}")
    return 1 if report.rows_without_image or report.images_without_row else 0


def _dicom() -> Parser:
    parser = Parser(
        description="T1w series of DICOM folders as de-identified NIfTI in BIDS layout, with a manifest. No text of a header "
        "is copied, dates become months, and people get new numbers. Faces stay on."
    )
    parser.add_argument("folder", type=Path, help="folder of DICOM files, searched with its subfolders")
    add_out(parser, "folder of the cohort; must not hold anything yet")
    parser.add_argument("--table", type=Path, default=None, help="CSV or TSV of people or visits, matched by PatientID")
    parser.add_argument(
        "--series-description",
        default=None,
        metavar="PATTERN",
        help="take exactly the series whose description or protocol fits: a part of it, or a pattern such as '*mprage*'",
    )
    parser.add_argument("--include-derived", action="store_true", help="take derived and secondary images too")
    parser.add_argument("--any-modality", action="store_true", help="take images that do not say that they are MR")
    parser.add_argument(
        "--key",
        type=Path,
        default=None,
        help="file outside the cohort that tells whose each label is; given again, it keeps the labels",
    )
    parser.add_argument("--keep-patient-id", action="store_true", help="use PatientID as label; it may identify")
    parser.add_argument("--exact-age", action="store_true", help="keep ages over 89, which otherwise become 90")
    return parser


def run_dicom(options: Namespace) -> int:
    """Import; exit code 1 if something that should be a T1w scan could not be used."""
    from ldae.prepare.dicom import DicomOptions, import_dicom
    from ldae.prepare.dicom_selection import SeriesRule

    chosen = DicomOptions(
        rule=SeriesRule(options.series_description, options.include_derived, options.any_modality),
        keep_patient_id=options.keep_patient_id,
        exact_age=options.exact_age,
        key=options.key,
        table=options.table,
    )
    with progress_bar("headers") as move:
        report = import_dicom(options.folder, options.out, chosen, progress=move)
    for each in report.series:
        where = f" as {each.image}" if each.image else ""
        say(f"{each.outcome}: {each.name}{where}" + (f": {each.reason}" if each.reason else ""))
    for name, reason in report.unreadable.items():
        say(f"unreadable: {name}: {reason}")
    if report.other:
        say(f"{len(report.other)} other files, such as {next(iter(report.other))}")
    for warning in report.warnings:
        say(f"look at {warning}")
    for patient in report.unmatched:
        say(f"no scan for the table's row of {patient}")
    counts = ", ".join(f"{len(report.of(outcome))} {outcome}" for outcome in ("taken", "skipped", "refused"))
    say(f"series: {counts}; the lines above may name people, the files written do not")
    if options.key is not None:
        say(f"key, which names people: {options.key}")
    say(f"manifest: {report.manifest}")
    return 1 if report.of("refused") or report.unreadable or report.unmatched else 0
