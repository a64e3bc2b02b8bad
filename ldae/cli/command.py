"""Commands as typed, documented functions: the signature gives the options, the docstring their help."""

import inspect
import math
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pkgutil import resolve_name
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from ldae.base.ranges import Range
from ldae.cli.console import notice
from ldae.cli.options import RENAMED_OPTIONS, Positional
from ldae.errors import LdaeError

__all__ = ["COMMANDS", "Command", "Number", "Parser", "command", "did_you_mean", "options_named"]

EXPECTED = re.compile(r"""Parser key "(\w+)"(?: element \d+)?: Expected an? <class '(\w+)'>\. Got value: (.*)""")
MISSING_OPTIONS = re.compile(r"(the following arguments are required:) (.*)")
UNKNOWN = re.compile(r"unrecognized arguments: (\S+).*", re.IGNORECASE)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The nearest known word, as a clause of a message; empty where none is near."""
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


class HelpFormatter(DefaultHelpFormatter):
    """Help with defaults, without names of Python objects."""

    def _get_help_string(self, action: Any) -> str:
        text: str = action.help or ""
        if (
            action.option_strings
            and action.nargs != 0
            and action.default not in (None, [], (), "")
            and not action.required
        ):
            text += " (default: " + " ".join(map(str, _listed(action.default))) + ")"
        return text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Examples stay in lines."""
        filled: str = text if "\n" in text else super()._fill_text(text, width, indent)
        return filled


