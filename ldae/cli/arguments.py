"""The parser of every command, and the options that several share."""

import re
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from ldae.cli.command import Parser as NewParser
from ldae.cli.legacy import Recorder

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


class Parser(NewParser):
    """A parser that an old module fills."""

    def __init__(self, description: str = "") -> None:
        super().__init__((), description)
        self.recorder: Recorder | None = None

    def add_subcommands(self, *args: Any, **options: Any) -> Any:
        """Commands below this one."""
        self.recorder = Recorder()
        return self.recorder


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
        help="how noise codes are found and decoded, if not in the model's own way: solver=bdia or ddim; "
        "steps=10; corrections=3; guidance=1.5",
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
