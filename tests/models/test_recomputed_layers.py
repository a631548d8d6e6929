"""A layer that is computed again uses the experts of the forward pass, whatever its logits would be by then."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leandit.models import Backbone, Conditioning, DiTConfig, recompute_layers
from leandit.moe import BiasedRouterConfig, MoEConfig, routers

ROUTING = {
    "expert_race": MoEConfig(k=2, num_experts=4),
    "token_choice": MoEConfig(k=2, num_experts=4, strategy="token_choice", gate="softmax"),
    "biased": MoEConfig(k=2, num_experts=4, per_layer_regularisation=False, routing=BiasedRouterConfig()),
}


def build(moe: MoEConfig) -> Backbone:
    torch.manual_seed(0)
    fields = {"dim": 32, "depth": 2, "heads": 2, "patch_size": 2, "input_size": 8, "channels": 3, "num_classes": 3}
    model = DiTConfig(**fields, moe=moe).build()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    return model


def gradients(model: Backbone, between: bool) -> dict[str, Tensor]:
    """Gradients of a step; with `between`, every router's gate is another one when the layer is computed again."""
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(3, 3, 8, 8, generator=generator), torch.rand(3, generator=generator)
    loss = model(x, t, Conditioning(torch.arange(3))).prediction.square().mean()
    kept = [router.gate_head.weight.detach().clone() for _, router in routers(model)]
    if between:
        for _, router in routers(model):
            router.gate_head.weight.data.neg_()
    try:
        loss.backward()
    finally:
        for (_, router), weight in zip(routers(model), kept, strict=True):
            router.gate_head.weight.data.copy_(weight)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("moe", ROUTING.values(), ids=ROUTING)
def test_the_backward_pass_has_the_experts_of_the_forward_pass(moe: MoEConfig) -> None:
    expected = gradients(build(moe), between=False)
    model = build(moe)
    recompute_layers(model)
    found = gradients(model, between=True)
    # The gradient that reaches a router's input goes through the changed gate; what experts computed does not.
    experts = [name for name in expected if ".experts." in name]
    assert experts
    for name in experts:
        if name.startswith("blocks.1."):  # nothing after it has a changed gate on the way back
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-7, msg=name)


def test_without_keeping_the_logits_the_experts_would_be_others() -> None:
    """The test above can fail."""
    expected = gradients(build(ROUTING["expert_race"]), between=False)
    model = build(ROUTING["expert_race"])
    recompute_layers(model)
    for _, router in routers(model):
        router.keep_logits = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leandit.nn.layers._KEPT", ())
        found = gradients(model, between=True)
    name = "blocks.1.moe.experts.w1"
    assert (found[name] - expected[name]).abs().max() > 1e-3 * expected[name].abs().max()
