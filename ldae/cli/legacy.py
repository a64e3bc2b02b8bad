"""Commands that still register a parser of their own."""

import importlib
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace

from ldae.cli.command import COMMANDS

# Module, and the words of the group that it adds to.
MODULES = {
    "demo": (),
    "plan": (),
    "cohort_check": ("cohort",),
    "encode": (),
    "probe": (),
    "images": (),
    "manipulate": (),
    "interpolate": (),
    "diagnose": (),
    "discover": (),
}


@dataclass
class Legacy:
    """A command of an old module."""

    path: tuple[str, ...]
    made: Any
    help: str
    function: Any

    def parser(self) -> Any:
        """Its parser."""
        self.made.prog = " ".join(("ldae", *self.path))
        return self.made

    def run(self, given: Namespace) -> int:
        """Run it."""
        return self.function(given) or 0


class Recorder:
    """Stands for jsonargparse's subcommands."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Any, str]] = []

    def add_subcommand(self, name: str, parser: Any, help: str = "") -> None:
        """Record it."""
        self.found.append((name, parser, help))

    def walk(self, path: tuple[str, ...], runs: dict[tuple[str, ...], Any]) -> None:
        """Register all."""
        for name, parser, text in self.found:
            below = (*path, name)
            if getattr(parser, "recorder", None) is not None:
                parser.recorder.walk(below, runs)
            else:
                COMMANDS[below] = Legacy(below, parser, text, runs[below])  # type: ignore[assignment]


def register() -> None:
    """Register all old modules."""
    for name, group in MODULES.items():
        recorder, runs = Recorder(), {}  # type: ignore[var-annotated]
        importlib.import_module(f"ldae.cli.{name}").register(recorder, runs)
        recorder.walk(group, runs)
