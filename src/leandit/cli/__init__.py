"""The command line of `leandit`. Each command imports what it needs when it runs."""

from leandit.cli.main import main

__all__ = ["main"]