class Parser(ArgumentParser):
    """A parser whose errors are one paragraph and exit code 2; earlier names of options work, with a notice."""

    def __init__(self, path: tuple[str, ...], description: str) -> None:
        program = " ".join(("ldae", *path))
        super().__init__(prog=program, description=description, formatter_class=HelpFormatter, allow_abbrev=False)
        self.renamed = RENAMED_OPTIONS.get(" ".join(path), {})
        self.also: list[str] = []

    @property
    def option_names(self) -> list[str]:
        """Every option, such as `--out`."""
        return [name for action in self._actions for name in action.option_strings] + self.also

    def read(self, words: Sequence[str]) -> Namespace:
        """Parse a command line; what is given by an option instead of a position is moved there first."""
        rest, moved = list(words), []
        for old, new in {**self.renamed, **dict.fromkeys(self.also, "")}.items():
            for at in [at for at, word in enumerate(rest) if word.partition("=")[0] == old][::-1]:
                if old in self.renamed:
                    notice(f"{old} is now {new or 'given without a name'}; the old form will go with the next version")
                if new:
                    rest[at] = rest[at].replace(old, new, 1)
                elif "=" in rest[at]:
                    moved.append(rest.pop(at).partition("=")[2])
                else:
                    moved += rest[at + 1 : at + 2]
                    del rest[at : at + 2]
        return self.parse_args([*moved, *rest])

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what was wrong and where help is."""
        reason = EXPECTED.sub(self._expected, " ".join(str(message).split()))
        reason = re.sub(r'Parser key "(\w+)":', lambda found: f"{self._spelling(found[1])}:", reason)
        if missing := MISSING_OPTIONS.fullmatch(reason):
            reason = f"{missing[1]} {', '.join(map(self._spelling, missing[2].split(', ')))}"
        if unknown := UNKNOWN.fullmatch(reason):
            kind = "option" if unknown[1].startswith("-") else "argument"
            reason = f"no {kind} {unknown[1]} here{did_you_mean(unknown[1], self.option_names)}"
        notice(f"{reason}; run '{self.prog} --help' for what it takes", self.prog)
        sys.exit(2)

    def _expected(self, found: re.Match[str]) -> str:
        word = {"int": "a whole number", "float": "a number"}.get(found[2], found[2])
        return f"{self._spelling(found[1])}: needs {word}, got {found[3]}"

    def _spelling(self, dest: str) -> str:
        """An option or a positional argument as a user writes it."""
        action = next((each for each in self._actions if each.dest == dest), None)
        return dest if action is None else action.option_strings[0] if action.option_strings else str(action.metavar)


@dataclass(frozen=True)
class Number:
    """Reads a number of a kind, int or float, within a range."""

    kind: type
    allowed: Range

    def __str__(self) -> str:
        return f"{'whole number' if self.kind is int else 'number'}, {self.allowed}"

    def __call__(self, given: str | float) -> Any:
        """The number.

        Raises:
            ArgumentTypeError: if it is not a number, or outside the range.
        """
        try:
            value = self.kind(given)
        except ValueError:
            value = math.nan
        if value not in self.allowed:
            msg = f"must be a {self}, got {given}"
            raise ArgumentTypeError(msg)
        return value


@dataclass(frozen=True)
class Option:
    """One parameter of a command, as read from a signature; `spelling` is its name on the command line."""

    name: str
    spelling: str
    hint: Any
    default: Any
    help: str

    def add(self, parser: Parser) -> None:
        """Add it to a parser."""
        extras = get_args(self.hint)[1:] if get_origin(self.hint) is Annotated else ()
        hint = _required(self.hint)
        text = self.help
        if hint is bool:
            flag = f"--no-{self.spelling}" if self.default else f"--{self.spelling}"
            action = "store_false" if self.default else "store_true"
            text = f"do not {text}" if self.default else text
            parser.add_argument(flag, dest=self.name, action=action, default=self.default, help=text)
            return
        options: dict[str, Any] = {"help": text}
        if get_origin(hint) in (list, tuple, Sequence):
            inner = get_args(hint)
            several = len(inner) == 1 or inner[-1] is Ellipsis
            options["nargs"] = "+" if several else len(inner)
            hint = inner[0]
        if get_origin(hint) is Literal:
            options["choices"] = list(get_args(hint))
            hint = str
        allowed = next((each for each in extras if isinstance(each, Range)), None)
        read = next((each for each in extras if inspect.isfunction(each)), hint)
        options["type"] = read if allowed is None else Number(hint, allowed)
        if positional := next((each for each in extras if isinstance(each, Positional)), None):
            parser.also += [positional.also] if positional.also else []
            if positional.also:
                options["help"] = f"{options.get('help', '')}; {positional.also} may stand before it"
            parser.add_argument(self.name, metavar=self.spelling.upper(), **options)
            return
        default = None if self.default is MISSING else self.default
        if options.get("nargs") == "+" and not default:  # given twice, both count
            options["action"] = "extend"
        options |= {"metavar": None if "choices" in options else self.spelling.upper().replace("-", "_")}
        options |= {"required": True} if self.default is MISSING else {"default": _listed(default, keep=True)}
        parser.add_argument(f"--{self.spelling}", dest=self.name, **options)

    def options(self) -> "list[Option]":
        """Itself."""
        return [self]

    def value(self, given: Namespace) -> Any:
        """The options that were given."""
        read = given[self.name]
        return tuple(read) if isinstance(read, list) and get_origin(_required(self.hint)) is tuple else read


@dataclass(frozen=True)
class Settings:
    """A parameter that is a dataclass, whose fields, the parts, are options."""

    name: str
    cls: type
    parts: "list[Option | Settings]"

    def options(self) -> list[Option]:
        """All options in it."""
        return [option for part in self.parts for option in part.options()]

    def value(self, given: Namespace) -> Any:
        """The dataclass, from what was given; what it refuses is named as on the command line."""
        with options_named({each.name: f"--{each.spelling}" for each in self.options()}):
            return self.cls(**{part.name: part.value(given) for part in self.parts})


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        path: its words, such as ("cohort", "split").
        function: that runs it, given its options; returns the exit code, or None for 0.
        settings: where the class of its parameter `settings` is found, as "module:Class"; it is imported with the options.
        names: spelling of options whose parameters have another name, apart from a unit of mm.
        skip: parameters that are no options.
        launches: whether `--devices` starts a process for each.
    """

    path: tuple[str, ...]
    function: Callable[..., int | None]
    settings: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    skip: Collection[str] = ()
    launches: bool = False

    @property
    def help(self) -> str:
        """One line."""
        line = (inspect.getdoc(self.function) or "").partition("\n")[0].rstrip(".")
        return line[:1].lower() + line[1:]

    def parser(self) -> Parser:
        """Its parser, with all options."""
        parsed = parse_docstring(inspect.getdoc(self.function) or "")
        parser = Parser(self.path, " ".join((parsed.description or "").split()))
        options = [option for part in self._parameters() for option in part.options()]
        for option in sorted(options, key=lambda each: each.default is not MISSING):
            option.add(parser)
        parser.epilog = "\n  ".join(["examples:", *self.examples])
        return parser

    @property
    def examples(self) -> list[str]:
        """Command lines that show how it is used."""
        found = parse_docstring(inspect.getdoc(self.function) or "").examples
        return [line for each in found for line in (each.description or "").splitlines()]

    def run(self, given: Namespace) -> int:
        """Call the function with what was given; the exit code."""
        return self.function(**{part.name: part.value(given) for part in self._parameters()}) or 0

    def _parameters(self) -> "list[Option | Settings]":
        if self.settings is not None:
            self.function.__annotations__["settings"] = resolve_name(self.settings)
        hints = get_type_hints(self.function, include_extras=True)
        signature = inspect.signature(self.function).parameters.values()
        defaults = {each.name: MISSING if each.default is each.empty else each.default for each in signature}
        return self._parts(defaults, hints, _texts(self.function))

    def _parts(
        self, defaults: Mapping[str, Any], hints: Mapping[str, Any], texts: Mapping[str, str]
    ) -> "list[Option | Settings]":
        """The options of each parameter; those of a dataclass, which may hold others, together."""
        parts: list[Option | Settings] = []
        for name, default in defaults.items():
            hint = hints[name]
            if isinstance(hint, type) and is_dataclass(hint):
                inner = {each.name: _default(each) for each in fields(hint) if each.name not in self.skip}
                types = get_type_hints(hint, include_extras=True)
                parts.append(Settings(name, hint, self._parts(inner, types, _texts(hint))))
            else:
                spelling = self.names.get(name, name.removesuffix("_mm")).replace("_", "-")
                parts.append(Option(name, spelling, hint, default, texts.get(name, "")))
        return parts


