"""The experts' backends for a CPU against the definition, in float64: forward and every gradient."""

from __future__ import annotations

import logging

import jaxtyping
import pytest
import torch
from expert_cases import CASES, Case, assert_same, output_gradient, poison_allocations, run, tensors

from leandit.errors import LeanDiTError
from leandit.ops import expert_ffn
from leandit.ops.backends import log_choice
from leandit.ops.expert_ffn import Activation, ExpertImpl, loop
from leandit.ops.expert_ffn.layout import Layout, layout
from leandit.ops.expert_ffn.operator import BLOCK, max_rows

BACKENDS: list[tuple[ExpertImpl, torch.dtype, float]] = [
    ("loop", torch.float64, 1e-10),
    # Other products than in float64: oneDNN's.
    ("loop", torch.float32, 1e-4),
    # torch's grouped product has no float64.
    ("grouped_mm", torch.float32, 1e-4),
]


@pytest.mark.parametrize(("impl", "dtype", "tolerance"), BACKENDS)
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_forward_and_all_gradients_equal_the_definition(
    case: Case,
    activation: Activation,
    impl: ExpertImpl,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, mask, grad = tensors(case, activation, dtype), case.mask(), output_gradient(case)
    expected = run(inputs, mask, "naive", grad, activation=activation)
    poison_allocations(monkeypatch)
    assert_same(run(inputs, mask, impl, grad, activation=activation), expected, tolerance, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_expert_with_several_chunks_of_rows(
    case: Case, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHUNK", BLOCK)
    inputs, mask, grad = tensors(case, "gelu", dtype), case.mask(), output_gradient(case)
    expected = run(inputs, mask, "naive", grad)
    poison_allocations(monkeypatch)
    assert_same(run(inputs, mask, "loop", grad), expected, tolerance, tolerance)
    with torch.no_grad():
        evaluated = expert_ffn(inputs[0], inputs[1], mask, *inputs[2:], impl="loop")
    torch.testing.assert_close(evaluated, expected[0], rtol=tolerance, atol=tolerance)


def test_sums_over_chunks_lose_nothing_in_low_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(640, 1, dim=8, hidden=8)
    inputs, mask, grad = (
        tensors(case, "gelu", torch.bfloat16),
        torch.ones(640, 1, dtype=torch.bool),
        output_gradient(case),
    )
    exact = run([value.detach().double().requires_grad_() for value in inputs], mask, "naive", grad)
    errors = []
    for chunk in (640, BLOCK):
        monkeypatch.setattr(loop, "CHUNK", chunk)
        mine = run(inputs, mask, "loop", grad)
        errors.append([(one - other).norm() / other.norm() for one, other in zip(mine, exact, strict=True)])
    # Added up in bf16, 40 chunks have twice the error.
    for whole, chunked in zip(*errors, strict=True):
        assert chunked < 1.4 * whole


def test_the_definition_is_the_sum_over_chosen_experts() -> None:
    case = Case(4, 3)
    x, weight, w1, b1, w2, b2 = (value.detach() for value in tensors(case, "gelu", torch.float64))
    mask = case.mask()
    expected = torch.zeros_like(x)
    for token, expert in mask.nonzero().tolist():
        pre = x[token] @ w1[expert] + b1[expert]
        hidden = 0.5 * pre * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (pre + 0.044715 * pre**3)))
        expected[token] += weight[token, expert] * (hidden @ w2[expert] + b2[expert])
    out = expert_ffn(x, weight, mask, w1, b1, w2, b2, impl="naive")
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_gradients_equal_finite_differences(activation: Activation) -> None:
    case = Case(4, 2, dim=3, hidden=2)
    inputs, mask = tensors(case, activation, torch.float64), case.mask()

    def loop(x: torch.Tensor, weight: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return expert_ffn(x, weight, mask, *weights, activation=activation, impl="loop")

    assert torch.autograd.gradcheck(loop, inputs)


@pytest.mark.parametrize(("impl", "dtype", "tolerance"), BACKENDS)
def test_non_contiguous_input(impl: ExpertImpl, dtype: torch.dtype, tolerance: float) -> None:
    case = Case(20, 3, dim=8, hidden=12)
    inputs = [value.detach().mT.contiguous().mT.requires_grad_() for value in tensors(case, "gelu", dtype)]
    mask, grad = case.mask().T.contiguous().T, output_gradient(case)[:, :1].expand(20, 8)
    assert not any(value.is_contiguous() for value in (*inputs, mask, grad))
    mine, theirs = (run(inputs, mask, backend, grad) for backend in (impl, "naive"))
    assert_same(mine, theirs, tolerance, tolerance)


@pytest.mark.parametrize(("impl", "dtype", "tolerance"), BACKENDS)
def test_without_biases(impl: ExpertImpl, dtype: torch.dtype, tolerance: float) -> None:
    case = Case(20, 3)
    x, weight, w1, _, w2, _ = tensors(case, "swiglu", dtype)
    out, expected = (
        expert_ffn(x, weight, case.mask(), w1, None, w2, None, activation="swiglu", impl=backend)
        for backend in (impl, "naive")
    )
    inputs, grad = (x, weight, w1, w2), output_gradient(case).to(dtype)
    mine, theirs = ([y, *torch.autograd.grad(y, inputs, grad)] for y in (out, expected))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("impl", "dtype", "tolerance"), BACKENDS)
def test_only_some_inputs_have_gradients(impl: ExpertImpl, dtype: torch.dtype, tolerance: float) -> None:
    case = Case(20, 3)
    x, weight, *weights = (value.detach() for value in tensors(case, "gelu", dtype))
    weights[0].requires_grad_()
    mine, theirs = (
        torch.autograd.grad(expert_ffn(x, weight, case.mask(), *weights, impl=backend).sum(), weights[0])
        for backend in (impl, "naive")
    )
    torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("impl", ["loop", "grouped_mm"])
def test_autocast_computes_low_and_returns_gradients_in_the_weights_precision(impl: ExpertImpl) -> None:
    case = Case(40, 3, dim=16, hidden=24)
    inputs, grad = tensors(case, "gelu", torch.float32), output_gradient(case)
    expected = run(inputs, case.mask(), "naive", grad)
    with torch.autocast("cpu", torch.bfloat16):
        mine = run(inputs, case.mask(), impl, grad)
    assert [value.dtype for value in mine] == [torch.bfloat16] + [torch.float32] * 6
    for one, other in zip(mine, expected, strict=True):
        # bf16 has 8 bits; a wrong or missing term would be as large as the values themselves.
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize(("impl", "dtype"), [("loop", torch.float64), ("grouped_mm", torch.bfloat16)])
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_compiled_equals_eager(
    activation: Activation, impl: ExpertImpl, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The compiler cannot see through the checks of shapes, and not at all through those of a record.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    case = Case(20, 3)
    inputs, mask, grad = tensors(case, activation, dtype), case.mask(), output_gradient(case)
    compiled = torch.compile(expert_ffn, fullgraph=impl == "loop", backend="aot_eager")
    eager, mine = (
        run(inputs, mask, impl, grad, ffn, activation=activation, num_pairs=60) for ffn in (expert_ffn, compiled)
    )
    assert_same(mine, eager, 0, 0)


@pytest.mark.parametrize("impl", ["loop", "grouped_mm"])
def test_a_bound_on_the_pairs_changes_nothing(impl: ExpertImpl) -> None:
    case = Case(20, 3)
    inputs, mask, grad = tensors(case, "gelu", torch.float32), case.mask(), output_gradient(case)
    exact, bounded = (run(inputs, mask, impl, grad, num_pairs=bound) for bound in (None, 60))
    assert_same(bounded, exact, 1e-6, 1e-6)
    with torch.no_grad():
        evaluated = expert_ffn(inputs[0], inputs[1], mask, *inputs[2:], impl=impl)
    torch.testing.assert_close(evaluated, exact[0], rtol=1e-6, atol=1e-6)


def _rows_by_hand(mask: torch.Tensor, block: int) -> list[int]:
    """The token of every row, -1 for padding."""
    rows: list[int] = []
    for column in mask.T:
        rows += column.nonzero()[:, 0].tolist()
        rows += [-1] * (-len(rows) % block)
    return rows


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("block", [2, 16])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_layout_sorts_pads_and_leads_back(case: Case, block: int, bounded: bool) -> None:
    mask = case.mask()
    weight = torch.arange(1.0, mask.numel() + 1).view(mask.shape)
    num_rows = max_rows(int(mask.sum()) + 3, case.experts, block) if bounded else None
    plan: Layout = layout(weight, mask, num_rows, block)
    expected = _rows_by_hand(mask, block)
    assert plan.ends[-1] == len(expected)
    real = [row for row, token in enumerate(expected) if token >= 0]
    assert plan.token[real].tolist() == [expected[row] for row in real]
    assert len(plan.token) == (len(expected) if num_rows is None else num_rows)
    padding = [row for row in range(len(plan.token)) if row not in set(real)]
    assert not plan.token[padding].any()
    assert not plan.weight[padding].any()
    assert not plan.pair_weight[int(plan.bag[-1]) :].any()
    for token in range(case.tokens):
        pairs = slice(int(plan.bag[token]), int(plan.bag[token + 1]))
        assert plan.token[plan.row[pairs]].tolist() == [token] * int(mask[token].sum())
        assert plan.pair_weight[pairs].tolist() == weight[token][mask[token]].tolist()
        assert plan.weight[plan.row[pairs]].tolist() == weight[token][mask[token]].tolist()


def test_auto_says_once_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    log_choice.cache_clear()
    case = Case(4, 2)
    x, weight, *weights = tensors(case, "gelu", torch.float32)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            expert_ffn(x, weight, case.mask(), *weights)
    assert [record.getMessage() for record in caplog.records] == ["expert_ffn on cpu: impl=auto is loop"]


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    case = Case(4, 2)
    x, weight, *weights = tensors(case, "gelu", torch.float32)
    with pytest.raises(LeanDiTError, match="choose auto, naive, loop, grouped_mm or triton"):
        expert_ffn(x, weight, case.mask(), *weights, impl="best")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("impl", "dtype", "message"),
    [
        ("grouped_mm", torch.float64, "float32, bfloat16 and float16, not torch.float64"),
        ("triton", torch.float32, "runs on CUDA, not on cpu|needs Triton"),
    ],
)
def test_a_backend_that_cannot_run_is_refused(impl: str, dtype: torch.dtype, message: str) -> None:
    case = Case(4, 2)
    x, weight, *weights = tensors(case, "gelu", dtype)
    with pytest.raises(LeanDiTError, match=message):
        expert_ffn(x, weight, case.mask(), *weights, impl=impl)  # type: ignore[arg-type]
