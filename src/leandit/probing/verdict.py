"""A verdict on the routing of a run: each number beside its normal range, and what to do if it is outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Level = Literal["good", "watch", "bad"]
_RANK: dict[Level, int] = {"good": 0, "watch": 1, "bad": 2}

# An expert is dead if it has less than this share of its fair share of the pairs.
DEAD = 0.05
# Expert Race, Table 2: MaxVio is 0.85 with its router similarity, 2.05 with a balance loss, 6.4 without either.
_BALANCED, _COLLAPSING = 1.5, 4.0
_BUDGET, _FAR_FROM_BUDGET = (0.75, 1.25), (0.5, 1.5)


@dataclass(frozen=True)
class Check:
    """One number of a verdict. `normal` is its normal range in words; `advice` is empty if the level is good."""

    name: str
    value: str
    normal: str
    level: Level
    advice: str = ""


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    """Return the report's entry `verdict`: its level, a sentence, and the checks as JSON values.

    The level is the worst one of the checks. "bad" means that the routing has collapsed or misses its budget by half;
    "watch" means a number outside its normal range. Only what is in the report is checked.
    """
    checks = [check for part in (_dead(report), _balance(report), _budget(report), _content(report)) for check in part]
    level = max((check.level for check in checks), key=_RANK.__getitem__, default="good")
    outside = [check for check in checks if check.level == level]
    if level == "good":
        sentence = "The routing is healthy: every number is in its normal range."
    else:
        names = ", ".join(check.name for check in outside)
        sentence = f"{'The routing is not healthy' if level == 'bad' else 'The routing works; look at'}: {names}."
    return {"level": level, "sentence": sentence, "checks": [asdict(check) for check in checks]}


def _dead(report: dict[str, Any]) -> Iterator[Check]:
    if "layer" not in report:
        return
    loads = np.array(report["layer"]["load"], float)
    fair = np.maximum(loads.mean(1, keepdims=True), 1e-12)
    dead = loads < DEAD * fair
    count, total = int(dead.sum()), dead.size
    worst = int(dead.sum(1).argmax())
    level: Level = "good" if not count else "watch" if count <= total / 10 else "bad"
    advice = (
        f"Most are in layer {worst + 1}. Give losses.router_similarity or losses.load_balance more weight, or take a "
        "smaller learning rate; a run that has just begun may only need more steps."
    )
    yield Check("dead experts", f"{count} of {total}", "0", level, advice if count else "")


def _balance(report: dict[str, Any]) -> Iterator[Check]:
    if "layer" not in report:
        return
    values = report["layer"]["max_violation"]
    worst = int(np.argmax(values))
    level: Level = "good" if values[worst] <= _BALANCED else "watch" if values[worst] <= _COLLAPSING else "bad"
    advice = (
        f"The busiest expert of layer {worst + 1} has {values[worst] + 1:.1f} times its fair share. Give "
        "losses.router_similarity or losses.load_balance more weight."
    )
    value = f"{values[worst]:.2f} in layer {worst + 1}"
    yield Check("largest imbalance", value, f"0 to {_BALANCED:g}", level, "" if level == "good" else advice)


def _budget(report: dict[str, Any]) -> Iterator[Check]:
    spent = report["pairs"]["experts_per_token"] / report["run"]["k"]
    level: Level = "bad"
    for name, (low, high) in (("watch", _FAR_FROM_BUDGET), ("good", _BUDGET)):
        level = name if low <= spent <= high else level  # type: ignore[assignment]
    advice = (
        "Thresholds follow the training slowly: train longer. With model.moe.inference=race it is kept. Guidance "
        "and few steps of the sampler also move it."
    )
    value = f"{report['pairs']['experts_per_token']:.2f} of k = {report['run']['k']:g}, {100 * spent:.0f} %"
    yield Check("experts per token", value, "75 % to 125 % of k", level, "" if level == "good" else advice)


def _content(report: dict[str, Any]) -> Iterator[Check]:
    found = report.get("allocation")
    if not found or found["detail_over_flat"] is None:
        return
    ratio, early, late = found["detail_over_flat"], found["over_time"][0], found["over_time"][-1]
    fixed = report["run"]["strategy"] in ("token_choice", "biased")  # every token has k experts
    level: Level = "good" if ratio >= 1 or fixed else "watch"
    advice = (
        "Flat parts get more experts than detail. Prediction, background and per-layer regularisation decide this: see "
        "docs/design/allocation.md."
    )
    yield Check(
        "experts on detail over flat parts", f"{ratio:.2f}", "1 or more", level, "" if level == "good" else advice
    )
    rises: Level = "good" if late >= 0.9 * early or fixed else "watch"
    value = f"{early:.2f} at noise, {late:.2f} at the picture"
    advice = "More go to noise than to the picture; in Expert Race's Figure 6 it is the other way: see the same page."
    yield Check("experts over time", value, "even, or rising to the picture", rises, "" if rises == "good" else advice)
