"""Write docs/reference/configuration.md from the config classes: python scripts/build_reference.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from leandit.config import Fact
from leandit.config.describe import group, resume_text, tag_of
from leandit.config.docs import class_doc
from leandit.config.fields import IDENTITY, ConfigField, fields_of
from leandit.config.schema import default_text, type_text
from leandit.run import RunConfig

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "configuration.md"
_SHORT = {
    Fact.MAY_CHANGE: "yes",
    Fact.BACKEND: "yes, up to rounding",
    Fact.DEVICE: "yes, up to rounding",
    Fact.PATH: "if it has moved",
    Fact.RUN_LENGTH: "at a constant rate",
}
_HEAD = """\
# Configuration reference

Made from the code by `scripts/build_reference.py`. `leandit config doc KEY` prints the same for one key; the
[guide](../guide/configuration.md) says how settings are given.

**Resume** says whether a setting may change when a run is resumed. "no" is refused, because another value would be
another run. "if it has moved" allows another path if the same things are there, which fingerprints tell. "at a constant
rate" needs `schedule.decay=constant`. Names in bold have a table of their own.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_section("RunConfig", fields_of(RunConfig)), *_below(fields_of(RunConfig), set())])


def _below(fields: list[ConfigField], seen: set[type]) -> Iterator[str]:
    """Yield a section for each node among the fields, and then those of the nodes in it; each class once."""
    for field in fields:
        kinds = [kind for kind in field.kinds if kind.__module__.startswith("leandit.")]
        if not kinds or kinds[0] in seen:
            continue
        seen |= {*kinds}
        every = [below for kind in kinds for below in fields_of(kind, field)]
        alike = [same[0] for same in group(every) if len(same) == len(kinds) > 1]
        yield f"\n## {field.prefix}\n"
        if len(kinds) == 1:
            yield from _section(class_doc(kinds[0]), fields_of(kinds[0], field))
        else:
            yield from _section(f"{len(kinds)} kinds. All of them have:" if alike else f"{len(kinds)} kinds.", alike)
        for kind in kinds if len(kinds) > 1 else []:
            yield f"\n### {field.prefix}.type = {json.dumps(tag_of(kind))}\n"
            shared = {one.name for one in alike} | {"type"}
            yield from _section(class_doc(kind), [one for one in fields_of(kind, field) if one.name not in shared])
        nodes = {below.key: below for below in every if below.kinds}
        yield from _below([*nodes.values()], seen)


def _section(text: str | None, fields: list[ConfigField]) -> Iterator[str]:
    if text != RunConfig.__name__:
        yield f"{text}\n"
    if fields:
        yield "| field | type | default | resume | meaning |"
        yield "|---|---|---|---|---|"
    for field in fields:
        name = f"**{field.name}**" if field.kinds else f"`{field.name}`"
        default = default_text(field)
        cells = (type_text(field), default if len(default) <= 40 else default[:37] + "...", _resume(field))
        yield "| " + " | ".join([name, *map(_cell, cells), _cell(field.doc or "")]) + " |"


def _resume(field: ConfigField) -> str:
    short = next((_SHORT[fact] for fact in Fact if fact in field.facts), None)
    return short or ("no" if resume_text(field) == IDENTITY else "")


def _cell(text: str) -> str:
    """Escape what a table or Markdown would take for its own; within backticks, only what ends the cell."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(
        part if place % 2 else part.replace("<", "&lt;").replace("*", "\\*") for place, part in enumerate(parts)
    )


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
