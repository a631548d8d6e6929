"""What MMDiT and DiT-Air have in common: text and its mask, independence of samples, gradients, sharing, precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from initialisation import initialised
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.models import Backbone, BackboneConfig, BackboneOutput, Conditioning, recompute_layers
from leandit.models.dit_air import DiTAirConfig
from leandit.models.mmdit import MMDiTConfig
from leandit.moe import STRATEGIES, MoEConfig, RouterStats, after_step, router_stats, routers
from leandit.nn import Sharing

BOTH = pytest.mark.parametrize("kind", [MMDiTConfig, DiTAirConfig])
SHARING = pytest.mark.parametrize("sharing", ["none", "adaln", "attention", "block"])
LENGTH = 6


def config(kind: type[BackboneConfig], **changes: Any) -> BackboneConfig:
    small = {"dim": 32, "depth": 3, "heads": 2, "patch_size": 2, "input_size": 8, "channels": 3, "num_classes": 0}
    return kind(**{**small, "text_dim": 10, "pooled_dim": 7, **changes})


def build(kind: type[BackboneConfig], std: float = 0.12, **changes: Any) -> Backbone:
    """Random weights everywhere: zero-initialised layers would hide whatever stands before them."""
    model = config(kind, **changes).build()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return model


def batch(size: int = 3, seed: int = 1) -> tuple[Tensor, Tensor, Conditioning]:
    """Samples whose texts have 1 to LENGTH tokens."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(size, LENGTH, 10, generator=generator)
    mask = torch.arange(LENGTH) <= torch.randint(LENGTH, (size, 1), generator=generator)
    pooled = torch.randn(size, 7, generator=generator)
    x, t = torch.randn(size, 3, 8, 8, generator=generator), torch.rand(size, generator=generator)
    return x, t, Conditioning(text=text, text_mask=mask, pooled=pooled)


def with_text(cond: Conditioning, text: Tensor, mask: Tensor | None) -> Conditioning:
    return Conditioning(text=text, text_mask=mask, pooled=cond.pooled)


@torch.no_grad()
def run(model: Backbone, x: Tensor, t: Tensor, cond: Conditioning) -> BackboneOutput:
    output: BackboneOutput = model(x, t, cond)
    return output


def statistics(model: Backbone, output: BackboneOutput) -> list[RouterStats]:
    return router_stats(output.routers, len(list(routers(model))))


def routing(**changes: Any) -> MoEConfig:
    return MoEConfig(**{"k": 2, "num_experts": 8, "threshold_momentum": 0.0, **changes})


@BOTH
@pytest.mark.parametrize("moe", [None, MoEConfig(k=2, num_experts=4)], ids=["dense", "experts"])
def test_a_fresh_model_predicts_zero_and_its_blocks_change_nothing(
    kind: type[BackboneConfig], moe: MoEConfig | None
) -> None:
    model = config(kind, moe=moe).build()
    assert not model(*batch()).prediction.any()
    text, image, condition = torch.randn(2, 5, 32), torch.randn(2, 16, 32), torch.randn(2, 32)
    modulation, more = model._modulation(condition), model._layer_state(model.grid)
    for layer in model.blocks:
        last = "feed_forward" not in layer.names
        after = layer(model.blocks.shared, text, image, modulation, None, *more, last)
        assert torch.equal(after.text, text)
        assert torch.equal(after.image, image)


@BOTH
def test_prediction_depends_on_time_text_pooled_text_and_position(kind: type[BackboneConfig]) -> None:
    model = build(kind)
    x, t, cond = batch()
    base = run(model, x, t, cond).prediction
    assert cond.text is not None
    assert cond.pooled is not None
    others = [
        run(model, x, t + 0.3, cond),
        run(model, x, t, with_text(cond, cond.text + 1.0, cond.text_mask)),
        run(model, x, t, Conditioning(text=cond.text, text_mask=cond.text_mask, pooled=cond.pooled + 1.0)),
    ]
    for other in others:
        assert not torch.allclose(other.prediction, base, atol=1e-3)
    # Without positions a transformer is blind to order: moving x by whole patches would move the output.
    rolled = run(model, x.roll(4, dims=3), t, cond).prediction
    assert not torch.allclose(rolled.roll(4, dims=3), base, atol=1e-3)


