"""`ldae cohort preprocess`: raw heads to brains in template space."""

from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_manifest, add_out, add_workers
from ldae.cli.console import progress_bar, say

__all__ = ["register"]


def register(actions: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command to `ldae cohort`."""
    actions.add_subcommand("preprocess", _preprocess(), help="raw heads to brains in MNI space")
    runs["cohort", "preprocess"] = run_preprocess


def _preprocess() -> Parser:
    parser = Parser(
        description="Raw T1w heads to the template: N4 bias correction, affine registration to MNI152, brain extraction."
    )
    add_manifest(parser)
    add_out(parser, "folder of the preprocessed cohort")
    parser.add_argument("--voxel-size", type=float, default=1.0, help="of the output, mm")
    parser.add_argument("--already-stripped", action="store_true", help="the skull is gone already")
    parser.add_argument(
        "--brain-mask",
        default=None,
        help="masks of the raw scans to use instead of extracting brains: a column of the manifest, or a path with "
        "{participant_id} and {session_id} in it",
    )
    parser.add_argument(
        "--brain-extraction",
        choices=("template", "synthstrip", "hd-bet", "bet"),
        default="template",
        help="who finds the brain; all but the first are programs that have to be on the PATH",
    )
    parser.add_argument("--no-bias-correction", action="store_true", help="leave out N4")
    parser.add_argument(
        "--normalise",
        action="store_true",
        help="write the brain's percentiles 0.5 and 99.5 as 0 and 1, for other software",
    )
    add_workers(parser)
    parser.add_argument(
        "--scheduler", default=None, help="address of a Dask scheduler that does the work, such as tcp://host:8786"
    )
    return parser


def run_preprocess(options: Namespace) -> int:
    """Preprocess; exit code 1 if some scans failed."""
    from ldae.data.manifest import read_manifest
    from ldae.head.preprocess import PreprocessConfig
    from ldae.prepare.preprocess.cohort import preprocess_manifest
    from ldae.report import write_preprocessing_page

    manifest = read_manifest(options.manifest)
    config = PreprocessConfig(
        voxel_size_mm=options.voxel_size,
        already_stripped=options.already_stripped,
        brain_extraction=options.brain_extraction,
        bias_correction=not options.no_bias_correction,
        normalise=options.normalise,
    )
    with progress_bar("preprocess") as move:
        report = preprocess_manifest(
            manifest,
            options.out,
            config,
            brain_masks=options.brain_mask,
            workers=options.workers,
            scheduler=options.scheduler,
            progress=move,
        )
    say(f"manifest: {report.manifest}; {len(report.finished)} scans done now, {len(report.skipped)} done before")
    for key, reasons in report.warnings.items():
        say(f"look at {key}: {'; '.join(reasons)}")
    for key, reason in report.failures.items():
        say(f"failed {key}: {reason}")
    say(f"look at the pictures, worst first: {write_preprocessing_page(report, options.out / 'quality.html')}")
    return 1 if report.failures else 0
