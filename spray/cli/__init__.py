"""The command line ``spray``."""

from spray.cli import exchange
from spray.cli.commands import main

for command in exchange.COMMANDS:
    main.add_command(command)

__all__ = ["main"]
