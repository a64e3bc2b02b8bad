"""What the terminal shows: progress bars, tables, errors of one paragraph."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ldae.errors import LdaeError
from ldae.evaluation.statistics import Difference, Interval

__all__ = ["console", "exit_on_error", "interval", "progress_bar", "say", "table"]

WIDTH = 120
"""Of tables that go to a file or a pipe, which have no width of their own."""

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line on the terminal."""
    console.print(text, markup=False)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A small table."""
    grid = Table(*columns, title=title, title_justify="left")
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def interval(value: Interval | Difference) -> str:
    """A figure with its interval, three decimals."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


class Move(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done."""


@contextmanager
def progress_bar(what: str) -> Iterator[Move]:
    """A bar that a task moves by calling (done, total); it shows nothing where the output is no terminal.

    Args:
        what: is being done.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task(what, total=None, note="")

        def move(done: int, total: int, note: str = "") -> None:
            progress.update(bar, completed=done, total=total, note=note)

        yield move


@contextmanager
def exit_on_error(*, verbose: bool) -> Iterator[None]:
    """Turn what a user can mend into one paragraph and exit code 2, and an interruption into 130.

    Args:
        verbose: show the traceback too.
    """
    try:
        yield
    except LdaeError as error:
        if verbose:
            errors.print(traceback.format_exc(), markup=False)
        errors.print(f"ldae: {error}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("ldae: interrupted; run the same command again to go on", markup=False)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except (OSError, MemoryError) as error:
        if verbose:
            errors.print(traceback.format_exc(), markup=False)
        errors.print(
            f"ldae: {error or type(error).__name__}; check paths, permissions, free disk and memory", markup=False
        )
        sys.exit(2)
    except Exception as error:
        if verbose:
            raise
        reason = " ".join(str(error).split())[:500]
        errors.print(
            f"ldae: unexpected {type(error).__name__}: {reason}. This is a defect of ldae: run again with --verbose and "
            "report the traceback",
            markup=False,
        )
        sys.exit(1)
