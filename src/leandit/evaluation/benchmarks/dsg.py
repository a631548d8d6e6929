"""DSG: questions on a prompt's parts, in a graph: who asks for the colour of a car asks first whether there is one."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks.vqa import VQA, AskedMetric
from leandit.evaluation.extractors.weights import named_path
from leandit.evaluation.metric import Job
from leandit.evaluation.plans import plan_like_reference

_COLUMNS = ("item_id", "text", "proposition_id", "dependency", "question_natural_language")


@dataclass(frozen=True)
class Question:
    """A question that should be answered with yes, and the numbers of its parents, which must be answered with yes."""

    text: str
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Graph:
    """A prompt and its questions by number."""

    prompt: str
    questions: Mapping[int, Question]

    def __post_init__(self) -> None:
        for number, question in self.questions.items():
            absent = [parent for parent in question.parents if parent not in self.questions or parent == number]
            if absent:
                raise LeanDiTError(
                    f"question {number} of {self.prompt[:60]!r} depends on question {absent[0]}, which is not another "
                    "question of the same prompt; correct its dependency"
                )


@runtime_checkable
class Generator(Protocol):
    """Makes the graph of a prompt, such as by a language model."""

    def __call__(self, prompt: str) -> Graph:
        """Return the questions that a prompt raises."""


def graph_score(graph: Graph, answers: Mapping[int, bool]) -> float:
    """Return the share of questions answered with yes; one with a parent answered with no counts as no.

    A parent counts by its own answer, not by its parents', as in the authors' release: a grandchild of a "no" keeps
    its answer if the child itself was answered with yes.

    Reference: DSG (arXiv 2310.18235), section 3.
    """
    numbers = graph.questions
    right = [answers[n] and all(answers[parent] for parent in numbers[n].parents) for n in numbers]
    return sum(right) / len(right)


def read_graphs(path: Path) -> list[Graph]:
    """Return the graphs of a .csv file in the form of the authors' dsg-1k-anns.csv, in the file's order."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LeanDiTError(f"{path}: DSG's questions cannot be read: {error}") from None
    absent = [column for column in _COLUMNS if not rows or column not in rows[0]]
    if absent:
        raise LeanDiTError(f"{path}: the column {absent[0]} is missing, or all rows; give DSG's dsg-1k-anns.csv")
    items: dict[str, list[tuple[str, int, Question]]] = {}
    for number, row in enumerate(rows, 2):
        items.setdefault(row["item_id"], []).append(_read(path, number, row))
    return [Graph(parts[0][0], {number: question for _, number, question in parts}) for parts in items.values()]


def _read(path: Path, line: int, row: Mapping[str, str]) -> tuple[str, int, Question]:
    try:
        # 0 means no parent.
        parents = tuple(int(part) for part in row["dependency"].split(",") if part.strip() not in ("", "0"))
        return row["text"], int(row["proposition_id"]), Question(row["question_natural_language"], parents)
    except (ValueError, AttributeError):
        raise LeanDiTError(
            f'{path}, row {line}: proposition_id and dependency are numbers, as in 2 and 1 or "1,4"; correct the row'
        ) from None


class Dsg(AskedMetric):
    """DSG: the share of a prompt's questions that are answered with yes and whose parents are too.

    The questions come from a file in the authors' form, or from a generator for the captions of the reference.

    Reference: DSG (arXiv 2310.18235).
    """

    name = "dsg"
    title = "DSG"

    def __init__(self, vqa: VQA | None = None, generator: Generator | None = None) -> None:
        super().__init__(vqa)
        self._generator = generator

    def read(self, job: Job) -> Sequence[Graph]:
        """Return the graphs of --weights-from dsg=FILE, or those of the generator for the reference's captions."""
        if self._generator is not None:
            return [self._generator(str(prompt)) for prompt in plan_like_reference(job).wanted or ()]
        return read_graphs(named_path(job, "dsg", self.name, "its questions, dsg-1k-anns.csv of j-min/DSG"))

    def score(self, picture: UInt8[Tensor, "height width channels"], item: Any, vqa: VQA) -> float:
        """Return the share of questions answered with yes, P(yes) > 1/2, without a parent answered with no."""
        probable = vqa(picture, [question.text for question in item.questions.values()])
        return graph_score(item, dict(zip(item.questions, (probable > 0.5).tolist(), strict=True)))
