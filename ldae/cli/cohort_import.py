"""`ldae cohort import`: a manifest of images that lie elsewhere."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser
from ldae.cli.console import say

__all__ = ["register"]


def register(actions: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the commands to `ldae cohort`."""
    importing = Parser(description="Make a manifest of images that lie elsewhere.")
    actions.add_subcommand("import", importing, help="make a manifest of images that lie elsewhere")
    kinds = importing.add_subcommands(required=True, dest="subcommand")
    for name, build, text, run in (("csv", _csv, "a folder of images and a table", run_csv),):
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
