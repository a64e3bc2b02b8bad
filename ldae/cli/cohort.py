"""`ldae cohort`: make, import, split and preprocess cohorts."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli import cohort_check, cohort_import, cohort_preprocess
from ldae.cli.arguments import Parser, add_manifest, add_out, add_seed, add_workers
from ldae.cli.console import progress_bar, say
from ldae.errors import CohortError

__all__ = ["register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command group."""
    group = Parser(description="Make, import, split and preprocess cohorts.")
    commands.add_subcommand("cohort", group, help="make, import, split and preprocess cohorts")
    actions = group.add_subcommands(required=True, dest="subcommand")
    for name, build, text, run in (
        ("synth", _synth, "generate a phantom cohort with known truth", run_synth),
        ("split", _split, "freeze a split by subject", run_split),
    ):
        actions.add_subcommand(name, build(), help=text)
        runs["cohort", name] = run
    cohort_import.register(actions, runs)
    cohort_check.register(actions, runs)
    cohort_preprocess.register(actions, runs)


def _synth() -> Parser:
    parser = Parser(description="Generate a longitudinal phantom cohort with known truth, as BIDS with a manifest.")
    add_out(parser, "folder of the cohort")
    parser.add_argument("--subjects", type=int, default=160, help="number of subjects")
    parser.add_argument("--voxel-size", type=float, default=5.0, help="mm, 1 to 6")
    parser.add_argument("--max-sessions", type=int, default=4, help="sessions a subject, at most")
    parser.add_argument(
        "--min-motion",
        type=float,
        default=0.0,
        help="only people with three sessions or more whose ventricles' wall moves at least so many mm between them",
    )
    parser.add_argument("--displacement", action="store_true", help="write the true displacement fields too")
    parser.add_argument(
        "--noise-free",
        action="store_true",
        help="the same scans without noise and motion: twins to compare predictions with",
    )
    parser.add_argument(
        "--anatomy",
        type=Path,
        default=None,
        help="folder of label maps (1 mm, FreeSurfer's numbering): each person's brain is one of them, not the template",
    )
    parser.add_argument("--raw", action="store_true", help="whole heads in native space, for preprocessing to work on")
    parser.add_argument(
        "--max-rotation",
        type=float,
        default=None,
        help="with --raw: heads are turned up to so many degrees, 15 if not given",
    )
    parser.add_argument(
        "--max-translation",
        type=float,
        default=None,
        help="with --raw: heads are shifted up to so many mm, 20 if not given",
    )
    add_workers(parser, default=2, what="processes; the result does not depend on it")
    add_seed(parser)
    return parser


def _split() -> Parser:
    parser = Parser(
        description="Freeze a split by subject, stratified by diagnosis and age, and write it into the manifest."
    )
    add_manifest(parser)
    parser.add_argument("--out", type=Path, default=None, help="where to write; the manifest itself if not given")
    parser.add_argument("--train", type=float, default=0.7, help="fraction of subjects")
    parser.add_argument("--validation", type=float, default=0.1, help="fraction of subjects")
    parser.add_argument("--test", type=float, default=0.2, help="fraction of subjects")
    parser.add_argument("--overwrite", action="store_true", help="replace a split that is there")
    add_seed(parser)
    return parser


def run_synth(options: Namespace) -> int:
    """Generate."""
    from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
    from ldae.phantom.pose import RawConfig
    from ldae.phantom.scanner import ScannerConfig

    limits = {"max_rotation_deg": options.max_rotation, "max_translation_mm": options.max_translation}
    given = {name: value for name, value in limits.items() if value is not None}
    if given and not options.raw:
        msg = f"limits of whole heads ({', '.join(given)}) are given without --raw; add --raw, or leave them out"
        raise CohortError(msg)
    if options.anatomy is not None:
        say("each label map that is drawn is first registered to the template, which takes a quarter of a minute")
    config = PhantomConfig(
        n_subjects=options.subjects,
        voxel_size_mm=options.voxel_size,
        seed=options.seed,
        max_sessions=options.max_sessions,
        min_motion_mm=options.min_motion,
        save_displacement=options.displacement,
        anatomy=None if options.anatomy is None else str(options.anatomy),
        raw=RawConfig(**given) if options.raw else None,
        scanner=ScannerConfig(noise_sd=0.0, ghost_probability=0.0) if options.noise_free else ScannerConfig(),
    )
    with progress_bar("phantoms") as move:
        manifest = synthesise_cohort(options.out, config, workers=options.workers, progress=move)
    say(f"manifest: {manifest}")
    return 0


def run_split(options: Namespace) -> int:
    """Freeze the split."""
    from ldae.data.manifest import read_manifest
    from ldae.data.splits import assign_splits

    fractions = (options.train, options.validation, options.test)
    manifest = read_manifest(options.manifest, check_images=False)
    split = assign_splits(manifest, fractions=fractions, seed=options.seed, overwrite=options.overwrite)
    path = options.out or options.manifest
    split.write(path)
    for name in ("train", "validation", "test"):
        part = split.in_split(name)
        say(f"{name}: {len(part.subjects)} subjects, {len(part)} scans")
    say(f"manifest: {path}")
    return 0
