"""The command line: `leandit train | sample | models`. Each command imports what it needs when it runs."""

from leandit.cli.main import main

__all__ = ["main"]
