"""`ldae cohort preprocess`: raw heads to brains in template space."""

from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_manifest, add_out
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
    parser.add_argument("--workers", type=int, default=1, help="processes")
    return parser


def run_preprocess(options: Namespace) -> int:
    """Preprocess; exit code 1 if some scans failed."""
    from ldae.data.manifest import read_manifest
    from ldae.prepare.preprocess import PreprocessConfig, preprocess_manifest

    manifest = read_manifest(options.manifest)
    config = PreprocessConfig(voxel_size_mm=options.voxel_size, already_stripped=options.already_stripped)
    with progress_bar("preprocess") as move:
        report = preprocess_manifest(manifest, options.out, config, workers=options.workers, progress=move)
    say(f"manifest: {report.manifest}; {len(report.finished)} scans done now, {len(report.skipped)} done before")
    for key, reasons in report.warnings.items():
        say(f"look at {key}: {'; '.join(reasons)}")
    say(f"look at the overlays: {options.out}/sub-*/ses-*/anat/*.png")
    for key, reason in report.failures.items():
        say(f"failed {key}: {reason}")
    return 1 if report.failures else 0
