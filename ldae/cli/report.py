"""`ldae report`: one HTML document from a run folder."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser

__all__ = ["register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    parser = Parser(description="Render a run folder (of 'ldae demo' or 'ldae study') as one self-contained HTML file.")
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--out", type=Path, default=None, help="HTML file; RUN/report.html if not given")
    commands.add_subcommand("report", parser, help="render a run as one HTML file")
    runs["report",] = render


def render(options: Namespace) -> int:
    """Write the report."""
    from ldae.cli.console import say
    from ldae.report import write_report

    say(f"report: {write_report(options.run, options.out)}")
    return 0
