"""Where the commands print their tables."""

import sys

from rich.console import Console


def open_terminal() -> Console:
    """The terminal; a log file has no width of its own, and a table needs some."""
    return Console() if sys.stdout.isatty() else Console(width=140, soft_wrap=True)
