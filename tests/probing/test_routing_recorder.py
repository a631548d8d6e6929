"""Every pair is recorded, counted here from the routers' own assignments; the model is left as it was found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from routed_models import CONFIGS, MOE, build, class_run, condition, noisy

from leandit.models import Backbone
from leandit.moe import STRATEGIES, RouterOutput
from leandit.probing import RoutingRecorder, build_report, draw_recorded
from leandit.probing.routing import join
from leandit.sampling import sample


def call(model: Backbone, batch: int, t: float = 0.5, seed: int = 0) -> Any:
    with torch.no_grad():
        return model(noisy(model.config, batch, seed), torch.full((batch,), t), condition(model.config, batch))


def assigned(output: RouterOutput, first: int, last: int) -> int:
    """Count the pairs of pictures first..last-1."""
    return int(output.mask[first:last].sum())


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_are_what_the_routers_returned(name: str) -> None:
    model = build(CONFIGS[name])
    with RoutingRecorder(model, 2) as recorder:
        outputs = [call(model, 2, 0.75, 1).routers, call(model, 2, 0.25, 2).routers]
    trace = recorder.trace()
    assert len(trace.layers) == len(outputs[0])
    for layer in range(len(trace.layers)):
        expected = torch.stack([routers[layer].mask for routers in outputs]).numpy()
        assert np.array_equal(trace.mask(layer), expected)
        assert np.array_equal(trace.counts[:, layer], expected.sum(-1))
        assert 0 < expected.mean() < 1
    assert trace.times.tolist() == [0.75, 0.25]
    assert trace.passes.tolist() == [1, 1]
    assert not trace.twin_pairs.any()
    assert trace.text_tokens.tolist() == [[5 if model.config.conditions_on_text else 0] * 2] * 2
    assert trace.norms.shape == (2, 2, 2, 2)


@pytest.mark.parametrize("name", CONFIGS)
def test_recording_changes_nothing_and_leaves_nothing_behind(name: str) -> None:
    model = build(CONFIGS[name])
    before, attributes = call(model, 2).prediction, set(vars(model))
    with RoutingRecorder(model, 2):
        during = call(model, 2).prediction
    assert torch.equal(before, during)
    assert torch.equal(before, call(model, 2).prediction)
    with pytest.raises(RuntimeError, match="boom"), RoutingRecorder(model, 2):
        raise RuntimeError("boom")
    assert set(vars(model)) == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_report_adds_up_to_the_pairs_that_were_given_out(strategy: str) -> None:
    run = class_run(strategy=strategy, num_experts=9)
    given, twins, per_layer = 0, 0, [0, 0]

    def count(module: Any, arguments: Any, output: Any) -> None:
        nonlocal given, twins
        half = len(arguments[0]) // 2
        for layer, routing in enumerate(output.routers):
            pairs = assigned(routing, 0, half)
            given, per_layer[layer] = given + pairs, per_layer[layer] + pairs
            twins += assigned(routing, half, 2 * half)

    handle = run.model.register_forward_hook(count)
    report = build_report(draw_recorded(run, [0, 1, 2], [0, 1, 2], batch_size=2))
    handle.remove()
    assert given > 0
    assert sum(np.array(moment).sum() for moment in report["position"]["maps"]) == given
    assert report["pairs"]["total"] == sum(report["pairs"]["per_picture"]) == given
    assert report["pairs"]["per_layer"] == per_layer
    assert report["pairs"]["of_twins"] == twins
    assert np.array(report["layer"]["load"]).sum(1).tolist() == per_layer
    assert np.array(report["timestep"]["load"]).sum() == given
    assert np.array(report["class"]["load"]).sum() == given


def test_pictures_are_those_that_sampling_draws() -> None:
    run = class_run()
    drawn = draw_recorded(run, [0, 1, 2], [4, 5, 6])
    assert drawn.pictures is not None
    assert torch.equal(drawn.pictures, sample(run, [0, 1, 2], [4, 5, 6]))
    assert drawn.names == ["ant", "bee", "<b>cat</b>"]


def test_batches_join_to_what_one_batch_records() -> None:
    run = class_run(strategy="expert_choice", guidance=1.0)
    one, parts = (draw_recorded(run, [0, 1, 2], [4, 5, 6], batch_size=size).trace for size in (3, 2))
    assert np.array_equal(one.packed, parts.packed)
    assert torch.equal(one.experts, parts.experts)
    assert np.allclose(one.norms, parts.norms, rtol=1e-4)
    assert np.array_equal(join([one]).packed, one.packed)


def test_norms_are_those_of_the_stream_and_of_what_a_block_adds() -> None:
    model = build(CONFIGS["dit"].replace(depth=1, moe=MOE))
    seen: list[torch.Tensor] = []
    model.final.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    with RoutingRecorder(model, 2) as recorder:
        call(model, 2)
    before = model.patch_embedding(model.patchify(noisy(model.config, 2))) + model.positions(model.grid)
    for picture in range(2):
        lengths = [
            [sum(value**2 for value in token) ** 0.5 for token in tokens.tolist()]
            for tokens in (seen[0][picture], seen[0][picture] - before[picture])
        ]
        expected = [sum(each) / len(each) for each in lengths]
        assert recorder.trace().norms[0, 0, picture].tolist() == pytest.approx(expected, rel=1e-4)
