"""The `ldae` command: finds the command that is named, reads its options and runs it."""

import importlib
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from jsonargparse import Namespace

from ldae.base.files import held
from ldae.base.launch import is_follower, is_rank, launch
from ldae.cli.command import COMMANDS, Command, Parser, did_you_mean
from ldae.cli.console import ToldBefore, as_json, exit_on_error, notice, say
from ldae.cli.options import RENAMED_COMMANDS
from ldae.errors import ConfigError
from ldae.image_files import Reading, reading
from ldae.io.version import __version__

__all__ = ["build_parsers", "main", "read_command_line"]

# Modules of commands, in the order of help.
MODULES = ("cohort", "imports", "training", "tasks", "probe", "edits", "study", "files")
GROUPS = {
    "cohort": "make, import, check, preprocess and split cohorts",
    "cohort import": "make a manifest of images that lie elsewhere",
    "fit": "train the stages; the same command again goes on where a killed run stopped and skips finished stages",
    "convert": "turn weights that others published into files of this package; no pickled code is run",
    "interpolate": "scans at months between two sessions",
    "export": "write results in the formats of other programs",
}
HELP = ("-h", "--help")


def build_parsers() -> dict[tuple[str, ...], Parser]:
    """The parser of every command, by its words."""
    _import_commands()
    return {path: each.parser() for path, each in COMMANDS.items()}


def read_command_line(words: Sequence[str]) -> tuple[Command, Namespace]:
    """The command that is named, and its options; nothing runs.

    Raises:
        SystemExit: 0 for `--help` and `--version`, 2 for what is no command line.
    """
    _import_commands()
    path: tuple[str, ...] = ()
    rest = list(words)
    while path not in COMMANDS:
        if rest and (*path, rest[0]) in RENAMED_COMMANDS:
            now = RENAMED_COMMANDS[*path, rest[0]]
            notice(
                f"'{' '.join((*path, rest[0]))}' is now '{' '.join(now)}'; the old name will go with the next version"
            )
            path, rest = now, rest[1:]
            continue
        names = list(dict.fromkeys(each[len(path)] for each in COMMANDS if each[: len(path)] == path))
        if rest and rest[0] in names:
            path, rest = (*path, rest[0]), rest[1:]
        elif not words or (rest and rest[0] in HELP):
            _help(path)
        elif rest and rest[0] == "--version" and not path:
            say(f"ldae {__version__}")
            raise SystemExit(0)
        else:
            near = f"no command {rest[0]}{did_you_mean(rest[0], names) or ';'} " if rest else ""
            Parser(path, "").error(f"{near}choose one of {', '.join(names)}")
    return COMMANDS[path], COMMANDS[path].parser().read(rest)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 0, or 1 where some scans failed, or 2 for bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    told = "--json" in words
    if told:
        words.remove("--json")
    with as_json(words[:]) if told and not is_follower() else nullcontext():
        _run(words, told=told)


def _run(words: list[str], *, told: bool) -> NoReturn:
    """Run the command of a command line; what it says is told as JSON, if `told`."""
    given = list(words)
    verbose = "--verbose" in words
    if verbose:
        words.remove("--verbose")
        logging.basicConfig(level=logging.INFO)
    with exit_on_error(verbose=verbose):
        how = _take_reading(words)
        found, options = read_command_line(words)
        if how.strict and "strict" in options:
            options["strict"] = True
        if found.launches and options.devices > 1 and not is_rank():
            alike = [sys.executable, "-m", "ldae", *given]
            if "part" not in options:
                code = launch([*alike, *(["--json"] if told else [])], options.devices)
                raise ToldBefore(code)
            if code := launch(alike, options.devices, output=sys.stderr.fileno() if told else None):
                raise SystemExit(code)
            # Each has done its part; this process puts them together.
        out = getattr(options, "out", None)
        if isinstance(out, Path) and (part := getattr(options, "part", None)) is not None:
            out = out.with_name(f"{out.name}-part-{part.number}-of-{part.total}")  # parts may write at once
        alone = held(out) if isinstance(out, Path) and not is_follower() else nullcontext()
        with reading(how), alone:
            raise SystemExit(found.run(options))


def _take_reading(words: list[str]) -> Reading:
    """Take the options on reading image files, which every command has, out of a command line."""
    words[:] = [part for word in words for part in (word.split("=", 1) if word.startswith("--max-gib=") else [word])]
    how = Reading(assume_ras="--assume-ras" in words, strict="--strict" in words)
    words[:] = [word for word in words if word not in ("--assume-ras", "--strict")]
    for name, count in (("--spacing", 3), ("--max-gib", 1)):
        if name not in words:
            continue
        at = words.index(name)
        given = words[at + 1 : at + 1 + count]
        del words[at : at + 1 + count]
        try:
            numbers = tuple(float(word) for word in given)
        except ValueError:
            numbers = ()
        if len(numbers) < count or not all(0 < n < math.inf for n in numbers):
            msg = f"{name} takes {count} positive number{'s' if count > 1 else ''}, got {' '.join(given) or 'none'}"
            raise ConfigError(msg)
        how = replace(how, spacing=numbers) if count > 1 else replace(how, max_gib=numbers[0])
    return how


def _import_commands() -> None:
    for name in MODULES:
        importlib.import_module(f"ldae.cli.{name}")


def _help(path: tuple[str, ...]) -> NoReturn:
    """Print the commands of a group, or all."""
    rows = {}
    for each, found in COMMANDS.items():
        if each[: len(path)] == path:
            name = " ".join(each[: len(path) + 1])
            rows[name] = GROUPS.get(name, found.help)
    about = GROUPS.get(" ".join(path), "latent diffusion autoencoders: representation learning on 3D medical images")
    say(f"usage: {' '.join(('ldae', *path))} COMMAND ...\n\n{about[:1].upper()}{about[1:]}.\n\ncommands:")
    width = max(map(len, rows)) + 2
    for name, text in rows.items():
        say(f"  {name:{width}}{text}")
    if path:
        shown = [each.examples[0] for words, each in COMMANDS.items() if words[: len(path)] == path]
        say("\n  ".join(["\nexamples:", *shown]))
    say("\n'ldae COMMAND --help' lists the options of one.")
    if not path:
        say(
            "--version prints the version; --verbose shows the traceback of an error, and what the library logs; --json "
            "prints one JSON object for scripts: exit code, files, messages, tables."
        )
        say(
            "Every command that reads images takes --max-gib N, the largest image in memory (2); for files that do not say "
            "where their voxels lie, --spacing X Y Z in mm and --assume-ras; and --strict, which refuses headers that "
            "contradict themselves and tables with a row that cannot be used, instead of a warning."
        )
    raise SystemExit(0)
