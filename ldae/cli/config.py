"""`ldae config`: what ships, and what a config resolves to."""

from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser

__all__ = ["register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    parser = Parser(description="Print the resolved values of a config, defaults included.")
    parser.add_argument("name", help="YAML file, or a shipped config: demo, quick, paper, demo/compression, ...")
    parser.add_argument("--set", type=str, nargs="+", default=[], help="override values, each as key.path=value")
    commands.add_subcommand("config", parser, help="print what a config resolves to")
    runs["config",] = show


def show(options: Namespace) -> int:
    """Print YAML."""
    import yaml

    from ldae.cli.console import say
    from ldae.config import load_experiment
    from ldae.io.plain import to_plain

    say(yaml.safe_dump(to_plain(load_experiment(options.name, options.set)), sort_keys=False).rstrip())
    return 0
