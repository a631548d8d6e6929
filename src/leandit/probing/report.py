"""All numbers of a routing report, as one tree of numbers and texts: report.json and the data of the page."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from leandit.moe import MoELayer, combination_usage, max_violation
from leandit.probing import allocation, balance
from leandit.probing.draw import Drawn
from leandit.probing.routing import RoutingTrace
from leandit.run import SamplingConfig
from leandit.sampling import LoadedRun, class_name

# Axes along which the numbers can be split.
AXES = ("layer", "timestep", "class", "position", "caption")
# Largest number of entries in the maps of a report. In longer samplings, calls at neighbouring times are summed.
_MAP_ENTRIES = 1_000_000
_MOST_MOMENTS = 100
_FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_MOST_WORDS = 60


def build_report(drawn: Drawn, by: Collection[str] = AXES) -> dict[str, Any]:
    """Return the report in JSON's types. Counts are exact integers; other numbers have six digits.

    `position.maps[moment][layer][picture][token]` is the number of experts per token, summed over the calls of a
    moment. The sum of all entries is `pairs.total`, the pairs of these pictures. Axes that are not in `by` are absent.
    """
    trace = drawn.trace
    calls = allocation.moments(trace.times.double().numpy(), _num_moments(trace))
    report: dict[str, Any] = {
        "format": 1,
        "run": _about(drawn),
        "pictures": [{"name": name, "seed": seed} for name, seed in zip(drawn.names, drawn.seeds, strict=True)],
        "layers": list(trace.layers),
        "moments": [{"t": trace.times[part].mean(), "calls": len(part)} for part in calls],
        "pairs": _pairs(trace),
    }
    if "position" in by:
        report["position"] = {"maps": allocation.moment_sums(trace.counts, calls)}
    if "layer" in by:
        report["layer"] = _by_layer(drawn)
    if "timestep" in by:
        report["timestep"] = _by_timestep(drawn, calls)
    if "class" in by and drawn.wanted is not None and drawn.run.text is None:
        report["class"] = _groups(trace, _places(drawn.names))
    if "caption" in by and drawn.wanted is not None and drawn.run.text is not None:
        report["caption"] = _by_caption(trace, [str(choice) for choice in drawn.wanted])
    return rounded(report)


def _num_moments(trace: RoutingTrace) -> int:
    _, layers, batch, tokens = trace.experts.shape
    return min(max(_MAP_ENTRIES // (layers * batch * tokens), 8), _MOST_MOMENTS)


def about(run: LoadedRun, settings: SamplingConfig) -> dict[str, Any]:
    """Return the part of a report about its run that does not depend on experts."""
    config = run.config
    return {
        "name": config.name,
        "folder": run.path.name,
        "step": run.step,
        "model": config.model.type,
        "depth": config.model.depth,
        "sharing": config.model.sharing,
        "sampler": settings.sampler.type,
        "steps": settings.sampler.steps,
        "guidance": settings.guidance.scale,
    }


def _about(drawn: Drawn) -> dict[str, Any]:
    config = drawn.run.config
    moe = config.model.moe
    assert moe is not None
    return {
        **about(drawn.run, drawn.settings),
        "grid": drawn.trace.grid.plain,
        "strategy": moe.routing_name,
        "k": moe.experts_per_token(training=False),
        "num_experts": moe.num_experts,
        "per_layer_regularisation": config.losses.per_layer_regularisation if moe.has_target_head else 0.0,
    }


def _pairs(trace: RoutingTrace) -> dict[str, Any]:
    """Return the pairs of the pictures, and separately those of their twins under guidance."""
    counts = trace.counts
    return {
        "total": counts.sum(),
        "per_layer": counts.sum((0, 2, 3)),
        "per_picture": counts.sum((0, 1, 3)),
        "of_twins": trace.twin_pairs.sum(),
        "experts_per_token": counts.mean(),
    }


def _masks(trace: RoutingTrace) -> Iterator[np.ndarray]:
    """Yield the pairs layer by layer, because all layers together may not fit into memory."""
    return (trace.mask(layer) for layer in range(len(trace.layers)))


def _by_layer(drawn: Drawn) -> dict[str, Any]:
    trace = drawn.trace
    together = [balance.co_selection(mask) for mask in _masks(trace)]
    tensors = [torch.from_numpy(matrix.astype(np.float64)) for matrix in together]
    counts = trace.counts
    norms = trace.norms.mean((0, 2))
    return {
        "load": [matrix.diagonal() for matrix in together],
        "max_violation": [max_violation(matrix.diagonal()) for matrix in tensors],
        "combination_usage": [combination_usage(matrix) for matrix in tensors],
        "combination_curve": [balance.combination_curve(matrix) for matrix in together],
        "co_selection": together,
        "similarity": _similarity(drawn.run.model, len(together)),
        "top_shares": {"fractions": _FRACTIONS, "shares": allocation.top_shares(counts, _FRACTIONS)},
        "largest_share_of_experts": allocation.largest_share(counts, trace.num_experts),
        "block_norms": {"stream": norms[:, 0], "added": norms[:, 1]},
    }


def _by_timestep(drawn: Drawn, calls: list[list[int]]) -> dict[str, Any]:
    trace, steps = drawn.trace, drawn.settings.sampler.steps
    spent = allocation.spent_flops(drawn.run.config.model, trace)
    budget = allocation.budget_flops(drawn.run.config.model, trace)
    per_call = np.stack([mask.sum((1, 2), dtype=np.int64) for mask in _masks(trace)], 1)
    return {
        "experts_per_token": [trace.counts[part].mean((0, 2, 3)) for part in calls],
        "load": allocation.moment_sums(per_call, calls),
        "flops": {
            "per_picture": spent.sum(0),
            "per_picture_and_step": spent.sum(0).mean() / steps,
            "per_picture_and_step_at_budget": budget.sum(0).mean() / steps,
            "per_call": [spent[part].mean() for part in calls],
            "per_call_at_budget": [budget[part].mean() for part in calls],
        },
    }


def _by_caption(trace: RoutingTrace, prompts: list[str]) -> dict[str, Any]:
    words = dict(list(balance.words_of(prompts).items())[:_MOST_WORDS])
    whole = _groups(trace, _places(prompts))
    # Shorten after grouping, because long prompts may begin with the same text.
    whole["names"] = [class_name(name, ()) for name in whole["names"]]
    return {"prompts": whole, "words": _groups(trace, words)}


def _groups(trace: RoutingTrace, places: dict[str, list[int]]) -> dict[str, Any]:
    """Return loads [group][layer][expert], and the lift: a group's use of an expert relative to all pictures."""
    everybody = list(range(trace.experts.shape[2]))
    loads = [balance.grouped_load(mask, [*places.values(), everybody]) for mask in _masks(trace)]
    lifts = [balance.lift(load[:-1], load[-1]) for load in loads]
    return {
        "names": list(places),
        "pictures": [len(group) for group in places.values()],
        "load": np.stack(loads, 1)[:-1],
        "lift": np.stack(lifts, 1),
    }


def _places(names: list[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return places


def _similarity(model: nn.Module, num_layers: int) -> dict[str, Any]:
    """Return cosines between experts for each layer: between their rows in the router, and between all their weights.

    Similar rows mean that two experts select the same tokens. Weights are comparable only if the experts started from
    the same weights: the same function with permuted hidden units has a cosine near 0.
    """
    layers = [module for module in model.modules() if isinstance(module, MoELayer)]
    layers = layers * num_layers if len(layers) == 1 else layers
    rows = [layer.router.gate_head.weight.detach().float().cpu().numpy() for layer in layers]
    weights = [
        np.concatenate([w.detach().float().flatten(1).cpu().numpy() for w in (layer.experts.w1, layer.experts.w2)], 1)
        for layer in layers
    ]
    return {"router": [balance.cosines(r) for r in rows], "weights": [balance.cosines(w) for w in weights]}


def rounded(value: Any) -> Any:
    """Return JSON's types: exact integers, other numbers with six digits, None for a number that is not finite."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    array = np.asarray(value)
    if array.dtype.kind in "iu":
        return array.tolist()
    if array.ndim:
        return [rounded(entry) for entry in array]
    return float(f"{float(array):.6g}") if np.isfinite(array) else None
