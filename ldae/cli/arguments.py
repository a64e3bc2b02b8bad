"""The parser of every command, and the options that several share."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder

__all__ = ["Parser", "add_hardware", "add_manifest", "add_model", "add_out", "add_seed", "load_model"]


class Parser(ArgumentParser):
    """A parser whose errors are one paragraph and exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Say what was wrong and where help is."""
        reason = " ".join(str(message).split())
        # jsonargparse names a missing option by its place in the tree.
        reason = re.sub(r"\b(?:[\w-]+\.)+([\w-]+)", lambda match: "--" + match[1].replace("_", "-"), reason)
        program = self.prog.replace(" [options]", "")
        self.exit(2, f"{program}: {reason}; run '{program} --help' for what it takes\n")


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
    """`--out`."""
    parser.add_argument("--out", type=Path, required=True, help=what)


def add_seed(parser: Any) -> None:
    """`--seed`."""
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
