"""The dense DiT: patches, initialisation, conditioning, precision and checkpointing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from initialisation import initialised
from pydantic import ValidationError
from torch import Tensor, nn

from leandit.models import Conditioning, DiT, DiTConfig, recompute_layers
from leandit.moe import MoEConfig


def config(**changes: Any) -> DiTConfig:
    small = {"dim": 24, "depth": 2, "heads": 2, "patch_size": 2, "input_size": 8, "channels": 3, "num_classes": 5}
    return DiTConfig(**{**small, **changes})


def perturbed(model: DiT, std: float = 0.15) -> DiT:
    """Without this the zero-initialised layers would hide whatever stands before them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return model


def batch(size: int = 3) -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, 3, 8, 8, generator=generator)
    return x, torch.rand(size, generator=generator), Conditioning(torch.arange(size) % 5)


def test_patches_are_cut_row_by_row_and_flattened_row_column_channel() -> None:
    model = config(channels=2, patch_size=2, input_size=6).build()
    x = torch.arange(2 * 2 * 6 * 6, dtype=torch.float32).view(2, 2, 6, 6)
    patches = model.patchify(x)
    assert patches.shape == (2, 9, 8)
    for b, row, column in np.ndindex(2, 3, 3):
        square = x[b, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected = [square[channel, i, j].item() for i in range(2) for j in range(2) for channel in range(2)]
        assert patches[b, 3 * row + column].tolist() == expected


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_unpatchify_is_the_inverse(patch_size: int) -> None:
    model = config(patch_size=patch_size).build()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(model.unpatchify(model.patchify(x)), x)


def test_a_fresh_model_predicts_zero_and_its_blocks_change_nothing() -> None:
    for moe in (None, MoEConfig(k=2, num_experts=4)):
        model = config(moe=moe).build()
        assert not model(*batch()).prediction.any()
        tokens, condition = torch.randn(2, 16, 24), torch.randn(2, 24)
        for layer in model.blocks:
            assert torch.equal(layer(model.blocks.shared, tokens, condition).image, tokens)


def test_a_block_takes_its_modulation_in_the_order_of_dits_checkpoints() -> None:
    """Shift, scale and gate of the attention, then those of the feed-forward."""
    model = perturbed(config().build())
    layer = next(iter(model.blocks))
    parts = layer.parts(model.blocks.shared)
    tokens, condition = torch.randn(2, 16, 24), torch.randn(2, 24)
    vectors = nn.functional.silu(condition) @ parts["adaln"].linear.weight.T + parts["adaln"].linear.bias
    shift1, scale1, gate1, shift2, scale2, gate2 = vectors[:, None].split(24, dim=-1)
    x = tokens + gate1 * parts["attention"](nn.functional.layer_norm(tokens, (24,), eps=1e-6) * (1 + scale1) + shift1)
    normed = nn.functional.layer_norm(x, (24,), eps=1e-6)
    expected = x + gate2 * parts["feed_forward"](normed * (1 + scale2) + shift2)
    torch.testing.assert_close(layer(model.blocks.shared, tokens, condition).image, expected, rtol=1e-4, atol=1e-5)


def test_one_step_away_from_zero_every_parameter_learns() -> None:
    model = perturbed(config(qk_norm=True).build())
    model(*batch(5)).prediction.square().sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_prediction_depends_on_time_label_and_position() -> None:
    model = perturbed(config().build())
    x, t, cond = batch()
    base = model(x, t, cond).prediction
    assert not torch.allclose(model(x, t + 0.3, cond).prediction, base, atol=1e-3)
    other = Conditioning((cond.label + 1) % 5) if cond.label is not None else cond
    assert not torch.allclose(model(x, t, other).prediction, base, atol=1e-3)
    # Without positions a transformer is blind to order: swapping the halves of x would swap those of the output.
    rolled = model(x.roll(4, dims=3), t, cond).prediction
    assert not torch.allclose(rolled.roll(4, dims=3), base, atol=1e-3)


def test_no_label_is_the_last_row_of_the_table() -> None:
    model = perturbed(config().build())
    x, t, cond = batch()
    null = model(x, t, cond.null()).prediction
    assert model.label_embedding is not None
    assert not torch.allclose(null, model(x, t, cond).prediction, atol=1e-3)
    with torch.no_grad():
        model.label_embedding.table.weight[:5] = 0.0
        torch.testing.assert_close(model(x, t, cond.null()).prediction, null)
        model.label_embedding.table.weight[5] = 0.0
        assert not torch.allclose(model(x, t, cond.null()).prediction, null, atol=1e-3)


def test_an_unconditional_model_has_no_table_and_takes_no_label() -> None:
    model = perturbed(config(num_classes=0).build())
    x, t, cond = batch()
    assert not any("label" in name for name, _ in model.named_parameters())
    assert torch.equal(model(x, t, Conditioning()).prediction, model(x, t, cond).prediction)


def test_conditioning_pairs_up_for_guidance() -> None:
    cond = Conditioning(torch.tensor([3, 1]))
    assert cond.null().label is not None
    assert cond.stack(cond.null()).label.tolist() == [3, 1, -1, -1]  # type: ignore[union-attr]
    assert Conditioning().stack(Conditioning()).label is None
    assert Conditioning().null().label is None


def test_learned_sigma_doubles_the_channels() -> None:
    model = perturbed(config(learned_sigma=True).build())
    assert model(*batch()).prediction.shape == (3, 6, 8, 8)
    assert model.unpatchify(torch.randn(1, 16, 24)).shape == (1, 6, 8, 8)


def test_frequency_shift_and_norm_eps_reach_the_layers() -> None:
    plain = perturbed(config().build())
    for changes in ({"timestep_freq_shift": 1.0}, {"norm_eps": 0.3}):
        other = perturbed(config(**changes).build())
        assert not torch.allclose(other(*batch()).prediction, plain(*batch()).prediction, atol=1e-4), changes


def test_attention_backends_agree() -> None:
    math, sdpa = (perturbed(config(attention_impl=impl).build()) for impl in ("math", "sdpa"))
    torch.testing.assert_close(math(*batch()).prediction, sdpa(*batch()).prediction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("moe", [None, MoEConfig(k=2, num_experts=4)], ids=["dense", "experts"])
def test_activation_checkpointing_gives_the_same_gradients_and_state(moe: MoEConfig | None) -> None:
    gradients: list[dict[str, Tensor | None]] = []
    for checkpointing in (False, True):
        model = perturbed(config(moe=moe).build())
        recompute_layers(model, checkpointing)
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        output = model(*batch())
        targets = sum(router.target.square().sum() for router in output.routers if router.target is not None)
        (output.prediction.square().sum() + targets).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        for name, buffer in model.named_buffers():
            assert torch.equal(buffer, before[name]), f"{name} moved in forward or backward"
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("moe", [None, MoEConfig(k=2, num_experts=4)], ids=["dense", "experts"])
def test_bf16_autocast_is_finite_and_close(moe: MoEConfig | None) -> None:
    model = perturbed(config(moe=moe).build(), std=0.08)
    exact = model(*batch()).prediction
    with torch.autocast("cpu", torch.bfloat16):
        output = model(*batch())
    output.prediction.float().square().sum().backward()
    assert output.prediction.isfinite().all()
    if moe is None:  # with experts a rounding error can choose another expert
        torch.testing.assert_close(output.prediction.float(), exact, rtol=0.1, atol=0.05 * exact.std().item() + 0.02)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "moe",
    [
        None,
        MoEConfig(k=2, num_experts=4, num_shared_experts=1, every=2),
        MoEConfig(strategy="bl_choice", k=1, num_experts=4),
    ],
    ids=["dense", "race", "per expert"],
)
def test_init_weights_sets_every_parameter_and_buffer(moe: MoEConfig | None) -> None:
    initialised(config(moe=moe, qk_norm=True))


def test_initial_scales() -> None:
    model = config(dim=192, heads=3, num_classes=100, moe=MoEConfig(k=2, num_experts=4)).build()
    qkv = next(iter(model.blocks)).attention.qkv.weight
    assert qkv.std().item() == pytest.approx((2 / (192 + 576)) ** 0.5, rel=0.05)  # Xavier
    assert model.time_embedding.first.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.label_embedding is not None
    assert model.label_embedding.table.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(p.any() for name, p in model.named_parameters() if "adaln" in name or name.endswith("bias"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "dim = 24 is not divisible by heads = 5"),
        ({"dim": 26}, "not divisible by 4"),
        ({"input_size": 9}, "input_size = 9 is not divisible by patch_size = 2"),
        ({"moe": MoEConfig(hidden_split=7)}, "hidden width 96 is not divisible by the hidden split 7"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_complete_fills_only_what_was_left_open() -> None:
    settings = config(channels=None, num_classes=None)
    completed = settings.complete(input_size=16, channels=1, num_classes=0)
    assert (completed.input_size, completed.channels, completed.num_classes) == (8, 1, 0)
    with pytest.raises(ValueError, match=r"see BackboneConfig.complete"):
        settings.build()


def test_experts_in_no_block_are_refused():
    with pytest.raises(ValueError, match=r"every = 3 leaves no block of 2 with experts"):
        DiTConfig(depth=2, moe=MoEConfig(every=3))
