"""The `ldae` command: finds the command's module and runs it."""

import importlib
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser, Namespace

from ldae.cli.arguments import Parser
from ldae.cli.console import exit_on_error

__all__ = ["build_parser", "main"]

# Command groups in the order of a study; each module adds its parsers and names the function that runs them.
MODULES = (
    "demo",
    "cohort",
    "plan",
    "fit",
    "convert",
    "encode",
    "probe",
    "images",
    "manipulate",
    "interpolate",
    "diagnose",
    "discover",
    "export",
    "report",
    "config",
)

Run = Callable[[Namespace], int | None]


def build_parser() -> tuple[ArgumentParser, dict[tuple[str, ...], Run]]:
    """The whole command tree, and what runs each command."""
    from ldae.version import __version__

    parser = Parser(
        prog="ldae", description="Latent diffusion autoencoders: representation learning on 3D medical images."
    )
    parser.add_argument("--version", action="version", version=f"ldae {__version__}", help="print the version and exit")
    parser.add_argument(
        "--verbose", action="store_true", help="show the traceback of an error, and what the library logs"
    )
    commands = parser.add_subcommands(required=True, dest="command")
    runs: dict[tuple[str, ...], Run] = {}
    for name in MODULES:
        module = importlib.import_module(f"ldae.cli.{name}")
        module.register(commands, runs)
    return parser, runs


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 0, or 1 where some scans failed, or 2 for bad input."""
    parser, runs = build_parser()
    namespace = parser.parse_args(list(arguments) if arguments is not None else None)
    path = [namespace.command]
    options = namespace[namespace.command]
    while "subcommand" in options:
        path.append(options.subcommand)
        options = options[options.subcommand]
    if namespace.verbose:
        import logging

        logging.basicConfig(level=logging.INFO)
    with exit_on_error(verbose=namespace.verbose):
        code = runs[tuple(path)](options)
        raise SystemExit(code or 0)
