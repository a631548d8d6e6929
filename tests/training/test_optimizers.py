"""Optimisers: every weight moved by exactly one, Muon against torch's own, state that survives its tensors."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import AdamWConfig, MuonConfig
from leandit.training.muon import Muon, orthogonalize
from leandit.training.optimizers import build_optimizers, load_optimizer_tensors, optimizer_tensors


def tiny_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return run_config("tiny").model.complete(input_size=32, channels=3, num_classes=2).build()


def fill_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("config", [AdamWConfig(), MuonConfig()])
def test_every_parameter_is_moved_by_exactly_one_optimiser(config: AdamWConfig | MuonConfig) -> None:
    model = tiny_model()
    groups = [group for optimizer in build_optimizers(config, model) for group in optimizer.param_groups]
    counts = Counter(id(p) for group in groups for p in group["params"])
    assert counts == Counter(id(p) for p in model.parameters())


def test_muon_takes_the_matrices_of_the_blocks_and_no_embedding_or_head() -> None:
    model = tiny_model()
    muon, adamw = build_optimizers(MuonConfig(), model)
    names = {id(p): name for name, p in model.named_parameters()}
    of_muon = {names[id(p)] for p in muon.param_groups[0]["params"]}
    of_adamw = {names[id(p)] for p in adamw.param_groups[0]["params"]}
    assert {"blocks.0.attention.qkv.weight", "blocks.1.moe.router.hidden.weight"} <= of_muon
    assert any(".experts." in name for name in of_muon)
    assert all(name.startswith("blocks.") and dict(model.named_parameters())[name].ndim >= 2 for name in of_muon)
    assert any("gate_head" in name for name in of_adamw)
    assert any("label_embedding" in name for name in of_adamw)


def test_adamw_is_torchs_unfused_one() -> None:
    model, twin = tiny_model(), tiny_model()
    config = AdamWConfig(lr=3e-3, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1)
    (ours,) = build_optimizers(config, model)
    plain = torch.optim.AdamW(
        twin.parameters(), lr=3e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, foreach=False, fused=False
    )
    for step in range(3):
        fill_gradients(model, step)
        fill_gradients(twin, step)
        ours.step()
        plain.step()
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_orthogonalized_matrices_keep_their_directions_with_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrices = torch.randn(3, *shape)
    result = orthogonalize(matrices, 5)
    for matrix, done in zip(matrices, result, strict=True):
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.T @ done @ vh.T
        assert inner.diagonal().min() > 0.4
        assert torch.linalg.svdvals(done).max() < 1.3
        off = inner - inner.diagonal().diag()
        assert off.abs().max() < 0.1


def test_muon_is_torchs_on_matrices_and_a_stack_is_its_matrices() -> None:
    torch.manual_seed(2)
    start = [torch.randn(12, 20), torch.randn(20, 12), torch.randn(12, 20)]
    stack = nn.Parameter(torch.stack([torch.randn(12, 20), torch.randn(12, 20)]))
    ours = [nn.Parameter(w.clone()) for w in start]
    theirs = [nn.Parameter(w.clone()) for w in (*start, *stack.detach())]
    muon = Muon([*ours, stack], lr=0.05, momentum=0.9, weight_decay=0.1, iterations=5)
    reference = torch.optim.Muon(
        theirs, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True, ns_steps=5, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        for parameter in theirs:
            parameter.grad = torch.randn_like(parameter)
        for mine, other in zip(ours, theirs, strict=False):
            mine.grad = other.grad.clone()
        stack.grad = torch.stack([p.grad for p in theirs[3:]])
        muon.step()
        reference.step()
    # bf16 iterations differ by rounding; a step moves an entry by about 0.05 * 0.2.
    for mine, other in zip([*ours, *stack], theirs, strict=True):
        torch.testing.assert_close(mine.detach(), other.detach(), rtol=0, atol=1.5e-3)


@pytest.mark.parametrize("config", [AdamWConfig(lr=1e-2), MuonConfig()])
def test_state_goes_on_from_its_tensors_to_the_same_bits(config: AdamWConfig | MuonConfig) -> None:
    model, twin = tiny_model(), tiny_model()
    optimizers, others = build_optimizers(config, model), build_optimizers(config, twin)

    def step(of: nn.Module, by: list[torch.optim.Optimizer], number: int) -> None:
        fill_gradients(of, number)
        for optimizer in by:
            optimizer.step()

    step(model, optimizers, 0)
    step(model, optimizers, 1)
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizers, model).items()}
    twin.load_state_dict(model.state_dict())
    load_optimizer_tensors(others, twin, saved)
    step(model, optimizers, 2)
    step(twin, others, 2)
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b), name
    # What was loaded are copies: further steps must not write into the caller's tensors.
    fresh = optimizer_tensors(others, twin)
    assert all(fresh[name].data_ptr() != tensor.data_ptr() for name, tensor in saved.items())


def test_the_state_of_another_model_is_refused_by_name() -> None:
    model = tiny_model()
    with pytest.raises(LeanDiTError, match=r"no parameter 'blocks\.7\.attention\.qkv\.weight'"):
        load_optimizer_tensors(
            build_optimizers(AdamWConfig(), model), model, {"blocks.7.attention.qkv.weight.exp_avg": torch.zeros(1)}
        )