@BOTH
@pytest.mark.parametrize("recording", [True, False], ids=["training", "sampling"])
@pytest.mark.parametrize("moe", [None, routing(strategy="token_choice")], ids=["dense", "experts"])
def test_padded_text_is_neither_read_nor_attended_to(
    kind: type[BackboneConfig], recording: bool, moe: MoEConfig | None
) -> None:
    model = build(kind, moe=moe)
    x, t, cond = batch()
    assert cond.text is not None
    assert cond.text_mask is not None
    text, mask = cond.text, cond.text_mask
    padding = ~mask[..., None]
    variants = [
        with_text(cond, torch.where(padding, 100.0, text), mask),
        with_text(cond, torch.where(padding, torch.nan, text), mask),
        with_text(cond, torch.cat([text, torch.randn(3, 20, 10)], 1), torch.cat([mask, torch.zeros(3, 20).bool()], 1)),
    ]
    with torch.set_grad_enabled(recording):
        base = model(x, t, cond)
        for variant in variants:
            other = model(x, t, variant)
            torch.testing.assert_close(other.prediction, base.prediction, rtol=0, atol=1e-5)
            for one, two in zip(other.routers, base.routers, strict=True):
                assert torch.equal(one.mask, two.mask)
        read = with_text(cond, torch.where(padding, text, 100.0), mask)
        assert not torch.allclose(model(x, t, read).prediction, base.prediction, atol=1e-3)


@BOTH
def test_no_mask_is_a_mask_of_ones(kind: type[BackboneConfig]) -> None:
    model = build(kind)
    x, t, cond = batch()
    assert cond.text is not None
    ones = with_text(cond, cond.text, torch.ones(3, LENGTH, dtype=torch.bool))
    for recording in (True, False):
        with torch.set_grad_enabled(recording):
            pair = [model(x, t, given).prediction for given in (ones, with_text(cond, cond.text, None))]
        torch.testing.assert_close(*pair, rtol=0, atol=1e-5)


@BOTH
def test_experts_see_image_tokens_only(kind: type[BackboneConfig]) -> None:
    model = build(kind, moe=routing())
    output = model(*batch())
    assert len(output.routers) == 3
    for router in output.routers:
        assert router.logits.shape == (3, 16, 8)
        assert router.target is not None
        assert router.target.shape == (3, 16, 12)


@BOTH
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_evaluation_a_sample_does_not_depend_on_its_batch(kind: type[BackboneConfig], strategy: str) -> None:
    model = build(kind, moe=routing(strategy=strategy))
    with torch.no_grad():
        after_step(model, statistics(model, model.train()(*batch(12, seed=9))))
    model.eval()
    x, t, cond = batch(17)
    together = run(model, x, t, cond)
    share = sum(router.mask.sum().item() for router in together.routers) / (3 * 17 * 16)
    assert 1.0 < share < 3.5, "thresholds leave too few or too many pairs for the test to mean anything"
    assert together.prediction.std() > 0.1
    for rows in [[0], [5], [16], [3, 4], [8, 1, 2], [7, *range(9, 17)], list(range(16, -1, -1))]:
        part = cond.map(lambda value, rows=rows: value[rows])  # type: ignore[misc]
        alone = run(model, x[rows], t[rows], part).prediction
        torch.testing.assert_close(alone, together.prediction[rows], rtol=0, atol=1e-5)


@BOTH
@SHARING
@pytest.mark.parametrize("moe", [None, routing(), routing(every=2)], ids=["dense", "experts", "every second"])
def test_every_parameter_gets_a_gradient(kind: type[BackboneConfig], sharing: Sharing, moe: MoEConfig | None) -> None:
    model = build(kind, sharing=sharing, moe=moe)
    output = model(*batch(6))
    targets = sum(router.target.square().sum() for router in output.routers if router.target is not None)
    (output.prediction.square().sum() + targets).backward()
    dead = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    unread = set()
    if kind is MMDiTConfig:  # the last block's text, which nothing reads, where its weights are not others' too
        feed_forward = {f"text_feed_forward.{part}" for part in ("up.weight", "up.bias", "down.weight", "down.bias")}
        attention = {f"attention.text.{part}" for part in ("proj.weight", "proj.bias", "q_norm.weight")}
        unread = {"none": attention | feed_forward, "adaln": attention | feed_forward, "attention": feed_forward}.get(
            sharing, set()
        )
    assert dead == {f"blocks.2.{name}" for name in unread}


