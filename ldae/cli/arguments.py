"""Options that several commands share."""

from pathlib import Path
from typing import Any

__all__ = ["add_hardware", "add_manifest", "add_model", "add_out", "add_seed"]


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
    """`--model`."""
    parser.add_argument("--model", type=Path, required=True, help="model folder that 'ldae fit' or 'ldae demo' wrote")


def add_manifest(parser: Any, *, required: bool = True) -> None:
    """`--manifest`."""
    parser.add_argument("--manifest", type=Path, required=required, help="cohort table, TSV or CSV")


def add_out(parser: Any, what: str) -> None:
    """`--out`."""
    parser.add_argument("--out", type=Path, required=True, help=what)


def add_seed(parser: Any) -> None:
    """`--seed`."""
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
