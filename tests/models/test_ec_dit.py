"""EC-DiT: its layer against the paper's Algorithm 1 with groups, its place in the blocks, its sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.models import Conditioning, PixArt, PixArtConfig
from leandit.moe import MoEConfig, MoELayer

EXPERTS: dict[str, Any] = {
    **{"strategy": "expert_choice", "gate": "softmax", "k": 2, "hidden_split": 1, "every": 2},
    **{"router": "linear", "per_layer_regularisation": False},
}


def experts(num_experts: int, **changes: Any) -> MoEConfig:
    return MoEConfig(**{**EXPERTS, "num_experts": num_experts, **changes})


def config(moe: MoEConfig | None, **changes: Any) -> PixArtConfig:
    form = {"adaln": "per_layer", "project_text": False, "time_dim": None, "num_classes": 0, "pooled_dim": 8}
    small = {"dim": 32, "depth": 4, "heads": 4, "kv_heads": 2, "input_size": 8, "channels": 3, "text_dim": 20}
    return PixArtConfig(**{**form, **small, "moe": moe, **changes})


def perturbed(model: nn.Module, std: float) -> Any:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return model


def algorithm_1(x: Tensor, weights: dict[str, Tensor], capacity_factor: int, group_tokens: int) -> Tensor:
    """Algorithm 1 over groups, with dispatch and combine tensors (G groups, S tokens, E experts, C capacity)."""
    x_GSD = x.reshape(-1, group_tokens, x.shape[-1])
    num_experts = weights["router.gate_head.weight"].shape[0]
    capacity = group_tokens * capacity_factor // num_experts
    affinity_GSE = torch.softmax(torch.einsum("gsd,ed->gse", x_GSD, weights["router.gate_head.weight"]), dim=-1)
    gating_GEC, index_GEC = affinity_GSE.transpose(1, 2).topk(capacity, dim=-1)
    dispatch_GECS = F.one_hot(index_GEC, group_tokens).to(x)
    combine_GECS = gating_GEC[..., None] * dispatch_GECS
    inputs_GECD = torch.einsum("gecs,gsd->gecd", dispatch_GECS, x_GSD)
    hidden = torch.einsum("gecd,edf->gecf", inputs_GECD, weights["experts.w1"]) + weights["experts.b1"][:, None]
    hidden = F.gelu(hidden, approximate="tanh")
    outputs_GECD = torch.einsum("gecf,efd->gecd", hidden, weights["experts.w2"]) + weights["experts.b2"][:, None]
    return torch.einsum("gecs,gecd->gsd", combine_GECS, outputs_GECD).reshape(x.shape)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("batch", "tokens", "num_experts", "group_tokens"),
    [(8, 16, 4, 32), (4, 16, 8, 64), (6, 8, 2, 8), (2, 32, 16, 16), (4, 6, 3, 12), (3, 4, 2, 6), (2, 8, 8, 16)],
)
def test_the_layer_equals_algorithm_1(
    batch: int, tokens: int, num_experts: int, group_tokens: int, training: bool
) -> None:
    """Forward and every gradient, in double precision."""
    groups = {"group_tokens" if training else "inference_group_tokens": group_tokens}
    layer: MoELayer = perturbed(MoELayer(experts(num_experts, **groups), 12, 48, 12), 0.4).double().train(training)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, tokens, 12, dtype=torch.float64, generator=generator).requires_grad_()
    weights = dict(layer.named_parameters())
    assert weights.keys() == {"router.gate_head.weight", *(f"experts.{name}" for name in ("w1", "b1", "w2", "b2"))}
    y, routing = layer(x)
    expected = algorithm_1(x, weights, 2, group_tokens)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)
    assert routing.mask.sum() == batch * tokens * 2
    cotangent = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    wanted = torch.autograd.grad(expected, [x, *weights.values()], cotangent)
    found = torch.autograd.grad(y, [x, *weights.values()], cotangent)
    for name, one, other in zip(["x", *weights], found, wanted, strict=True):
        assert other.any(), name
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11, msg=name)


def batch(size: int) -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(size, 3, 8, 8, generator=generator), torch.rand(size, generator=generator)
    mask = torch.arange(6)[None] < torch.randint(1, 7, (size, 1), generator=generator)
    return x, t, Conditioning(text=torch.randn(size, 6, 20, generator=generator), text_mask=mask)


def test_every_even_block_has_experts() -> None:
    model = config(experts(4)).build()
    assert ["moe" in layer.names for layer in model.blocks] == [False, True, False, True]


# What the router of a layer sees of x', by `moe.router_input` and `router_norm`.
SEEN = {("modulated", True): "modulated", ("plain", True): "norm", ("plain", False): "as it is"}


@pytest.mark.parametrize("vectors", [3, 4, 6])
@pytest.mark.parametrize(("router_input", "router_norm"), SEEN)
@pytest.mark.parametrize("cross_kv_heads", [None, 4])
@pytest.mark.parametrize("sparse", [True, False], ids=["experts", "dense"])
def test_a_layer_by_its_formula(
    vectors: int, router_input: str, router_norm: bool, cross_kv_heads: int | None, sparse: bool
) -> None:
    """x' = x + gate attention + cross-attention (eq. 4); without a vector, shift = scale = 0 and gate = 1."""
    form = {"adaln_vectors": vectors, "router_norm": router_norm, "cross_kv_heads": cross_kv_heads}
    model: PixArt = perturbed(config(experts(4, router_input=router_input), **form).build(), 0.3)
    layer = list(model.blocks)[1 if sparse else 0]
    parts = layer.parts(model.blocks.shared)
    assert parts["cross_attention"].kv.weight.shape[0] == 2 * 8 * (cross_kv_heads or 2)  # type: ignore[index, union-attr]
    condition, text = torch.randn(2, 32), torch.randn(2, 5, 20)
    adaln = parts["adaln"].linear
    given = F.linear(F.silu(condition), adaln.weight, adaln.bias).view(2, vectors, 1, 32)  # type: ignore[arg-type]
    names = {
        3: ("shift1", "scale1", "gate1"),
        4: ("shift1", "scale1", "shift2", "scale2"),
        6: ("shift1", "scale1", "gate1", "shift2", "scale2", "gate2"),
    }[vectors]
    missing = {"shift2": torch.zeros(()), "scale2": torch.zeros(()), "gate1": torch.ones(()), "gate2": torch.ones(())}
    v = {**missing, **dict(zip(names, given.unbind(1), strict=True))}
    x = torch.randn(2, 16, 32)
    y = x + v["gate1"] * parts["attention"](F.layer_norm(x, (32,), eps=1e-6) * (1 + v["scale1"]) + v["shift1"])
    y = y + parts["cross_attention"](y, text)
    norm = F.layer_norm(y, (32,), eps=1e-6)
    computed = norm * (1 + v["scale2"]) + v["shift2"]
    output = layer(model.blocks.shared, x, condition, text, None)
    if sparse:
        seen = {"modulated": computed, "norm": norm, "as it is": y}[SEEN[router_input, router_norm]]
        affinity = F.linear(seen, model.get_parameter("blocks.1.moe.router.gate_head.weight")).softmax(-1)
        torch.testing.assert_close(output.routing.scores, affinity, rtol=1e-4, atol=1e-5)
        weight = output.routing.mask * affinity
        w1, b1, w2, b2 = (model.get_parameter(f"blocks.1.moe.experts.{name}") for name in ("w1", "b1", "w2", "b2"))
        hidden = F.gelu(torch.einsum("bld,edf->blef", computed, w1) + b1, approximate="tanh")
        added = torch.einsum("ble,bled->bld", weight, torch.einsum("blef,efd->bled", hidden, w2) + b2)
    else:
        assert output.routing is None
        added = parts["feed_forward"](computed)
    torch.testing.assert_close(output.image, y + v["gate2"] * added, rtol=1e-3, atol=1e-3)