@contextmanager
def options_named(spellings: Mapping[str, str]) -> Iterator[None]:
    """Errors of the block, with options in place of the names of parameters."""
    try:
        yield
    except LdaeError as error:
        names = re.compile(rf"\b({'|'.join(map(re.escape, spellings))})\b")
        raise type(error)(names.sub(lambda found: spellings[found[0]], str(error))) from error


COMMANDS: dict[tuple[str, ...], Command] = {}
"""Every command by its words, in the order of help."""


def command(name: str, **options: Any) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Make a function a command of this name, such as "cohort split"; `options` are further fields of `Command`."""

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        path = tuple(name.split())
        COMMANDS[path] = Command(path, function, **options)
        return function

    return register


def _texts(documented: Any) -> dict[str, str]:
    """Help of each parameter of a function, or field of a dataclass and its bases."""
    bases = [each for each in documented.__mro__ if is_dataclass(each)] if inspect.isclass(documented) else [documented]
    found: dict[str, str] = {}
    for base in reversed(bases):
        for each in parse_docstring(inspect.getdoc(base) or "").params:
            found[each.arg_name] = " ".join((each.description or "").split()).rstrip(".").replace("`", "")
    return found


def _default(of: Any) -> Any:
    return of.default_factory() if of.default_factory is not MISSING else of.default


def _required(hint: Any) -> Any:
    """A type without annotations and None."""
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    return hint


def _listed(value: Any, *, keep: bool = False) -> Any:
    """A value as a list; a single one as it is, if `keep`."""
    return list(value) if isinstance(value, list | tuple) else value if keep else [value]
