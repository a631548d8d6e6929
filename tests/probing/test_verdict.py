"""The verdict of a report: healthy and collapsed routing, and what is said of each."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from routed_models import class_run

from leandit.cli import main
from leandit.moe import routers
from leandit.probing import build_report, draw_recorded
from leandit.probing.verdict import verdict


def report(**changes: Any) -> dict[str, Any]:
    """A report of two layers with four experts, in perfect balance at its budget, unless changed."""
    made = {
        "run": {"k": 2, "num_experts": 4, "strategy": "expert_race"},
        "pairs": {"experts_per_token": 2.0},
        "layer": {"load": [[10, 10, 10, 10], [10, 10, 10, 10]], "max_violation": [0.0, 0.0]},
        "allocation": {"detail_over_flat": 1.5, "over_time": [1.8, 2.0, 2.2]},
    }
    return {**made, **changes}


def level_of(found: dict[str, Any], name: str) -> str:
    return next(check["level"] for check in found["checks"] if check["name"] == name)


def test_a_healthy_router() -> None:
    found = verdict(report())
    assert found["level"] == "good"
    assert found["sentence"] == "The routing is healthy: every number is in its normal range."
    assert [check["name"] for check in found["checks"]] == [
        *("dead experts", "largest imbalance", "experts per token", "experts on detail over flat parts"),
        "experts over time",
    ]
    assert not any(check["advice"] for check in found["checks"])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("loads", "level", "value"),
    [
        ([[10, 10, 10, 10], [10, 10, 10, 1]], "good", "0 of 8"),  # 13 % of the fair share: little, not dead
        ([[10, 10, 10, 10], [10, 10, 10, 0]], "bad", "1 of 8"),
        ([[1, 1] * 8, [1, 1] * 7 + [1, 0]], "watch", "1 of 32"),
        ([[0, 0, 0, 0], [10, 10, 10, 10]], "bad", "4 of 8"),
    ],
)
def test_dead_experts(loads: list[list[int]], level: str, value: str) -> None:
    found = verdict(report(layer={"load": loads, "max_violation": [0.0] * 2}))
    check = found["checks"][0]
    assert (check["level"], check["value"]) == (level, value)
    if level != "good":
        assert f"layer {2 if loads[1].count(0) > loads[0].count(0) else 1}" in check["advice"]
        assert "dead experts" in found["sentence"]


@pytest.mark.parametrize(
    ("violation", "level"),
    [(1.4, "good"), (2.052, "watch"), (6.383, "bad")],  # the last two: Expert Race, Table 2
)
def test_imbalance(violation: float, level: str) -> None:
    found = verdict(report(layer={"load": [[10] * 4] * 2, "max_violation": [0.1, violation]}))
    assert level_of(found, "largest imbalance") == found["level"] == level
    if level != "good":
        assert found["sentence"].endswith(": largest imbalance.")
        assert found["checks"][1]["value"] == f"{violation:.2f} in layer 2"
        assert f"{violation + 1:.1f} times its fair share" in found["checks"][1]["advice"]


@pytest.mark.parametrize(
    ("experts", "level"), [(0.9, "bad"), (1.2, "watch"), (1.5, "good"), (2.5, "good"), (2.9, "watch"), (3.1, "bad")]
)
def test_the_budget(experts: float, level: str) -> None:
    assert level_of(verdict(report(pairs={"experts_per_token": experts})), "experts per token") == level


def test_content_is_never_more_than_something_to_look_at() -> None:
    upside_down = {"detail_over_flat": 0.4, "over_time": [2.6, 2.0, 1.4]}
    found = verdict(report(allocation=upside_down))
    assert found["level"] == "watch"
    names = "experts on detail over flat parts, experts over time"
    assert found["sentence"] == f"The routing works; look at: {names}."
    fixed = verdict(report(allocation=upside_down, run={"k": 2, "num_experts": 4, "strategy": "token_choice"}))
    assert fixed["level"] == "good"


def test_what_is_not_measured_is_not_judged() -> None:
    bare = {name: report()[name] for name in ("run", "pairs")}
    for allocation in ({}, {"allocation": None}, {"allocation": {"detail_over_flat": None, "over_time": [1, 1]}}):
        assert [check["name"] for check in verdict({**bare, **allocation})["checks"]] == ["experts per token"]


def test_a_router_that_collapsed_is_told_from_a_healthy_one() -> None:
    run = class_run(num_experts=8)
    levels = []
    for collapsed in (False, True):
        if collapsed:
            with torch.no_grad():
                for _, router in routers(run.model):
                    router.gate_head.weight[1:] = 0
                    router.threshold.value.fill_(1e-6)
        found = verdict(build_report(draw_recorded(run, [0, 1], [0, 1])))
        levels.append(level_of(found, "dead experts"))
    assert levels == ["good", "bad"]
    assert found["checks"][0]["value"] == "14 of 16"
    assert found["sentence"].startswith("The routing is not healthy: dead experts")


def test_the_command_says_it_first(tiny_run: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "probe",
        str(tiny_run),
        "--steps",
        "2",
        "--seeds",
        "0",
        "--pictures",
        "4",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "out/report.json").read_text())["verdict"]
    assert found["sentence"] in said
    for check in found["checks"]:
        assert (f"normal is {check['normal']}. {check['advice']}" in said) is bool(check["advice"])
