"""Token masking: layers see visible tokens alone, the decoder against a picture-by-picture reference, and its size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from initialisation import initialised
from pydantic import ValidationError
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.models import (
    BackboneOutput,
    Conditioning,
    MaskingConfig,
    PixArt,
    PixArtConfig,
    count_parameters,
    recompute_layers,
)
from leandit.models.masking import MaskDecoder
from leandit.moe import MoEConfig, router_stats
from leandit.random import Stream, subsets

FORMS: dict[str, dict[str, Any]] = {
    "pixart": {},
    "ec-dit": {"adaln": "per_layer", "kv_heads": 2, "project_text": False, "time_dim": None},
}
EXPERT_CHOICE = MoEConfig(
    **{"strategy": "expert_choice", "gate": "softmax", "k": 2, "num_experts": 4, "hidden_split": 1, "every": 2},
    **{"router": "linear", "per_layer_regularisation": False, "group_tokens": 16},
)
by_form = pytest.mark.parametrize("form", FORMS)
by_moe = pytest.mark.parametrize(
    "moe", [None, EXPERT_CHOICE, MoEConfig(k=2, num_experts=4)], ids=["dense", "ec", "race"]
)
Inputs = tuple[Tensor, Tensor, Conditioning]


def config(form: str = "ec-dit", **changes: Any) -> PixArtConfig:
    small: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 4, "patch_size": 2, "channels": 3, "num_classes": 0}
    small["input_size"] = (4, 16)
    masking = MaskingConfig(decoder_depth=2, decoder_dim=16, decoder_heads=2)
    return PixArtConfig(**{**small, "text_dim": 20, "pooled_dim": 8, "masking": masking, **FORMS[form], **changes})


def perturbed(model: PixArt, std: float = 0.12) -> PixArt:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return model


def batch(size: int = 4) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(size, 3, 4, 16, generator=generator), torch.rand(size, generator=generator)
    return x, t, Conditioning(text=torch.randn(size, 5, 20, generator=generator))


def kept(size: int = 4, count: int = 8) -> Tensor:
    return torch.from_numpy(subsets(0, Stream.MASK, range(size), 16, count))


def run(model: PixArt, inputs: Inputs, visible: Tensor | None) -> BackboneOutput:
    with torch.no_grad():
        return model(*inputs, visible)


def change(x: Tensor, visible: Tensor, of_visible: bool) -> Tensor:
    """Other pixels in the patches that are (not) visible; patches of 2 x 2 in row-major order."""
    other = x.clone()
    for picture in range(len(x)):
        for token in range(16):
            if (token in visible[picture].tolist()) == of_visible:
                row, column = 2 * (token // 8), 2 * (token % 8)
                other[picture, :, row : row + 2, column : column + 2] += 5.0
    return other


@by_form
@by_moe
def test_what_is_hidden_reaches_no_prediction(form: str, moe: MoEConfig | None) -> None:
    model = perturbed(config(form, moe=moe).build())
    x, t, cond = batch()
    visible = kept()
    base = run(model, (x, t, cond), visible)
    assert base.visible is visible
    assert base.prediction.shape == x.shape
    hidden_changed = run(model, (change(x, visible, of_visible=False), t, cond), visible)
    assert torch.equal(hidden_changed.prediction, base.prediction)
    visible_changed = run(model, (change(x, visible, of_visible=True), t, cond), visible)
    assert not torch.allclose(visible_changed.prediction, base.prediction, atol=1e-3)
    whole = run(model, (x, t, cond), None)
    assert whole.visible is None
    assert not torch.allclose(whole.prediction, base.prediction, atol=1e-3)
    assert not torch.allclose(run(model, (x, t, cond), kept(8)[4:]).prediction, base.prediction, atol=1e-3)


@by_form
@by_moe
def test_all_tokens_visible_is_the_unmasked_pass(form: str, moe: MoEConfig | None) -> None:
    model = perturbed(config(form, moe=moe).build())
    every = torch.arange(16).expand(4, 16)
    assert torch.equal(run(model, batch(), every).prediction, run(model, batch(), None).prediction)


def test_a_pictures_visible_tokens_are_its_own() -> None:
    """Each picture alone, under its own mask, comes out as in company."""
    model = perturbed(config().build()).eval()
    x, t, cond = batch()
    visible = kept()
    together = run(model, (x, t, cond), visible).prediction
    for row in range(4):
        part = slice(row, row + 1)
        alone = run(model, (x[part], t[part], cond.map(lambda v, part=part: v[part])), visible[part]).prediction
        torch.testing.assert_close(alone, together[part], rtol=0, atol=1e-5)


@by_moe
def test_the_layers_run_on_visible_tokens_at_their_own_positions(moe: MoEConfig | None) -> None:
    """What the first layer gets is each visible patch, embedded, plus the position of that patch."""
    model = perturbed(config(moe=moe).build())
    seen: list[Tensor] = []
    for layer in model.blocks:
        layer.register_forward_pre_hook(lambda _layer, given: seen.append(given[1]))
    x, t, cond = batch()
    visible = kept(count=5)
    routers = run(model, (x, t, cond), visible).routers
    assert [tokens.shape for tokens in seen] == [(4, 5, 32)] * 2
    assert all(router.mask.shape[:2] == (4, 5) for router in routers)
    for picture in range(4):
        for place, token in enumerate(visible[picture].tolist()):
            row, column = 2 * (token // 8), 2 * (token % 8)
            patch = x[picture, :, row : row + 2, column : column + 2].permute(1, 2, 0).flatten()
            expected = model.patch_embedding(patch) + model.positions(model.grid)[token]
            torch.testing.assert_close(seen[0][picture, place], expected, rtol=1e-5, atol=1e-6)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def naive_decoder(decoder: MaskDecoder, x: Tensor, condition: Tensor, visible: list[int], heads: int) -> Tensor:
    """One picture: a list of tokens, some of them the mask token, through DiT blocks written out head by head."""
    weights = dict(decoder.named_parameters())

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    positions = decoder.positions(decoder.config.grid)
    count, width = positions.shape
    tokens = [x[visible.index(i)] if i in visible else weights["mask_token"] for i in range(count)]
    y = torch.stack([token + positions[i] for i, token in enumerate(tokens)])
    silu = condition / (1 + torch.exp(-condition))
    for block in range(len(decoder.blocks)):
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(f"blocks.{block}.adaln.linear", silu).view(6, width)
        q, k, v = linear(f"blocks.{block}.attention.qkv", norm(y) * (1 + scale1) + shift1).view(count, 3, -1).unbind(1)
        size = width // heads
        parts = []
        for head in range(heads):
            of_head = slice(head * size, (head + 1) * size)
            scores = q[:, of_head] @ k[:, of_head].T / math.sqrt(size)
            parts.append(torch.softmax(scores, dim=-1) @ v[:, of_head])
        y = y + gate1 * linear(f"blocks.{block}.attention.proj", torch.cat(parts, dim=1))
        hidden = gelu(linear(f"blocks.{block}.feed_forward.up", norm(y) * (1 + scale2) + shift2))
        y = y + gate2 * linear(f"blocks.{block}.feed_forward.down", hidden)
    shift, scale = linear("final.adaln.linear", silu).view(2, width)
    return linear("final.linear", norm(y) * (1 + scale) + shift)


@pytest.mark.parametrize("count", [1, 5, 16])
def test_the_decoder_equals_one_written_out(count: int) -> None:
    """Forward and every gradient, in double precision."""
    model = perturbed(config().build(), 0.3).double()
    decoder = model.decoder
    assert decoder is not None
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, count, 16, dtype=torch.float64, generator=generator).requires_grad_()
    condition = torch.randn(3, 32, dtype=torch.float64, generator=generator).requires_grad_()
    visible = kept(3, count)
    found = decoder(x, condition, visible, decoder.config.grid)
    expected = torch.stack([naive_decoder(decoder, x[i], condition[i], visible[i].tolist(), 2) for i in range(3)])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    if count == 16:
        torch.testing.assert_close(decoder(x, condition, None, decoder.config.grid), expected, rtol=1e-9, atol=1e-11)
    cotangent = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    of = [x, condition, *(p for name, p in decoder.named_parameters() if count < 16 or name != "mask_token")]
    for one, other in zip(
        torch.autograd.grad(found, of, cotangent), torch.autograd.grad(expected, of, cotangent), strict=True
    ):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@by_form
def test_a_fresh_model_predicts_zero_and_learns_under_masks(form: str) -> None:
    torch.manual_seed(0)
    model = config(form, moe=EXPERT_CHOICE).build()
    x, t, cond = batch()
    assert not run(model, (x, t, cond), kept()).prediction.any()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = (model(x, t, cond, kept()).prediction - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@by_form
@by_moe
@pytest.mark.parametrize("sharing", ["none", "block"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "whole"])
def test_gradients_reach_every_parameter(form: str, moe: MoEConfig | None, sharing: str, masked: bool) -> None:
    """Without hidden tokens all but the mask token."""
    model = perturbed(config(form, moe=moe, sharing=sharing, qk_norm=True).build())
    output = model(*batch(8), kept(8) if masked else None)
    targets = sum(router.target.square().sum() for router in output.routers if router.target is not None)
    (output.prediction.square().sum() + targets).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == ([] if masked else ["decoder.mask_token"])


@by_form
def test_activation_checkpointing_gives_the_same_gradients(form: str) -> None:
    gradients: list[dict[str, Tensor | None]] = []
    for checkpointing in (False, True):
        model = perturbed(config(form, moe=EXPERT_CHOICE).build())
        recompute_layers(model, checkpointing)
        model(*batch(), kept()).prediction.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@by_form
def test_activation_checkpointing_keeps_less_of_the_decoder(form: str) -> None:
    model = perturbed(config(form).build()).train()
    sizes = []
    for checkpointing in (False, True):
        recompute_layers(model, checkpointing)
        stored: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda v, s=stored: (s.append(v.numel()), v)[1], lambda v: v):
            decoder = model.decoder
            assert decoder is not None
            decoder(torch.randn(4, 8, 16), torch.randn(4, 32), kept(), decoder.config.grid)
        sizes.append(sum(stored))
    assert sizes[1] < 0.5 * sizes[0]


@by_form
def test_bf16_autocast_is_finite_and_close(form: str) -> None:
    model = perturbed(config(form).build(), std=0.08)
    exact = model(*batch(), kept()).prediction
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(*batch(), kept()).prediction
    prediction.float().square().sum().backward()
    torch.testing.assert_close(prediction.float(), exact, rtol=0.1, atol=0.05 * exact.std().item() + 0.02)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@by_form
def test_init_weights_sets_every_parameter_and_buffer(form: str) -> None:
    model, fresh = initialised(config(form, qk_norm=True, position_grid=2))
    assert model.state_dict().keys() == fresh.state_dict().keys()
    assert not any("positions" in name for name in fresh.state_dict())


def test_groups_span_masked_pictures() -> None:
    """EC-DiT: 1,024 tokens are 8 pictures of 256 tokens with half of them hidden; each expert keeps 1024 * 2 / E."""
    moe = EXPERT_CHOICE.replace(num_experts=8, group_tokens=1024)
    model = perturbed(config(moe=moe, input_size=32).build())
    x, t, cond = torch.randn(16, 3, 32, 32), torch.rand(16), batch(16)[2]
    visible = torch.from_numpy(subsets(0, Stream.MASK, range(16), 256, 128))
    (router,) = run(model, (x, t, cond), visible).routers
    loads = router.mask.reshape(2, 1024, 8).sum(1)
    assert torch.equal(loads, torch.full((2, 8), 256))
    assert router.mask.reshape(16, 128, 8).sum(1).unique().numel() > 1, "experts never chose across pictures"
    assert torch.equal(router_stats((router,), 1)[0].load.long(), torch.full((8,), 512))


# Width of EC-DiT's sizes, and the decoder's share in its totals to the million.
SIZES = {"XL": (1152, 54), "XXL": (1536, 63), "3XL": (2304, 82), "M": (3072, 101)}


@pytest.mark.parametrize("size", SIZES)
def test_the_decoders_blocks_have_the_derived_size(size: str) -> None:
    """8 blocks of 512: 12 * 512² for attention and feed-forward, 6 * 512 d for the modulation: 25M + 24.6k d."""
    dim, millions = SIZES[size]
    settings = config(dim=dim, heads=dim // 64, kv_heads=6, input_size=32, channels=8, masking=MaskingConfig())
    with torch.device("meta"):
        model = settings.build()
    assert model.decoder is not None
    blocks = sum(p.numel() for p in model.decoder.blocks.parameters() if p.ndim == 2)
    assert blocks == 8 * 12 * 512**2 + 8 * 6 * 512 * dim
    assert blocks == pytest.approx(25.2e6 + 24.6e3 * dim, rel=2e-3)
    assert blocks / 1e6 == pytest.approx(millions, abs=0.6)
    with_decoder, without = count_parameters(settings), count_parameters(settings.replace(masking=None))
    assert (with_decoder.total, with_decoder.activated) == (without.total, without.activated)
    # Beside the blocks: d to 512 in place of d to 32 patch values, modulation of the last layer, 512 to 32.
    assert with_decoder.embedders - without.embedders == blocks + (512 - 32) * dim + 2 * 512 * dim + 512 * 32


def test_without_a_decoder_nothing_can_be_hidden() -> None:
    model = config(masking=None).build()
    with pytest.raises(LeanDiTError, match=r"only from a model with a decoder: set model\.masking"):
        model(*batch(), kept())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_dim": 20, "decoder_heads": 3}, "decoder_dim = 20 is not divisible by decoder_heads = 3"),
        ({"decoder_dim": 18, "decoder_heads": 2}, "decoder_dim = 18 is not divisible by 4"),
        ({"decoder_depth": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_decoders_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MaskingConfig(**changes)
