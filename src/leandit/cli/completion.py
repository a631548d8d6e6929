"""`leandit completion`, and the completion of commands, options, presets, settings and runs in a shell."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import argcomplete
from argcomplete.completers import FilesCompleter


def run(options: argparse.Namespace) -> int:
    """Print the lines that turn completion on in a shell."""
    print(argcomplete.shellcode(["leandit"], shell=options.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Print what may come next to the shell that asked, and end the process."""
    completers = {"preset": _presets, "overrides": _settings, "key": _keys, "folder": _runs, "folders": _runs}
    for each in _all_parsers(parser):
        for action in each._actions:
            if action.dest in completers:
                action.completer = completers[action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _all_parsers(below)


def _presets(prefix: str, **_: object) -> list[str]:
    from leandit.presets import PRESETS

    return [*PRESETS, *FilesCompleter(("toml", "json", "yaml", "yml"))(prefix)]


def _keys(prefix: str, **_: object) -> list[str]:
    """Return the next part of keys: after `model.` its fields, so that a list stays short."""
    from leandit.config.fields import walk
    from leandit.run import RunConfig

    level = prefix.count(".")
    fields = [field for field in walk(RunConfig) if field.key.startswith(prefix) and ".N" not in field.key]
    here = [field for field in fields if field.key.count(".") == level]
    return list(dict.fromkeys(field.key for field in here))


def _settings(prefix: str, **_: object) -> list[str]:
    """Return keys with what follows them: a dot after a table, "=" after a value, and after that its choices."""
    from leandit.config.fields import find, walk
    from leandit.config.schema import type_text
    from leandit.run import RunConfig

    key, equals, _given = prefix.partition("=")
    if equals:
        texts = {type_text(field) for field in find(RunConfig, key)} if key else set()
        words = [word.strip('"') for text in texts for word in text.replace(" or ", " | ").split(" | ")]
        return [f"{key}={word}" for word in dict.fromkeys(words) if word.isidentifier()]
    tables = {field.key for field in walk(RunConfig) if field.kinds}
    return [choice for name in _keys(prefix) for choice in ([f"{name}."] if name in tables else [f"{name}="])]


def _runs(prefix: str, **_: object) -> list[str]:
    folder = Path(prefix) if prefix.endswith(os.sep) else Path(prefix).parent
    found = [path for path in folder.glob("*") if path.is_dir()]
    runs = [str(path) for path in found if (path / "config.json").exists()]
    inner = [f"{path}{os.sep}" for path in found if any(path.glob("*/config.json"))]
    return ["emoji", *runs, *inner]