def test_a_token_that_no_expert_chooses_keeps_what_it_was() -> None:
    model: PixArt = perturbed(config(experts(4, k=1)).build(), 0.3)
    inputs = torch.randn(2, 16, 32)
    y, routing = list(model.blocks)[1].moe(inputs)
    left_out = ~routing.mask.any(-1)
    assert left_out.any()
    assert not y[left_out].any()
    assert y[~left_out].any(-1).all()


@pytest.mark.parametrize(("group_tokens", "independent"), [(None, True), (16, True), (32, False), (24, False)])
def test_pictures_depend_on_their_neighbours_only_where_the_config_says_so(
    group_tokens: int | None, independent: bool
) -> None:
    moe = experts(4, group_tokens=32, inference_group_tokens=group_tokens)
    model: PixArt = perturbed(config(moe).build(), 0.2).eval()
    x, t, cond = batch(6)
    with torch.no_grad():
        together = model(x, t, cond).prediction
        for row in range(0, 6, 2):  # the first of two, so that alone it begins a group as it does in company
            rows = slice(row, row + 1)
            alone = model(x[rows], t[rows], cond.map(lambda value, rows=rows: value[rows])).prediction
            assert torch.allclose(alone, together[rows], rtol=0, atol=1e-5) is independent


def on_meta(depth: int, dim: int, kv_heads: int, moe: MoEConfig | None, **form: Any) -> PixArt:
    sizes = {"input_size": 32, "channels": 8, "text_dim": 1536}
    with torch.device("meta"):
        return config(moe, dim=dim, depth=depth, heads=dim // 64, kv_heads=kv_heads, **sizes, **form).build()


def matrices(model: nn.Module) -> dict[str, int]:
    """Weight matrices by name, without routers."""
    return {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and not name.endswith(("bias", ".b1", ".b2")) and ".router." not in name
    }


@pytest.mark.parametrize("vectors", [3, 4, 6])
@pytest.mark.parametrize("full_width", [True, False])
@pytest.mark.parametrize(("depth", "dim", "kv_heads"), [(28, 1152, 6), (4, 768, 12), (2, 1536, 6)])
def test_a_dense_layer_has_the_derived_size(
    depth: int, dim: int, kv_heads: int, full_width: bool, vectors: int
) -> None:
    """Self-attention 2 d² + 2 d 64 kv, cross-attention 2 d² + 2 d_text d (or 64 kv), adaLN n d², feed-forward 8 d²."""
    cross = {"cross_kv_heads": dim // 64} if full_width else {}
    model = on_meta(depth, dim, kv_heads, None, adaln_vectors=vectors, **cross)
    attention = 2 * dim**2 + 2 * dim * 64 * kv_heads
    cross_attention = 2 * dim**2 + 2 * 1536 * (dim if full_width else 64 * kv_heads)
    layer = attention + cross_attention + vectors * dim**2 + 8 * dim**2
    assert sum(matrices(model.blocks).values()) == depth * layer
    once = matrices(model.time_embedding), matrices(model.final.get_submodule("adaln"))
    assert [sum(sizes.values()) for sizes in once] == [2 * dim**2, 2 * dim**2]


@pytest.mark.parametrize("num_experts", [8, 16, 32, 64])
def test_experts_have_the_size_of_the_dense_feed_forward(num_experts: int) -> None:
    """Each one more is 8 d² in every second layer, and one row of the router."""
    depth, dim = 28, 1152
    dense, sparse = on_meta(depth, dim, 6, None), on_meta(depth, dim, 6, experts(num_experts))
    difference = sum(matrices(sparse).values()) - sum(matrices(dense).values())
    assert difference == (num_experts - 1) * 8 * dim**2 * depth // 2
    router = [parameter.numel() for name, parameter in sparse.named_parameters() if ".router." in name]
    assert router == [num_experts * dim] * (depth // 2)
