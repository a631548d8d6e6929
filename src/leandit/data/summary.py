"""One line that says what was read from a source, and what was passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from leandit.data.source import Source

_NO_SUFFIX = "no suffix"
_MAX_SUFFIXES = 5


class PassedOver:
    """Counts what a source does not read: files by their suffix, and pictures that the metadata do not name."""

    def __init__(self) -> None:
        self.suffixes: Counter[str] = Counter()
        self.without_line = 0

    def add(self, names: Iterable[str]) -> None:
        """Count files that are not read."""
        self.suffixes.update(Path(name).suffix.lower() or _NO_SUFFIX for name in names)


def summary(source: Source, key: str) -> str:
    """Return a line such as "data.source: 90 pictures in 3 classes, with captions; passed over: 2 files (.txt)"."""
    first = source[0]
    count, classes = len(source), len(source.class_names)
    parts = [f"{key}: {count:,} {'latent' if first.is_latent else 'picture'}{'s' * (count != 1)}"]
    parts[0] += f" in {classes:,} class{'es' * (classes != 1)}" if classes else ", no classes"
    parts[0] += ", with captions" if first.captions else ", no captions"
    passed_over = getattr(source, "passed_over", None)
    if isinstance(passed_over, PassedOver):
        parts += _passed_over(passed_over)
    return "; ".join(parts)


def _passed_over(counts: PassedOver) -> list[str]:
    found = []
    if number := counts.suffixes.total():
        common = sorted(counts.suffixes.items(), key=lambda item: (-item[1], item[0]))[:_MAX_SUFFIXES]
        named = ", ".join(f"{suffix}: {count:,}" for suffix, count in common)
        more = ", ..." if len(counts.suffixes) > len(common) else ""
        found.append(f"passed over: {number:,} file{'s' * (number != 1)} that are no pictures ({named}{more})")
    if number := counts.without_line:
        found.append(f"passed over: {number:,} picture{'s' * (number != 1)} without a line in the metadata")
    return found
