"""GenEval's rules: what each prompt asks for, and whether a picture shows it by what a detector found in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxtyping import UInt8
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from leandit.config import Config
from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks.detectors import Box, Colours, Detected, confident

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
Relation = Literal["left of", "right of", "above", "below"]


class Wanted(Config):
    """Objects of one class that must be in the picture, or must not."""

    class_: str = Field(alias="class", min_length=1)
    """A class of the detector; the benchmark uses COCO's."""
    count: int = Field(ge=1)
    """How many there must be at least; of excluded objects there must be fewer."""
    color: str | None = None
    """The colour that the surest `count` objects must have."""
    position: tuple[Relation, int] | None = None
    """Where they must be, seen from the objects of the clause with this number."""


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
                    f"include[{place}] lies {wanted.position[0]} clause {wanted.position[1]}, not an earlier one"
                )
        return self


def read_prompts(path: Path) -> list[Prompt]:
    """Return the prompts of a .jsonl file, one object in each line; LeanDiTError names an invalid line."""
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
        place = ".".join(str(part) for part in first["loc"])
        raise LeanDiTError(f"{path}, line {number}: {place}: {first['msg']}; see GenEval's metadata format") from None


Found = Mapping[str, list[Detected]]


class GenEvalConfig(Config):
    """Thresholds, those of the benchmark by default."""

    threshold: float = Field(0.3, ge=0, le=1)
    """Objects with a lower score do not count."""
    counting_threshold: float = Field(0.9, ge=0, le=1)
    """The same for prompts that count; there a doubtful object would be one too many."""
    most_objects: int = Field(16, ge=1)
    """The largest number of objects per class, the surest first."""
    margin: float = Field(0.1, ge=0)
    """A distance of two centres counts beyond this share of both objects' sizes."""


def is_right(
    prompt: Prompt,
    picture: UInt8[Tensor, "height width channels"],
    objects: list[Detected],
    colours: Colours,
    config: GenEvalConfig,
) -> bool:
    """Return whether a picture shows all that its prompt includes and nothing that it excludes.

    A class is there when at least `count` of its objects are; of these, the surest `count` must all have the colour,
    and all lie in the relation to all objects of the clause that they refer to. An excluded class fails the picture
    with `count` objects or more.

    Reference: GenEval (arXiv 2310.11513), section 3, and the authors' release for the thresholds.
    """
    threshold = config.counting_threshold if prompt.tag == "counting" else config.threshold
    found = confident(objects, threshold, config.most_objects)
    matched: list[list[Detected] | None] = []
    for wanted in prompt.include:
        matched.append(_match(wanted, found, matched, picture, colours, config))
    excess = any(len(found.get(unwanted.class_, [])) >= unwanted.count for unwanted in prompt.exclude)
    return not excess and None not in matched


def _match(
    wanted: Wanted,
    found: Found,
    earlier: Sequence[list[Detected] | None],
    picture: Tensor,
    colours: Colours,
    config: GenEvalConfig,
) -> list[Detected] | None:
    """Return the objects that meet a clause, or None."""
    objects = found.get(wanted.class_, [])[: wanted.count]
    if len(objects) < wanted.count:
        return None
    if wanted.color is not None and colours(picture, objects).count(wanted.color) < wanted.count:
        return None
    if wanted.position is None:
        return objects
    relation, clause = wanted.position
    targets = earlier[clause]
    if targets is None:
        return None
    pairs = ((mine, other) for mine in objects for other in targets)
    fits = all(relation in relations(mine.box, other.box, config.margin) for mine, other in pairs)
    return objects if fits else None


def relations(box: Box, other: Box, margin: float = 0.1) -> set[str]:
    """Return where `box` lies as seen from `other`: up to two of left of, right of, above, below.

    With d the distance of the centres and w both boxes' sizes added, each per axis, d' = sign(d) max(|d| - margin w, 0)
    is the distance that counts; a relation holds if d' / |d| is beyond 1/2 along its axis.
    """
    distance = [(box[i] + box[i + 2] - other[i] - other[i + 2]) / 2 for i in (0, 1)]
    sizes = [abs(box[i + 2] - box[i]) + abs(other[i + 2] - other[i]) for i in (0, 1)]
    counted = [math.copysign(max(abs(d) - margin * w, 0), d) for d, w in zip(distance, sizes, strict=True)]
    if all(abs(part) < 1e-3 for part in counted):
        return set()
    across, down = (part / math.hypot(*distance) for part in counted)
    holds = {"left of": across < -0.5, "right of": across > 0.5, "above": down < -0.5, "below": down > 0.5}
    return {relation for relation, true in holds.items() if true}
