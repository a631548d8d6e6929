"""Optimisers: every weight moved by exactly one, Muon against torch's own, state that survives its tensors."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import AdafactorConfig, AdamWConfig, MuonConfig, RMSPropConfig
from leandit.run.recipe import OptimizerConfig
from leandit.training import chunked
from leandit.training.muon import Muon, orthogonalize
from leandit.training.optimizers import build_optimizers, load_optimizer_tensors, optimizer_tensors, state_size

ALL: dict[str, OptimizerConfig] = {
    "adamw": AdamWConfig(lr=1e-2),
    "muon": MuonConfig(),
    "adafactor": AdafactorConfig(lr=1e-2),
    "adafactor of its paper": AdafactorConfig(lr=1e-2, beta1=None, beta2=None, scale_by_parameter=True),
    "adafactor, unfactored": AdafactorConfig(min_factored_size=None),
    "rmsprop": RMSPropConfig(lr=1e-2),
    "rmsprop without momentum": RMSPropConfig(momentum=0.0),
}


def tiny_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return run_config("tiny").model.complete(input_size=32, channels=3, num_classes=2).build()


def fill_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_is_moved_by_exactly_one_optimiser(name: str) -> None:
    config = ALL[name]
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


@pytest.mark.parametrize("name", ALL)
def test_state_goes_on_from_its_tensors_to_the_same_bits(name: str) -> None:
    config = ALL[name]
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


@pytest.mark.parametrize("name", ALL)
def test_the_size_of_the_state_is_known_without_a_step(name: str) -> None:
    model = tiny_model()
    fill_gradients(model, 0)
    optimizers = build_optimizers(ALL[name], model)
    for optimizer in optimizers:
        optimizer.step()
    with torch.device("meta"):
        shapes = run_config("tiny").model.complete(input_size=32, channels=3, num_classes=2).build()
    real = sum(tensor.numel() for tensor in optimizer_tensors(optimizers, model).values())
    assert state_size(ALL[name], shapes) == real


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith(("adafactor", "rmsprop"))])
@pytest.mark.parametrize("most", [1, 5_000])
def test_chunks_of_parameters_change_no_bit(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, split = tiny_model(), tiny_model()
    for model, limit in ((whole, 2**40), (split, most)):
        monkeypatch.setattr(chunked, "_MOST", limit)
        optimizers = build_optimizers(ALL[name], model)
        for number in range(3):
            fill_gradients(model, number)
            for optimizer in optimizers:
                optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), split.parameters(), strict=True))


OLDER = {
    "adafactor": (
        {"type": "adafactor", "lr": 1e-3, "beta2_decay": -0.8, "clip_threshold": 1.0, "weight_decay": 0.0},
        lambda model: torch.optim.Adafactor(model.parameters(), lr=1e-3),
    ),
    "rmsprop": (
        {"type": "rmsprop", "lr": 1e-3, "momentum": 0.9, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0},
        lambda model: torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9),
    ),
}


@pytest.mark.parametrize("kind", OLDER)
def test_an_older_run_goes_on_with_the_state_of_torchs_optimiser(kind: str) -> None:
    """Its complete configuration says which optimiser it had, and its tensors have the same names."""
    table, torchs = OLDER[kind]
    config = run_config("tiny").replace(optimizer=table).optimizer
    model, twin = tiny_model(), tiny_model()
    reference = torchs(model)
    for number in range(3):
        fill_gradients(model, number)
        reference.step()
    twin.load_state_dict(model.state_dict())
    start = [parameter.detach().clone() for parameter in twin.parameters()]
    optimizers = build_optimizers(config, twin)
    load_optimizer_tensors(optimizers, twin, optimizer_tensors([reference], model))
    fill_gradients(model, 3)
    fill_gradients(twin, 3)
    reference.step()
    optimizers[0].step()
    for (name, a), b, before in zip(model.named_parameters(), twin.parameters(), start, strict=True):
        assert not torch.equal(a, before), name
        torch.testing.assert_close(a - before, b - before, rtol=1e-3, atol=1e-8, msg=name)


def test_the_state_of_another_model_is_refused_by_name() -> None:
    model = tiny_model()
    with pytest.raises(LeanDiTError, match=r"no parameter 'blocks\.7\.attention\.qkv\.weight'"):
        load_optimizer_tensors(
            build_optimizers(AdamWConfig(), model), model, {"blocks.7.attention.qkv.weight.exp_avg": torch.zeros(1)}
        )
