"""`ldae cohort check`: what would spoil results, found before it does."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_manifest, add_workers, folder
from ldae.cli.console import progress_bar, say, table

__all__ = ["register"]

SCANS_SHOWN = 3


def register(actions: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command to `ldae cohort`."""
    actions.add_subcommand(
        "check", _check(), help="find what would spoil results: images, table, duplicates, confounds"
    )
    runs["cohort", "check"] = run_check


def _check() -> Parser:
    parser = Parser(
        description="Check a cohort: every image, the table, one brain under two names, confounding, and the contract of a "
        "model. Exit code 1 if there are errors."
    )
    add_manifest(parser)
    parser.add_argument("--model", type=Path, default=None, help="model folder whose contract scans should meet")
    parser.add_argument("--out", type=folder, default=None, help="folder for check.json and check.tsv")
    add_workers(parser)
    parser.add_argument(
        "--no-anatomy",
        action="store_true",
        help="do not align heads with the template: much faster, but no comparison of brains and no test for T1w",
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 for warnings too")
    return parser


def run_check(options: Namespace) -> int:
    """Check; exit code 1 if there are errors (or warnings, with --strict)."""
    from ldae.head.findings import Severity, group_findings
    from ldae.prepare.check.cohort import check_cohort
    from ldae.prepare.check.likeness import MIN_SUBJECTS

    with progress_bar("check") as move:
        report = check_cohort(
            options.manifest,
            model=options.model,
            anatomy=not options.no_anatomy,
            workers=options.workers,
            progress=move,
        )
    groups = group_findings(report.findings)
    if groups:
        table("Findings, the worst first", ["severity", "finding", "scans", "for example", "remedy"], _rows(groups))
    times = [figures["seconds"] for figures in report.figures.values() if "seconds" in figures]
    mean = f", {sum(times) / len(times):.1f} s a scan" if times else ""
    say(f"{len(report.figures)} scans in {report.seconds:.1f} s{mean} and process")
    if report.likeness is not None:
        like = report.likeness
        within = "" if like.within_median is None else f", sessions of one subject at {like.within_median:.2f}"
        say(
            f"brains compared: different subjects correlate at {like.between_median:.2f} (at most {like.between_max:.2f})"
            f"{within}; above {like.limit:.2f} two count as one subject"
        )
    elif not options.no_anatomy:
        say(f"brains were not compared: that needs aligned scans of {MIN_SUBJECTS} subjects or more")
    if options.out is not None:
        say(f"all findings and measurements: {' and '.join(map(str, report.write(options.out)))}")
    counts = {severity: report.count(severity) for severity in Severity}
    say(", ".join(f"{count} {severity.word}{'' if count == 1 else 's'}" for severity, count in counts.items()))
    bad = counts[Severity.ERROR] + (counts[Severity.WARNING] if options.strict else 0)
    return 1 if bad else 0


def _rows(groups: Any) -> list[list[str]]:
    rows = []
    for one in groups:
        more = f" and {len(one.scans) - SCANS_SHOWN} more" if len(one.scans) > SCANS_SHOWN else ""
        named = ", ".join(one.scans[:SCANS_SHOWN]) + more
        rows.append([one.severity.word, one.code, named or "the table", one.message, one.remedy])
    return rows
