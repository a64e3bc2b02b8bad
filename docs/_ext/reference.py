"""Writes docs/reference/ before the build: the command line from its parsers, the API from the modules that are there."""

import argparse
import inspect
import re
from pathlib import Path
from typing import Any

import ldae
from ldae.cli.command import COMMANDS, Number
from ldae.cli.main import build_parsers
from ldae.cli.options import folder

# Parts of the package in the order in which a reader meets them; new ones come after these.
ORDER = (
    "autoencoder",
    "codes",
    "volume",
    "tasks",
    "data",
    "prepare",
    "training",
    "config",
    "models",
    "diffusion",
    "evaluation",
    "io",
    "report",
    "errors",
)
# The command line has its own page.
LEFT_OUT = ("cli",)
KINDS = {Path: "path", folder: "path", int: "whole number", float: "number", str: "text"}
# No documents of their own, so that docs/api.md can include them.
MODULES, PUBLIC = "modules.inc", "public.inc"


def escape(text: str) -> str:
    """Plain text as Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a command takes: positional, then required, then the rest."""
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    return sorted(shown, key=lambda action: (bool(action.option_strings), not action.required))


def is_flag(action: argparse.Action) -> bool:
    return action.nargs == 0


def name_of(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else str(action.metavar or action.dest.upper())


def kind_of(action: argparse.Action) -> str:
    """What may be given, in words."""
    if is_flag(action):
        return "flag"
    if action.choices is not None:
        return ", ".join(f"`{choice}`" for choice in action.choices)
    if isinstance(action.type, Number):
        return str(action.type)
    hint = getattr(action, "_typehint", None) or action.type or str
    known = [KINDS[each] for each in (hint, *getattr(hint, "__args__", ())) if each in KINDS]
    kind = known[0] if known else "text"
    return f"{kind}, one or more" if action.nargs == "+" else kind


def default_of(action: argparse.Action) -> str:
    if action.required:
        return "required"
    if is_flag(action) or action.default in (None, [], argparse.SUPPRESS):
        return ""
    values = action.default if isinstance(action.default, list) else [action.default]
    return f"`{' '.join(map(str, values))}`"


def synopsis(path: tuple[str, ...], parser: argparse.ArgumentParser) -> str:
    words = [" ".join(("ldae", *path))]
    for action in options(parser):
        name = name_of(action)
        value = action.metavar or action.dest.upper()
        value = f"{value} ..." if action.nargs == "+" else value
        word = name if is_flag(action) or not action.option_strings else f"{name} {value}"
        words.append(word if action.required else f"[{word}]")
    return " ".join(words)


def describe(path: tuple[str, ...], parser: argparse.ArgumentParser) -> list[str]:
    """A section on one command."""
    lines = [f"## {' '.join(('ldae', *path))}", "", escape(parser.description or ""), ""]
    lines += ["```text", *wrapped(synopsis(path, parser)), "```", ""]
    lines += ["| option | takes | default | meaning |", "|---|---|---|---|"]
    for action in options(parser):
        cells = [f"`{name_of(action)}`", kind_of(action), default_of(action), escape(action.help or "")]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def wrapped(text: str, width: int = 88) -> list[str]:
    """Lines that break between options only."""
    lines = [""]
    for word in re.findall(r"\[[^\]]*\]|--\S+ [A-Z_]+(?: \.\.\.)?|\S+", text):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def command_line_page() -> str:
    """The reference of every command."""
    parsers = build_parsers()
    lines = [
        "# Command line",
        "",
        "Made from the parsers of this very version. `python -m ldae` is the same command; every command has `--help`.",
        "An option that takes several values is given once, with all of them: `--steps -2 0 2`.",
        "",
        "`ldae --version` prints the version. `ldae --verbose COMMAND ...` shows the traceback of an error and what the",
        "library logs. Exit codes have a [table](../troubleshooting.md#exit-codes).",
        "",
        "| command | does |",
        "|---|---|",
    ]
    for path in parsers:
        name = " ".join(("ldae", *path))
        lines.append(f"| [`{name}`](#{name.replace(' ', '-')}) | {escape(COMMANDS[path].help)} |")
    lines.append("")
    for path, parser in parsers.items():
        lines += describe(path, parser)
    return "\n".join(lines)


def modules_of(part: Path, name: str) -> list[str]:
    """A part's module, or its modules, by dotted name."""
    if part.is_file():
        return [name]
    inside = sorted(path.stem for path in part.glob("*.py") if not path.stem.startswith("_"))
    return [f"{name}.{stem}" for stem in inside]


def api_page(name: str, modules: list[str], *, package: bool) -> str:
    """The reference of one part of the package."""
    lines = [f"# {name}", ""]
    if package:
        lines += ["```{eval-rst}", f".. automodule:: {name}", "   :no-members:", "```", ""]
    for module in modules:
        if package:
            lines += [f"## {module}", ""]
        lines += ["```{eval-rst}", f".. automodule:: {module}", "```", ""]
    return "\n".join(lines)


def api_pages() -> dict[str, str]:
    """Pages of the API reference by name, in reading order."""
    root = Path(ldae.__file__).parent
    parts = {
        path.stem: path
        for path in root.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and not path.name.startswith("_")
    }
    names = [name for name in ORDER if name in parts]
    names += sorted(name for name in parts if name not in ORDER and name not in LEFT_OUT)
    return {
        name: api_page(f"ldae.{name}", modules_of(parts[name], f"ldae.{name}"), package=parts[name].is_dir())
        for name in names
    }


def first_line(thing: Any) -> str:
    """The first paragraph of a docstring as Markdown: code stays code, roles become code."""
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
    parts = re.sub(r":[a-z:]+:`~?([^`]*)`", r"`\1`", text).split("`")
    return "".join(f"`{part}`" if index % 2 else escape(part) for index, part in enumerate(parts))


def public_table() -> str:
    """The names that `ldae` itself hands on, each with the first line of its docstring."""
    lines = ["| name | is |", "|---|---|"]
    for name in ldae.__all__:
        thing = getattr(ldae, name)
        role = "class" if inspect.isclass(thing) else "func"
        lines.append(f"| {{py:{role}}}`ldae.{name} <{thing.__module__}.{name}>` | {first_line(thing)} |")
    return "\n".join([*lines, ""])


def write(path: Path, content: str) -> None:
    """Write what has changed, so that an unchanged page is not built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")


def write_reference(app: Any) -> None:
    folder = Path(app.srcdir) / "reference"
    pages = api_pages()
    for stale in (folder / "api").glob("*.md"):
        if stale.stem not in pages:
            stale.unlink()
    write(folder / "cli.md", command_line_page())
    for name, content in pages.items():
        write(folder / "api" / f"{name}.md", content)
    listing = "\n".join(f"reference/api/{name}" for name in pages)
    write(folder / PUBLIC, public_table())
    write(folder / MODULES, f"```{{toctree}}\n:maxdepth: 2\n\n{listing}\n```\n")


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", write_reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
