"""The command line: one small module a command group; nothing heavy is imported before a command runs."""

from ldae.cli.main import main

__all__ = ["main"]