@BOTH
@SHARING
@pytest.mark.parametrize("moe", [None, routing(), routing(every=2)], ids=["dense", "experts", "every second"])
def test_every_weight_has_one_key(kind: type[BackboneConfig], sharing: Sharing, moe: MoEConfig | None) -> None:
    model = build(kind, sharing=sharing, moe=moe)
    state = model.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert set(state) >= {name for name, _ in model.named_parameters(remove_duplicate=False)}
    fresh = config(kind, sharing=sharing, moe=moe).build()
    fresh.load_state_dict(state)
    inputs = batch()
    assert torch.equal(run(fresh.eval(), *inputs).prediction, run(model.eval(), *inputs).prediction)


@BOTH
def test_a_shared_block_has_one_router_that_every_layer_uses(kind: type[BackboneConfig]) -> None:
    model = build(kind, sharing="block", moe=routing())
    assert len(list(routers(model))) == 1
    output = run(model, *batch())
    assert len(output.routers) == 3
    assert not torch.equal(output.routers[0].logits, output.routers[2].logits)
    cutoffs = [router.cutoff for router in output.routers if router.cutoff is not None]
    after_step(model, statistics(model, output))
    [(_, router)] = routers(model)
    torch.testing.assert_close(router.threshold.value, torch.stack(cutoffs).mean())


@BOTH
@pytest.mark.parametrize("moe", [None, routing()], ids=["dense", "experts"])
def test_activation_checkpointing_gives_the_same_gradients(kind: type[BackboneConfig], moe: MoEConfig | None) -> None:
    gradients: list[dict[str, Tensor | None]] = []
    for checkpointing in (False, True):
        model = build(kind, moe=moe, sharing="attention")
        recompute_layers(model, checkpointing)
        output = model(*batch())
        targets = sum(router.target.square().sum() for router in output.routers if router.target is not None)
        (output.prediction.square().sum() + targets).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@BOTH
@pytest.mark.parametrize("moe", [None, routing()], ids=["dense", "experts"])
def test_bf16_autocast_is_finite_and_close(kind: type[BackboneConfig], moe: MoEConfig | None) -> None:
    model = build(kind, std=0.08, moe=moe)
    x, t, cond = batch()
    exact = model(x, t, cond).prediction
    half = cond.map(lambda value: value.half() if value.is_floating_point() else value)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x, t, half)
    output.prediction.float().square().sum().backward()
    assert output.prediction.isfinite().all()
    if moe is None:  # with experts a rounding error can choose another expert
        torch.testing.assert_close(output.prediction.float(), exact, rtol=0.1, atol=0.05 * exact.std().item() + 0.02)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@BOTH
@pytest.mark.parametrize("moe", [None, routing(every=2)], ids=["dense", "experts"])
def test_init_weights_sets_every_parameter_and_buffer(kind: type[BackboneConfig], moe: MoEConfig | None) -> None:
    initialised(config(kind, moe=moe))


@BOTH
def test_missing_text_and_unknown_widths_are_refused(kind: type[BackboneConfig]) -> None:
    model = build(kind)
    x, t, cond = batch()
    for missing in (Conditioning(pooled=cond.pooled), Conditioning(text=cond.text, text_mask=cond.text_mask)):
        with pytest.raises(LeanDiTError, match="reads text"):
            model(x, t, missing)
    assert cond.text is not None
    assert cond.pooled is not None
    with pytest.raises(LeanDiTError, match="text features are 9 wide, the model was built for 10"):
        model(x, t, with_text(cond, cond.text[..., :9], cond.text_mask))
    with pytest.raises(LeanDiTError, match="pooled text vector is 6 wide, the model was built for 7"):
        model(x, t, Conditioning(text=cond.text, text_mask=cond.text_mask, pooled=cond.pooled[:, :6]))
    with pytest.raises(ValueError, match="text_dim and pooled_dim"):
        config(kind, text_dim=None).build()
