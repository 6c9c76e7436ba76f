"""The command line ``spray``."""

from spray.cli import exchange, loop
from spray.cli.commands import main

for command in (*loop.COMMANDS, *exchange.COMMANDS):
    main.add_command(command)

__all__ = ["main"]
