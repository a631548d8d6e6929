"""Run the command of a command line, and turn mistakes into messages and exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

from leandit.cli.output import TALK, accept_any_text, discard_output, status
from leandit.cli.parser import build_parser, parse
from leandit.errors import LeanDiTError, printable

_MOST_SHOWN = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return 0, 2 for a mistake that the user can correct, 130 or 143 after a signal."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
        from leandit.cli.completion import complete

        complete(build_parser())
    accept_any_text()
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.run is None:
        build_parser().print_help()
        return 0
    TALK.quiet = getattr(options, "quiet", False)
    if getattr(options, "verbose", False):
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.loads_torch and "torch" not in sys.modules:
            status("Loading ...", sys.stderr)  # importing torch takes seconds
        if imports := getattr(options, "imports", ()):
            from leandit.config.plugins import import_kinds

            for name in imports:
                import_kinds(name)
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except LeanDiTError as error:
        print(f"leandit: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # A reader that stops early, as in `leandit models | head`, is not an error for commands that only print. Other
        # commands return the exit code of a shell.
        discard_output()
        return 0 if options.only_prints else 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is None:
            raise
        # Such as a name that is too long, or a folder that this user may not read.
        print(printable(f"leandit: {str(error.filename)[:_MOST_SHOWN]}: {error.strerror}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("leandit: interrupted", file=sys.stderr)
        return 130
