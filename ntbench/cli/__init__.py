"""The command line: one module a family of commands.

Here enter arguments, options and what is printed at the end; nothing heavy is imported before a command needs it.
"""

from ntbench.cli import board, data, reading, running, submissions, tuning, weights, zoo  # noqa: F401
from ntbench.cli.app import app, main

__all__ = ["app", "main"]
