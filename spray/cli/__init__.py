"""The command line ``spray``."""

from spray.cli.commands import main

__all__ = ["main"]
