"""`python -m leandit`: the command line."""

from leandit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
