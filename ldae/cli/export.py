"""`ldae export`: results in the formats of other programs."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_out
from ldae.cli.console import say

__all__ = ["register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command group."""
    group = Parser(description="Write results in the formats of other programs.")
    commands.add_subcommand("export", group, help="write results in the formats of other programs")
    kinds = group.add_subcommands(required=True, dest="subcommand")
    kinds.add_subcommand("dicom", _dicom(), help="an image as a derived DICOM series, marked as synthetic")
    runs["export", "dicom"] = run_dicom


def _dicom() -> Parser:
    parser = Parser(
        description="A synthetic or edited image as a DICOM MR series with new identifiers. Every file says that it is "
        "derived, synthetic and not for diagnosis."
    )
    parser.add_argument("image", type=Path, help="image file, such as NIfTI")
    add_out(parser, "folder of the series; must not hold anything yet")
    parser.add_argument(
        "--reference",
        type=Path,
        default=None,
        help="folder of the series that the image was made from: person, study and frame of reference are taken from it, so "
        "that a viewer overlays the two",
    )
    parser.add_argument(
        "--patient-id",
        default=None,
        help="PatientID; with --reference, person and study are then new, and only the frame of reference is shared",
    )
    parser.add_argument("--description", default="", help="words after the notice in SeriesDescription")
    return parser


def run_dicom(options: Namespace) -> int:
    """Export."""
    from ldae.dicom.write import DerivedSeries, export_dicom

    series = DerivedSeries(patient_id=options.patient_id, description=options.description, reference=options.reference)
    folder = export_dicom(options.image, options.out, series)
    say(f"series: {folder}, {sum(1 for _ in folder.iterdir())} images, marked as synthetic")
    if options.reference is not None and options.patient_id is None:
        say("it carries the name and the study of the reference's person")
    return 0
