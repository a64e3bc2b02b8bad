"""The parser of every command, and the options that several share."""

import re
from argparse import Action, ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder

__all__ = [
    "Parser",
    "add_hardware",
    "add_manifest",
    "add_model",
    "add_out",
    "add_seed",
    "add_workers",
    "folder",
    "load_model",
]

# How jsonargparse names an option in a message: by its place in the tree of commands.
PLACE = re.compile(r"\b(?:[\w-]+\.)+\w+\b")
CHOICE = re.compile(r'expected "([\w.-]+)" to be one of \{.*\}, but it was not provided\.?')


def folder(text: str | Path) -> Path:
    """A folder, or a name that one can be made under.

    Raises:
        ArgumentTypeError: if it, or what it lies in, is a file.
    """
    path = Path(text)
    there = next((each for each in (path, *path.parents) if each.exists()), None)
    if there is not None and not there.is_dir():
        msg = f"{there} is a file; give a folder"
        raise ArgumentTypeError(msg)
    return path


def process_count(text: str | int) -> int:
    """A number of processes.

    Raises:
        ArgumentTypeError: if it is none, or below 1.
    """
    if not re.fullmatch(r"\d+", str(text)) or int(text) < 1:
        msg = f"needs a whole number of processes, 1 or more, got {text}"
        raise ArgumentTypeError(msg)
    return int(text)


TYPE_WORDS = {Path: "path", folder: "path", process_count: "int"}


class HelpFormatter(DefaultHelpFormatter):
    """Help that says what kind of value is meant instead of which Python object reads it."""

    def _get_help_string(self, action: Action) -> str:
        text: str = super()._get_help_string(action)
        word = TYPE_WORDS.get(action.type or getattr(action, "_typehint", None))  # type: ignore[arg-type]
        return text if word is None else text.replace("%(type)s", word)


class Parser(ArgumentParser):
    """A parser whose errors are one paragraph and exit code 2."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, formatter_class=HelpFormatter, **options)
        self.commands: dict[str, Parser] = {}

    def add_subcommands(self, *args: Any, **options: Any) -> Any:
        """Commands below this one, remembered for messages."""
        action = super().add_subcommands(*args, **options)
        self.commands = action.choices
        return action

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Say what was wrong and where help is."""
        reason = " ".join(str(message).split())
        at = self
        if missing := CHOICE.search(reason):
            at = self._below(missing[1].split(".")[:-1]) or self
            reason = CHOICE.sub(f"choose one of {', '.join(at.commands)}", reason)
        for place in set(PLACE.findall(reason)):
            *names, last = place.split(".")
            if (below := self._below(names)) is not None:
                at = below
                reason = reason.replace(place, at._spelling(last))
        program = at.prog.replace(" [options]", "")
        self.exit(2, f"{program}: {reason}; run '{program} --help' for what it takes\n")

    def _below(self, names: list[str]) -> "Parser | None":
        """The parser of a command below this one."""
        at: Parser | None = self
        for name in names:
            at = None if at is None else at.commands.get(name)
        return at

    def _spelling(self, dest: str) -> str:
        """An option or a positional argument as a user writes it."""
        positional = any(action.dest == dest and not action.option_strings for action in self._actions)
        return dest.upper() if positional else "--" + dest.replace("_", "-")


def add_hardware(parser: Any) -> None:
    """`--device` and `--precision`."""
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="where networks run")
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of matrix work; auto is bf16 where the hardware has it",
    )


def add_model(parser: Any) -> None:
    """`--model` and `--sampling`."""
    parser.add_argument("--model", type=Path, required=True, help="model folder that 'ldae fit' or 'ldae demo' wrote")
    parser.add_argument(
        "--sampling",
        type=str,
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="how noise codes are found and decoded, if not in the model's own way: solver=bdia, ddim, direct, dpm or heun; "
        "steps=10; corrections=3; guidance=1.5; reuse=2",
    )


def load_model(options: Namespace, folder: Path | None = None) -> "LatentDiffusionAutoencoder":
    """The model that `--model` names, or that is in a folder, sampling as `--sampling` says where a command takes it.

    Raises:
        ConfigError: for a setting that is not one.
    """
    from ldae.autoencoder import LatentDiffusionAutoencoder

    model = LatentDiffusionAutoencoder.from_pretrained(
        folder or options.model, device=options.device, precision=options.precision
    )
    sampling = options.get("sampling")
    return model.with_sampling(sampling) if sampling else model


def add_manifest(parser: Any, *, required: bool = True) -> None:
    """`--manifest`."""
    parser.add_argument("--manifest", type=Path, required=required, help="cohort table, TSV or CSV")


def add_out(parser: Any, what: str) -> None:
    """`--out`, a folder."""
    parser.add_argument("--out", type=folder, required=True, help=what)


def add_workers(parser: Any, *, default: int = 1, what: str = "processes") -> None:
    """`--workers`."""
    parser.add_argument("--workers", type=process_count, default=default, help=what)


def add_seed(parser: Any) -> None:
    """`--seed`."""
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
