"""GenEval's prompts: what each asks for, read from the benchmark's own evaluation_metadata.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from leandit.config import Config
from leandit.errors import LeanDiTError

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
Relation = Literal["left of", "right of", "above", "below"]


class Wanted(Config):
    """Objects of one class that must be there, or must not."""

    # One of the detector's classes, COCO's in the benchmark.
    class_: str = Field(alias="class", min_length=1)
    # So many at least, where they are wanted; fewer than so many, where they are excluded.
    count: int = Field(ge=1)
    # The colour that so many of the surest objects must have.
    color: str | None = None
    # Where they must be, seen from the objects of the clause of that number.
    position: tuple[Relation, int] | None = None


class Prompt(Config):
    """One prompt of GenEval and what a picture of it must show."""

    tag: Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
    prompt: str = Field(min_length=1)
    include: tuple[Wanted, ...] = Field(min_length=1)
    exclude: tuple[Wanted, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Any:
        for place, wanted in enumerate(self.include):
            if wanted.position is not None and not 0 <= wanted.position[1] < place:
                raise ValueError(
                    f"include[{place}] lies {wanted.position[0]} clause {wanted.position[1]}, no earlier one"
                )
        return self


def read_prompts(path: Path) -> list[Prompt]:
    """Return the prompts of a .jsonl file, one object a line; a LeanDiTError names the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LeanDiTError(f"{path}: GenEval's prompts cannot be read: {error}") from None
    prompts = [_read(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise LeanDiTError(f"{path}: holds no prompts; give GenEval's evaluation_metadata.jsonl")
    return prompts


def _read(path: Path, number: int, line: str) -> Prompt:
    try:
        return Prompt.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LeanDiTError(f"{path}, line {number}: {where}: {first['msg']}; see GenEval's metadata format") from None
