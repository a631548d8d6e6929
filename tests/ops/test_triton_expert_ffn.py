"""The experts' Triton kernels against the definition: forward and every gradient."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from expert_cases import CASES, Case, assert_same, output_gradient, poison_allocations, run, tensors
from triton_process import DEVICE, INTERPRETED, ON_GPU, needs_kernels, run_interpreted, starts_interpreter

from leandit.errors import LeanDiTError
from leandit.ops import expert_ffn
from leandit.ops.expert_ffn import Activation

# numpy, which interprets, has no bf16.
LOW = torch.float16 if INTERPRETED else torch.bfloat16
RTOL, ATOL = 1e-4, 1e-5


@starts_interpreter
def test_in_the_interpreter() -> None:
    run_interpreted(__file__)


@needs_kernels
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_forward_and_all_gradients_equal_the_definition(
    case: Case, activation: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = tensors(case, activation, torch.float32, DEVICE)
    mask, grad = case.mask().to(DEVICE), output_gradient(case, DEVICE)
    expected = run(inputs, mask, "naive", grad, activation=activation)
    poison_allocations(monkeypatch)
    assert_same(run(inputs, mask, "triton", grad, activation=activation), expected, RTOL, ATOL)


@needs_kernels
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("name", ["tokens with several experts and with none", "odd widths over several tiles"])
def test_low_precision_sums_in_fp32(name: str, activation: Activation, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    inputs = tensors(case, activation, torch.float32, DEVICE)
    mask, grad = case.mask().to(DEVICE), output_gradient(case, DEVICE)
    expected = run(inputs, mask, "naive", grad, activation=activation)
    poison_allocations(monkeypatch)
    low = [value.detach().to(LOW).requires_grad_() for value in inputs]
    mine = run(low, mask, "triton", grad, activation=activation)
    assert {value.dtype for value in mine} == {LOW}
    for one, other in zip(mine, expected, strict=True):
        assert (one - other).norm() < (0.005 if INTERPRETED else 0.02) * other.norm()


@needs_kernels
def test_autocast_returns_gradients_in_the_weights_precision() -> None:
    case = CASES["tokens with several experts and with none"]
    inputs = tensors(case, "gelu", torch.float32, DEVICE)
    mask, grad = case.mask().to(DEVICE), output_gradient(case, DEVICE)
    expected = run(inputs, mask, "naive", grad)
    with torch.autocast(DEVICE, LOW):
        mine = run(inputs, mask, "triton", grad)
    assert [value.dtype for value in mine] == [LOW] + [torch.float32] * 6
    for one, other in zip(mine, expected, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


@needs_kernels
def test_non_contiguous_input() -> None:
    case = Case(20, 3)
    inputs = [
        value.detach().mT.contiguous().mT.requires_grad_() for value in tensors(case, "gelu", torch.float32, DEVICE)
    ]
    mask, grad = case.mask().to(DEVICE).T.contiguous().T, output_gradient(case, DEVICE)[:, :1].expand(20, 8)
    assert not any(value.is_contiguous() for value in (*inputs, mask, grad))
    mine, theirs = (run(inputs, mask, backend, grad) for backend in ("triton", "naive"))
    assert_same(mine, theirs, RTOL, ATOL)


@needs_kernels
def test_a_bound_on_the_pairs_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(20, 3)
    inputs = tensors(case, "gelu", torch.float32, DEVICE)
    mask, grad = case.mask().to(DEVICE), output_gradient(case, DEVICE)
    poison_allocations(monkeypatch)
    exact, bounded = (run(inputs, mask, "triton", grad, num_pairs=bound) for bound in (None, 60))
    assert_same(bounded, exact, 0, 0)
    with torch.no_grad():
        for bound in (None, 60):
            evaluated = expert_ffn(inputs[0], inputs[1], mask, *inputs[2:], impl="triton", num_pairs=bound)
            assert torch.equal(evaluated, exact[0])


@needs_kernels
def test_compiled_equals_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler cannot see through the checks of shapes.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    case = Case(20, 3)
    inputs = tensors(case, "gelu", torch.float32, DEVICE)
    mask, grad = case.mask().to(DEVICE), output_gradient(case, DEVICE)
    compiled = torch.compile(expert_ffn, fullgraph=True, backend="aot_eager")
    eager, mine = (run(inputs, mask, "triton", grad, ffn, num_pairs=60) for ffn in (expert_ffn, compiled))
    assert_same(mine, eager, 0, 0)


@needs_kernels
def test_another_number_of_tokens_does_not_compile_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    torch._dynamo.reset()
    compiled = torch.compile(expert_ffn, fullgraph=True, backend="aot_eager", dynamic=True)
    for tokens in (20, 17, 12):
        case = Case(tokens, 3)
        x, weight, *weights = tensors(case, "gelu", torch.float32, DEVICE)
        mask = case.mask().to(DEVICE)
        mine = compiled(x, weight, mask, *weights, impl="triton", num_pairs=2 * tokens)
        torch.testing.assert_close(mine, expert_ffn(x, weight, mask, *weights, impl="naive"), rtol=RTOL, atol=ATOL)


@needs_kernels
def test_sums_do_not_depend_on_the_run() -> None:
    case = Case(40, 2, dim=20, hidden=20)
    inputs = tensors(case, "gelu", torch.float32, DEVICE)
    mask, grad = case.mask().to(DEVICE), output_gradient(case, DEVICE)
    assert_same(*(run(inputs, mask, "triton", grad) for _ in range(2)), 0, 0)


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU it ends the process")
def test_more_pairs_than_were_announced_are_refused() -> None:
    case = Case(5, 2, chance=1)
    x, weight, *weights = tensors(case, "gelu", torch.float32)
    with pytest.raises(RuntimeError, match="more pairs than num_pairs"):
        expert_ffn(x, weight, case.mask(), *weights, num_pairs=9, impl="triton")


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, *([torch.bfloat16] if INTERPRETED else [])])
def test_what_the_kernels_cannot_compute_is_refused(dtype: torch.dtype) -> None:
    case = Case(4, 2)
    x, weight, *weights = tensors(case, "gelu", dtype, DEVICE)
    with pytest.raises(LeanDiTError, match=r"not torch\.float64|cannot multiply bfloat16"):
        expert_ffn(x, weight, case.mask().to(DEVICE), *weights, impl="triton")


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
@pytest.mark.parametrize("case", [Case(4096, 8, 384, 192), Case(5000, 3, 200, 136)])
def test_large_products_in_bf16_and_nothing_waits(case: Case) -> None:
    inputs = tensors(case, "gelu", torch.float32, DEVICE)
    mask, grad = case.mask().to(DEVICE), output_gradient(case, DEVICE)
    expected = run(inputs, mask, "naive", grad)
    low = [value.detach().bfloat16().requires_grad_() for value in inputs]
    pairs = int(mask.sum())
    for mode in ("default", "error"):
        # The first run tunes, and waits for it.
        torch.cuda.set_sync_debug_mode(mode)
        try:
            mine = run(low, mask, "auto", grad, num_pairs=pairs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(mine, expected, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()
