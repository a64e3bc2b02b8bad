"""Terminal output: progress bars, tables, errors of one paragraph; all of it as JSON where a script asks."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ldae.base.launch import ENDED, PEER_LOST, ended_tidily
from ldae.errors import LdaeError, PeerLostError

if TYPE_CHECKING:
    from ldae.metrics.statistics import Difference, Interval

__all__ = [
    "ToldBefore",
    "as_json",
    "console",
    "duration",
    "exit_code",
    "exit_on_error",
    "interval",
    "notice",
    "p_value",
    "progress_bar",
    "say",
    "say_reasons",
    "table",
]

WIDTH = 120
"""Of tables that go to a file or a pipe, which have no width of their own, unless COLUMNS names one."""
PLAIN_SECONDS = 60.0
"""Between two lines of progress where the output is no terminal."""
SILENT_SECONDS = 10.0
"""Until a line without numbers, if none came before."""
PACE_SECONDS = 600.0
"""Of the past, from which the time that is left is estimated."""
AGAIN = "; run the same command again to go on"

console = Console(
    highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH
)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


_told: dict[str, Any] = {"messages": [], "notices": [], "tables": [], "files": {}}


class ToldBefore(SystemExit):
    """Exit of a command that other processes have run, and told of."""


@contextmanager
def as_json(words: list[str]) -> Iterator[None]:
    """One JSON object on the output stream when the command ends; what is otherwise there goes to the error stream."""
    for each in _told.values():
        each.clear()
    console.file = sys.stderr
    code: object = 1
    try:
        yield
    except SystemExit as ended:
        code = None if isinstance(ended, ToldBefore) else ended.code or 0
        raise
    finally:
        console.file = None  # type: ignore[assignment]
        if code is not None:
            sys.stdout.write(json.dumps({"command": ["ldae", *words], "exit_code": code, **_told}, indent=2) + "\n")


def say(text: str, **files: Path | str | Sequence[Path]) -> None:
    """One line on the terminal; `files`, by what they are, have been written by the command."""
    console.print(text, markup=False)
    _told["messages"].append(text)
    _told["files"] |= {
        name: str(path) if isinstance(path, Path | str) else list(map(str, path)) for name, path in files.items()
    }


def notice(text: str, program: str = "ldae") -> None:
    """One line on the error stream, after the name of the program or command."""
    errors.print(f"{program}: {text}", markup=False)
    _told["notices"].append(text)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A small table; where it is too wide, cells take more lines and nothing is cut, the first column's last of all."""
    grid = Table(title=title, title_justify="left")
    names = max((len(row[0]) for row in rows), default=0)
    for index, column in enumerate(columns):
        grid.add_column(column, overflow="fold", no_wrap=index == 0 and 2 * names <= console.width)
    for row in rows:
        grid.add_row(*row)
    console.print(grid)
    _told["tables"].append({"title": title, "columns": columns, "rows": rows})


def interval(value: "Interval | Difference") -> str:
    """A value with its interval, three decimals."""
    if value.reason:
        return f"{value.value:.3f} (no interval: {value.reason})"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def p_value(p: float) -> str:
    """A p-value to three decimals, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, whichever reads best."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


class Move(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: float, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done."""


@contextmanager
def progress_bar(what: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Move]:
    """A bar that a task moves by calling (done, total); where the output is no terminal, a line a minute instead.

    Another total starts another part, whose pace is its own.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    live = console.is_terminal
    shown = clock()
    with Progress(
        *columns, console=console, get_time=clock, speed_estimate_period=PACE_SECONDS, disable=not live
    ) as bars:
        bars.add_task(what, total=None, note="")
        task = bars.tasks[0]
        begun = Timer(SILENT_SECONDS, say, [f"{what}: at work"])
        begun.daemon = True

        def move(done: float, total: int, note: str = "") -> None:
            nonlocal shown
            bars.update(task.id, completed=done, total=total, note=note)
            if live or done >= total or clock() - shown < PLAIN_SECONDS:
                return
            begun.cancel()
            shown = clock()
            left = "" if task.time_remaining is None else f"; about {duration(task.time_remaining)} left"
            say(f"{what}: {int(done)} of {total}{note and f', {note}'}{left}")

        if not live:
            begun.start()
        try:
            yield move
        finally:
            begun.cancel()


def say_reasons(what: str, reasons: Mapping[str, str]) -> None:
    """A line for each scan that something befell, by key, with the reason."""
    for key, reason in reasons.items():
        say(f"{what} {key}: {reason}")


def exit_code(amiss: object, *, strict: bool) -> int:
    """Exit code of a command that went through: 0, or where something is amiss 1, or 2 if `strict`."""
    return (2 if strict else 1) if amiss else 0


@contextmanager
def exit_on_error(*, verbose: bool) -> Iterator[None]:
    """Turn what a user can mend into one paragraph and exit code 2, and an interruption into 130, or 143 if by SIGTERM."""
    try:
        with ended_tidily():
            yield
    except SystemExit as stopped:
        if stopped.code == ENDED and not isinstance(stopped, ToldBefore):
            notice(f"ended by SIGTERM{AGAIN}")
        raise
    except KeyboardInterrupt as stopped:
        # Training interrupts also what SIGTERM ended: Lightning leaves with 1 after Ctrl-C alone.
        ended = isinstance(stopped.__cause__, SystemExit) and stopped.__cause__.code != 1
        notice(f"{'ended by SIGTERM' if ended else 'interrupted'}{AGAIN}")
        sys.exit(ENDED if ended else 130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        if verbose:
            errors.print(traceback.format_exc(), markup=False)
        if isinstance(error, LdaeError):
            notice(str(error))
        elif isinstance(error, OSError | MemoryError) or "tried to allocate" in str(error).lower():  # torch's
            notice(f"{error or type(error).__name__}; check paths, permissions, free disk and memory")
        else:
            reason = " ".join(str(error).split())[:500]
            notice(
                f"unexpected {type(error).__name__}: {reason}. This is a defect of ldae: run again with --verbose and report "
                "the traceback"
            )
            sys.exit(1)
        sys.exit(PEER_LOST if isinstance(error, PeerLostError) else 2)
