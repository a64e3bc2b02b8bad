"""`ldae cohort import`: a manifest of images that lie elsewhere."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_out
from ldae.cli.console import progress_bar, say

if TYPE_CHECKING:
    from ldae.prepare.imports.import_report import ImportReport

__all__ = ["register", "tell"]

ITEMS_SHOWN = 5


def register(actions: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the commands to `ldae cohort`."""
    importing = Parser(description="Make a manifest of images that lie elsewhere.")
    actions.add_subcommand("import", importing, help="make a manifest of images that lie elsewhere")
    kinds = importing.add_subcommands(required=True, dest="subcommand")
    for name, build, text, run in (
        ("bids", _bids, "a BIDS data set", run_bids),
        ("dicom", _dicom, "DICOM folders, as de-identified NIfTI", run_dicom),
        ("table", _table, "a study's tables, by a map of its columns", run_table),
        ("csv", _csv, "a folder of images and a table", run_csv),
    ):
        kinds.add_subcommand(name, build(), help=text)
        runs["cohort", "import", name] = run


def tell(report: "ImportReport") -> int:
    """Print what an import took and what it left out; exit code 1 if something that should have matched did not."""
    say(f"manifest: {report.manifest}, {len(report.taken)} scan(s)")
    for note in report.notes:
        say(f"note: {note}")
    for note, count in Counter(item.note for item in report.taken if item.note).items():
        say(f"note: {count} x {note}")
    for reason, expected, items in report.reasons():
        say(f"{'left out' if expected else 'AMISS'}: {len(items)} x {reason}")
        for item in items[:ITEMS_SHOWN]:
            say(f"  {item.source}" + (f" ({item.detail})" if item.detail else ""))
        if len(items) > ITEMS_SHOWN:
            say(f"  and {len(items) - ITEMS_SHOWN} more")
    say(f"report: {report.path}")
    return 0 if report.complete else 1


def _bids() -> Parser:
    parser = Parser(description="The T1w images of a BIDS data set, one a session, with what its tables say.")
    parser.add_argument("dir", type=Path, help="the data set, raw or derivative")
    parser.add_argument(
        "--include-derivatives",
        type=str,
        default=None,
        metavar="NAME",
        help="take the images of this folder in derivatives before raw ones",
    )
    parser.add_argument(
        "--prefer",
        type=str,
        nargs="+",
        default=[],
        metavar="ENTITY-LABEL",
        help="which of several T1w of a session comes first, such as acq-mprage",
    )
    _add_shared(parser)
    return parser


def run_bids(options: Namespace) -> int:
    """Choose a T1w a session and write."""
    from ldae.prepare.imports.bids.dataset import import_bids

    return tell(
        import_bids(
            options.dir,
            options.out,
            derivative=options.include_derivatives,
            prefer=options.prefer,
            follow_links=options.follow_links,
        )
    )


def _table() -> Parser:
    parser = Parser(
        description="A study's tables and a folder of images, matched as a map of the study's columns says."
    )
    parser.add_argument(
        "tables", type=Path, nargs="+", metavar="FILE", help="CSV or TSV, a row a visit, a scan or a person"
    )
    parser.add_argument(
        "--map", type=str, required=True, help="map of the columns: adni, adni_search, oasis3, generic, or a YAML file"
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    _add_shared(parser)
    return parser


def run_table(options: Namespace) -> int:
    """Match and write."""
    from ldae.prepare.imports.study.column_map import load_map
    from ldae.prepare.imports.study.dataset import import_study

    return tell(
        import_study(
            options.tables, load_map(options.map), options.images, options.out, follow_links=options.follow_links
        )
    )


def _csv() -> Parser:
    parser = Parser(description="A folder of images and a table of people, matched by identifier.")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--table", type=Path, required=True, help="CSV or TSV, a row a scan or a subject")
    parser.add_argument("--id-column", default=None, help="column of the identifier that file names hold")
    _add_shared(parser)
    return parser


def run_csv(options: Namespace) -> int:
    """Match and write."""
    from ldae.prepare.imports.csv_table import import_csv

    return tell(
        import_csv(
            options.images,
            options.table,
            options.out,
            id_column=options.id_column,
            follow_links=options.follow_links,
        )
    )


def _add_shared(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the manifest to write, .tsv or .csv")
    _add_follow_links(parser)


def _add_follow_links(parser: Parser) -> None:
    parser.add_argument(
        "--follow-links", action="store_true", help="take images behind links that lead out of the folder"
    )


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
    _add_follow_links(parser)
    return parser


def run_dicom(options: Namespace) -> int:
    """Import; exit code 1 if something that should be a T1w scan could not be used."""
    from ldae.dicom.select import SeriesRule
    from ldae.prepare.imports.dicom.dataset import DicomOptions, import_dicom

    chosen = DicomOptions(
        rule=SeriesRule(options.series_description, options.include_derived, options.any_modality),
        keep_patient_id=options.keep_patient_id,
        exact_age=options.exact_age,
        key=options.key,
        table=options.table,
        follow_links=options.follow_links,
    )
    with progress_bar("headers") as move:
        report = import_dicom(options.folder, options.out, chosen, progress=move)
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
    say(f"series: {counts}; the lines above may name people, the files written do not")
    if options.key is not None:
        say(f"key, which names people: {options.key}")
    say(f"manifest: {report.manifest}")
    return 1 if report.of("refused") or report.unreadable or report.unmatched or report.links else 0
