"""Two results of evaluations side by side, if their numbers mean the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leandit.errors import LeanDiTError
from leandit.evaluation.record import read_record

Record = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One setting that differs between two results and that their numbers depend on."""

    what: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"{self.what}: {_short(self.first)} / {_short(self.second)}"


@dataclass(frozen=True)
class Comparison:
    """Two records, their numbers as rows (name, first, second), and what makes the numbers incomparable, if anything.

    A number is None if the record does not have it under this name.
    """

    records: tuple[Record, Record]
    rows: list[tuple[str, float | None, float | None]]
    differences: list[Difference]


def compare(first: Path, second: Path, anyway: bool = False) -> Comparison:
    """Return the results of two files side by side.

    Raises LeanDiTError, which lists the differences, if the numbers cannot be compared and `anyway` is false.
    """
    a, b = read_record(first), read_record(second)
    differing = differences(a, b)
    if differing and not anyway:
        lines = "\n".join(f"  {difference}" for difference in differing)
        raise LeanDiTError(
            f"{first} and {second} cannot be compared, since these differ:\n{lines}\n"
            "Evaluate one of them again like the other, or add --anyway to see the numbers all the same"
        )
    return Comparison((a, b), rows(a, b), differing)


def differences(first: Record, second: Record) -> list[Difference]:
    """Return everything that makes the numbers of the metrics in both records incomparable.

    EMA or raw always counts; sampler, steps, guidance, autoencoder and picture size count if a metric draws pictures.
    Each metric adds its number of pictures, its seeds and everything in `made_of`. The runs themselves do not count.
    """
    shared = shared_metrics(first, second)
    if not shared:
        mine, other = (", ".join(record["metrics"]) for record in (first, second))
        raise LeanDiTError(f"the two results have no metric in common: {mine} / {other}")
    metrics = [(first["metrics"][name], second["metrics"][name]) for name in shared]
    drawn = any(a["samples"] or b["samples"] for a, b in metrics)
    found = _between(_conditions(first, drawn), _conditions(second, drawn), "")
    for name, (a, b) in zip(shared, metrics, strict=True):
        keys = ("samples", "seeds", "made_of")
        found += _between({key: a.get(key) for key in keys}, {key: b.get(key) for key in keys}, f"{name}: ")
    return found


def shared_metrics(first: Record, second: Record) -> list[str]:
    """Return the names of the metrics in both records, in the order of the first."""
    return [name for name in first["metrics"] if name in second["metrics"]]


def rows(first: Record, second: Record) -> list[tuple[str, float | None, float | None]]:
    """Return each number of the shared metrics by name; None if a record does not have the name."""
    table = []
    for name in shared_metrics(first, second):
        a, b = first["metrics"][name]["values"], second["metrics"][name]["values"]
        table += [(number, a.get(number), b.get(number)) for number in {**a, **b}]
    return table


def _conditions(record: Record, drawn: bool) -> Record:
    """Return the conditions that count: without drawn pictures only the weights, which decide a loss too."""
    conditions: Record = record["conditions"]
    return conditions if drawn else {"weights": conditions.get("weights")}


def _between(first: Record, second: Record, prefix: str) -> list[Difference]:
    before, after = dict(_leaves(first)), dict(_leaves(second))
    keys = dict.fromkeys([*before, *after])
    return [
        Difference(f"{prefix}{key.removeprefix('made_of.')}", before.get(key), after.get(key))
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, tree


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
