"""Networks of the DiT family against `peer_dit`, in float64, with gradients of all weights."""

from __future__ import annotations

import pytest
import torch
from peer_dit import CHANNELS, CLASSES, DEPTH, DIM, HEADS, PATCH, SIDE, Peer, forward, random_weights, translated
from torch import Tensor

from leandit.models import Conditioning, DiTConfig
from leandit.models.peer_times import fold_time

X = torch.randn(3, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABEL = torch.tensor([4, 0, CLASSES])  # the last row of the table is "no label"
STEPS = torch.tensor([0.0, 37.0, 999.0], dtype=torch.float64)
TIMES = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)  # of a flow, 1 is noise


def ours(weights: dict[str, Tensor], t: Tensor, **fields: object) -> tuple[Tensor, dict[str, Tensor]]:
    """The prediction of a DiT with a peer's weights under LeanDiT's names, and the gradients of its squared sum."""
    config = DiTConfig(
        dim=DIM, depth=DEPTH, heads=HEADS, patch_size=PATCH, input_size=SIDE, channels=CHANNELS, num_classes=CLASSES
    )
    model = config.replace(**fields).build().double()
    model.load_state_dict(weights)
    out = model(X, t, Conditioning(torch.where(LABEL == CLASSES, -1, LABEL))).prediction
    out.square().sum().backward()
    return out.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def theirs(weights: dict[str, Tensor], angle: Tensor, peer: Peer) -> tuple[Tensor, dict[str, Tensor]]:
    """The same of the peer; gradients have LeanDiT's names."""
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    out = forward(leaves, X, angle, LABEL, peer)
    out.square().sum().backward()
    return out.detach(), translated({name: leaf.grad for name, leaf in leaves.items()})


def check(got: Tensor, expected: Tensor) -> None:
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-12


@pytest.mark.parametrize("hidden", [192, 97])
def test_dit_at_its_steps_with_all_gradients(hidden: int) -> None:
    weights = random_weights(hidden)
    out, gradients = ours(translated(weights), STEPS / 1000, mlp_ratio=hidden / DIM)
    expected, expected_gradients = theirs(weights, STEPS, Peer())
    check(out, expected)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        check(gradient, expected_gradients[name])


def test_diffusers_dit_has_other_frequencies_and_another_epsilon_before_the_feed_forward() -> None:
    weights, peer = random_weights(), Peer(frequency_shift=1.0, feed_forward_eps=1e-2)
    expected = theirs(weights, STEPS, peer)[0]
    fields = {"timestep_freq_shift": 1.0, "feed_forward_norm_eps": 1e-2}
    check(ours(translated(weights), STEPS / 1000, **fields)[0], expected)
    for one in fields:  # each of them matters
        wrong = ours(translated(weights), STEPS / 1000, **{one: fields[one]})[0]
        assert float((wrong - expected).abs().max() / expected.abs().max()) > 1e-5


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_ddpm_checkpoints_embed_the_step_before(shift: float) -> None:
    """LeanDiT's DDPM is at t = (i + 1) / 1000 in step i, and peers embed i."""
    weights, peer = random_weights(), Peer(frequency_shift=shift)
    expected = theirs(weights, STEPS, peer)[0]
    named = translated(weights)
    wrong = ours(named, (STEPS + 1) / 1000, timestep_freq_shift=shift)[0]
    assert float((wrong - expected).abs().max() / expected.abs().max()) > 1e-3
    first = named["time_embedding.first.weight"]
    named["time_embedding.first.weight"] = fold_time(first, shift, offset=-1.0)
    check(ours(named, (STEPS + 1) / 1000, timestep_freq_shift=shift)[0], expected)
    check(fold_time(named["time_embedding.first.weight"], shift, offset=1.0), first)


def test_sit_embeds_the_time_itself_and_backwards() -> None:
    """SiT has t = 1 at data, embeds it without a factor, and predicts the opposite velocity."""
    weights = random_weights()
    expected = -theirs(weights, 1 - TIMES, Peer())[0]
    named = translated(weights)
    first = named["time_embedding.first.weight"]
    named["time_embedding.first.weight"] = fold_time(first, offset=1.0, backwards=True)
    for kind in ("weight", "bias"):
        named[f"final.linear.{kind}"] = -named[f"final.linear.{kind}"]
    check(ours(named, TIMES, time_scale=1.0)[0], expected)
    check(fold_time(named["time_embedding.first.weight"], offset=1.0, backwards=True), first)


def test_dit_moe_and_repa_embed_the_time_itself() -> None:
    weights = random_weights()
    check(ours(translated(weights), TIMES, time_scale=1.0)[0], theirs(weights, TIMES, Peer())[0])


def test_every_hidden_width_can_be_had() -> None:
    """A ratio that is rounded itself, as hidden / dim is, gives the width that it was made from."""
    for dim in range(32, 2049, 32):
        for hidden in range(32, 8 * dim + 1, 32):
            assert DiTConfig.model_construct(dim=dim, mlp_ratio=hidden / dim).hidden == hidden
