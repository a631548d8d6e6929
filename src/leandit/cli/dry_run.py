"""`leandit train --dry-run`: the cost of a run as a table, or all of it as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from leandit.errors import printable
from leandit.training.dry_run import Cost, DryRun


def print_dry_run(found: DryRun, as_json: bool) -> None:
    """Print the cost, and what is not on this machine yet; as JSON also the complete configuration."""
    if as_json:
        tree = {
            "config": found.config.model_dump(mode="json"),
            "cost": asdict(found.cost),
            "data": found.data,
            "missing": dict(found.missing),
        }
        print(json.dumps(tree, indent=2, ensure_ascii=False))
        return
    run, cost, train, model = found.config, found.cost, found.config.train, found.config.model
    size = f"{model.type}, {model.depth} layers of width {model.dim}"
    moe = model.moe
    experts = "dense"
    if moe is not None:
        experts = f"{moe.experts_per_token():g} of {moe.num_experts} experts ({moe.routing_name})"
    length = f"{train.steps:,} steps of {train.batch_size} pictures"
    for line in found.data:
        print(printable(line))
    rows = {
        "run": f"{run.name}: {length} on {train.device}, {train.precision}",
        "model": f"{size}, {experts}",
        "parameters": f"{cost.parameters:,}; in the matrices of the blocks {cost.matrices:,}, {cost.activated:,} of "
        "them activated per token",
        "FLOPs per step": f"{cost.flops:.3g} (forward and backward)",
        "memory": f"about {cost.memory / 2**30:.1f} GiB",
        "time per step": _per_step(cost, train.batch_size),
        "time in all": f"about {_duration(cost.step_seconds * train.steps)}",
    }
    print()
    for name, text in rows.items():
        print(printable(f"{name:<16}{text}"))
    if found.missing:
        print("\nNot here yet:")
        for key, problem in found.missing.items():
            print(printable(f"  {key}: {problem}"))
    print("\nAll settings: `leandit config show`, or --json here")


def _per_step(cost: Cost, batch_size: int) -> str:
    seconds = f"{cost.step_seconds:.3g} s"
    if not cost.measured_on:
        return f"at least {seconds}: too large to be measured here, so this is the time at the peak of matrix products"
    return f"about {seconds} without data and optimiser, measured on {cost.measured_on} of {batch_size} pictures"


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:,.0f} days"
