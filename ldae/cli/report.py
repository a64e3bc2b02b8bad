"""`ldae report`: one document from a run folder, or from the probes in a folder."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser

__all__ = ["register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    parser = Parser(
        description="Render a run folder (of 'ldae demo' or 'ldae study'), or a folder of 'ldae probe', as one self-contained "
        "HTML file, as Markdown, or as JSON."
    )
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--out", type=Path, default=None, help="the file; RUN/report.html, .md or .json if not given")
    parser.add_argument(
        "--format",
        choices=["html", "md", "json"],
        default="html",
        help="one HTML file, Markdown with pictures beside it, or JSON after a published schema",
    )
    commands.add_subcommand("report", parser, help="render a run as one document")
    runs["report",] = render


def render(options: Namespace) -> int:
    """Write the report."""
    from ldae.cli.console import say
    from ldae.report import write_probe_report, write_report

    probes_alone = not (options.run / "results.json").is_file() and any(options.run.glob("probe_*.json"))
    write = write_probe_report if probes_alone else write_report
    say(f"report: {write(options.run, options.out, options.format)}")
    return 0
