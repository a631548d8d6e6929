"""Race-DiT: independence of samples in evaluation, gradients in training, placement of experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leandit.models import BackboneOutput, Conditioning, DiT, DiTConfig
from leandit.moe import STRATEGIES, MoEConfig, after_step, router_similarity, router_stats, routers


def build(**moe: Any) -> DiT:
    config = DiTConfig(
        dim=32,
        depth=3,
        heads=2,
        patch_size=2,
        input_size=8,
        channels=3,
        num_classes=5,
        moe=MoEConfig(**{"k": 2, "num_experts": 8, "threshold_momentum": 0.0, **moe}),
    )
    model = config.build()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.12, generator=generator)
    return model


def batch(size: int, seed: int = 1) -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(-1, 5, (size,), generator=generator)
    return torch.randn(size, 3, 8, 8, generator=generator), torch.rand(size, generator=generator), Conditioning(label)


def part(inputs: tuple[Tensor, Tensor, Conditioning], rows: list[int]) -> tuple[Tensor, Tensor, Conditioning]:
    x, t, cond = inputs
    assert cond.label is not None
    return x[rows], t[rows], Conditioning(cond.label[rows])


def with_thresholds(model: DiT) -> DiT:
    """With momentum 0, one step puts the thresholds at the cutoffs of a batch of other samples."""
    with torch.no_grad():
        outputs = model.train()(*batch(12, seed=9)).routers
        after_step(model, router_stats(outputs, len(outputs)))
    return model.eval()


@torch.no_grad()
def run(model: DiT, inputs: tuple[Tensor, Tensor, Conditioning]) -> BackboneOutput:
    output: BackboneOutput = model(*inputs)
    return output


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_evaluation_a_sample_does_not_depend_on_its_batch(strategy: str) -> None:
    model = with_thresholds(build(strategy=strategy))
    inputs = batch(17)
    together = run(model, inputs)
    share = sum(router.mask.sum().item() for router in together.routers) / (3 * 17 * 16)
    assert 1.0 < share < 3.5, "thresholds leave too few or too many pairs for the test to mean anything"
    assert together.prediction.std() > 0.1
    for rows in [[0], [5], [16], [3, 4], [8, 1, 2], [7, *range(9, 17)], list(range(16, -1, -1))]:
        alone = run(model, part(inputs, rows)).prediction
        torch.testing.assert_close(alone, together.prediction[rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize("strategy", ["bl_choice", "be_choice", "expert_race"])
def test_in_training_these_samples_do_compete(strategy: str) -> None:
    """The counterpart: were the pool not the batch, evaluation would need no threshold."""
    model = build(strategy=strategy)
    inputs = batch(6)
    assert not torch.allclose(run(model, part(inputs, [0])).prediction, run(model, inputs).prediction[:1], atol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_training_gradients_reach_every_parameter(strategy: str) -> None:
    model = build(strategy=strategy, num_shared_experts=1)
    x, t, _ = batch(12)
    output = model(x, t, Conditioning(torch.arange(12) % 6 - 1))
    loss = output.prediction.square().sum()
    for router in output.routers:
        assert router.target is not None
        assert router.mask.sum() == 12 * 16 * 2
        loss = loss + router.target.square().sum()
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_prediction_alone_trains_the_routers_but_not_the_target_heads() -> None:
    model = build()
    model(*batch(12)).prediction.square().sum().backward()
    for name, parameter in model.named_parameters():
        if ".gate_head." in name:
            assert parameter.grad is not None
            assert parameter.grad.any()
        if ".target_head." in name:
            assert parameter.grad is None


def test_the_similarity_loss_trains_the_routers() -> None:
    model = build()
    output = model(*batch(12))
    sum(router_similarity(router.logits, router.mask) for router in output.routers).backward()  # type: ignore[union-attr]
    heads = [p for name, p in model.named_parameters() if ".gate_head." in name]
    assert all(p.grad is not None and p.grad.any() for p in heads)


def test_target_heads_run_in_training_only() -> None:
    model = build()
    calls = []
    for name, module in model.named_modules():
        if name.endswith("target_head"):
            module.register_forward_hook(lambda *_: calls.append(1))
    assert all(
        router.target is not None and router.target.shape == (4, 16, 12) for router in run(model, batch(4)).routers
    )
    assert len(calls) == 3
    assert all(router.target is None for router in run(model.eval(), batch(4)).routers)
    assert len(calls) == 3


def test_the_target_has_the_channels_of_the_input_even_with_a_learned_variance() -> None:
    config = build().config.replace(learned_sigma=True)
    model = config.build()
    output = model(*batch(2))
    assert output.prediction.shape[1] == 6
    assert output.routers[0].target.shape == (2, 16, 12)


def test_experts_in_every_second_block() -> None:
    model = build(every=2)
    assert ["moe" in layer.names for layer in model.blocks] == [False, True, False]
    assert ["feed_forward" in layer.names for layer in model.blocks] == [True, False, True]
    output = run(model, batch(2))
    assert len(output.routers) == 1
    assert [name for name, _ in routers(model)] == ["blocks.1.moe.router"]


def test_routers_come_in_order_of_depth() -> None:
    model = build()
    scores: list[Tensor] = []
    for parts in (layer.parts(model.blocks.shared) for layer in model.blocks):
        parts["moe"].register_forward_hook(lambda _module, _inputs, output: scores.append(output[1].scores))
    for record, seen in zip(run(model, batch(2)).routers, scores, strict=True):
        assert record.scores is seen


def test_thresholds_follow_their_own_layer() -> None:
    model = build()
    outputs = run(model, batch(6)).routers
    after_step(model, router_stats(outputs, len(outputs)))
    for (_, router), output in zip(routers(model), outputs, strict=True):
        smallest = output.scores.flatten().sort(descending=True).values[6 * 16 * 2 - 1]
        assert router.threshold.value.item() == pytest.approx(smallest.item())


def test_state_dict_holds_thresholds_but_no_positions() -> None:
    names = build().state_dict().keys()
    assert "blocks.0.moe.router.threshold.value" in names
    assert "positions" not in names
