"""What is computed once or not at all, against forward passes that compute it in every layer as they first did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.models import (
    Backbone,
    BackboneConfig,
    Conditioning,
    DiTAirConfig,
    DiTConfig,
    MMDiTConfig,
    PixArtConfig,
    recompute_layers,
)
from leandit.nn import AdaLN
from leandit.nn.text_embedding import joint_mask

KINDS = {"dit": DiTConfig, "pixart": PixArtConfig, "mmdit": MMDiTConfig, "dit_air": DiTAirConfig}
SHARING = ["none", "adaln", "attention", "block"]
DEPTH = 3
every_model = pytest.mark.parametrize(("kind", "sharing"), [(k, s) for k in KINDS for s in SHARING])


def build(kind: str, sharing: str, **changes: Any) -> Backbone:
    sizes = {"dim": 32, "depth": DEPTH, "heads": 2, "input_size": 8, "channels": 3, "text_dim": 10, "pooled_dim": 7}
    config: BackboneConfig = KINDS[kind](**{**sizes, "num_classes": 4, "sharing": sharing, **changes})
    model = config.build()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.12, generator=generator)
    return model


def batch() -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(3, 3, 8, 8, generator=generator), torch.rand(3, generator=generator)
    text, pooled = torch.randn(3, 20, 10, generator=generator), torch.randn(3, 7, generator=generator)
    mask = torch.arange(20) < torch.tensor([[20], [3], [11]])
    return x, t, Conditioning(torch.tensor([0, 3, -1]), text, mask, pooled)


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return norm(x) * (1 + scale[:, None]) + shift[:, None]


def each_layers_own(model: Backbone, condition: Tensor) -> Iterator[tuple[Any, list[Tensor]]]:
    """The map from the condition to modulation vectors applied in each layer, shared or not."""
    for parts in (layer.parts(model.blocks.shared) for layer in model.blocks):
        linear = parts["adaln"].linear
        yield parts, list((F.silu(condition) @ linear.weight.T + linear.bias).split(32, dim=-1))


def one_stream(model: Any, x: Tensor, condition: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
    """DiT and PixArt-alpha."""
    for parts, vectors in each_layers_own(model, condition):
        if "table" in parts:
            vectors = [vector + row for vector, row in zip(vectors, parts["table"].table, strict=True)]
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors
        x = x + gate1[:, None] * parts["attention"](modulated(x, shift1, scale1))
        if text is not None:
            x = x + parts["cross_attention"](x, text, mask)
        x = x + gate2[:, None] * parts["feed_forward"](modulated(x, shift2, scale2))
    return x


def two_streams(model: Any, image: Tensor, condition: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
    """MMDiT and DiT-Air, whose last layer computes a text that nothing reads, to its end."""
    for parts, vectors in each_layers_own(model, condition):
        of_text, of_image = vectors[:6], vectors[6:]
        into_text, into_image = modulated(text, *of_text[:2]), modulated(image, *of_image[:2])
        if model.config.type == "mmdit":
            y_text, y_image = parts["attention"](into_text, into_image, mask)
            post, text_feed_forward = nn.Identity(), parts["text_feed_forward"]
        else:
            y = parts["attention"](torch.cat([into_text, into_image], 1), model.rotation(model.grid), mask)
            y_text, y_image = y[:, : text.shape[1]], y[:, text.shape[1] :]
            post, text_feed_forward = norm, parts["feed_forward"]
        text = text + of_text[2][:, None] * post(y_text)
        image = image + of_image[2][:, None] * post(y_image)
        text = text + of_text[5][:, None] * post(text_feed_forward(modulated(text, *of_text[3:5])))
        image = image + of_image[5][:, None] * post(parts["feed_forward"](modulated(image, *of_image[3:5])))
    return image


def first_way(model: Any, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    kind, text, mask = model.config.type, None, None
    image = model.patch_embedding(model.patchify(x)) + (0 if kind == "dit_air" else model.positions(model.grid))
    condition = model.time_embedding(t)
    if kind == "dit":
        condition = condition + model.label_embedding(cond.label)
        image = one_stream(model, image, condition, None, None)
    elif kind == "pixart":
        text, mask = model.text_projection(cond.text, cond.text_mask)
        image = one_stream(model, image, condition, text, mask)
    else:
        condition = condition + model.pooled_embedding(cond.pooled)
        text, mask = model.text_embedding(cond.text, cond.text_mask)
        image = two_streams(model, image, condition, text, joint_mask(mask, image.shape[1]))
    return model.unpatchify(model.final(image, condition))


@every_model
@pytest.mark.parametrize("recording", [True, False], ids=["training", "sampling"])
def test_outputs_are_those_of_computing_everything_in_every_layer(kind: str, sharing: str, recording: bool) -> None:
    model = build(kind, sharing)
    with torch.set_grad_enabled(recording):
        found, expected = model(*batch()).prediction, first_way(model, *batch())
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))


@every_model
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_computing_everything_in_every_layer(
    kind: str, sharing: str, checkpointing: bool
) -> None:
    gradients = []
    for way in ("found", "expected"):
        model = build(kind, sharing)
        recompute_layers(model, checkpointing)
        prediction = model(*batch()).prediction if way == "found" else first_way(model, *batch())
        prediction.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[1].items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(gradients[0][name], expected, rtol=0, atol=1e-4 * scale + 1e-7, msg=name)


@every_model
def test_modulation_is_computed_once_where_it_is_shared(kind: str, sharing: str) -> None:
    model = build(kind, sharing)
    recompute_layers(model)
    calls: list[str] = []
    for name, module in model.blocks.named_modules():
        if isinstance(module, AdaLN):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))  # type: ignore[misc]
    model(*batch()).prediction.sum().backward()
    # A single map is by definition the one that the layers of PixArt-alpha share.
    # A layer that is computed again computes its own map again.
    assert len(calls) == (2 * DEPTH if sharing == "none" and kind != "pixart" else 1)


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("kind", ["mmdit", "dit_air"])
def test_the_last_layer_projects_no_text(kind: str, sharing: str) -> None:
    model = build(kind, sharing)
    rows: list[int] = []
    for name, module in model.blocks.named_modules():
        if name.endswith(("attention.text.proj", "attention.proj")):
            module.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[1]))
    model(*batch())
    assert rows == ([20] * (DEPTH - 1) if kind == "mmdit" else [36] * (DEPTH - 1) + [16])
