"""How the cost of the experts grows with tokens and with their number, at fixed activated FLOPs per token.

    python benchmarks/growth.py [--rounds 5]

d = 384, k = 4, forward and backward, bf16 where the processor multiplies it natively. Time per token should be flat in
the number of tokens; in the number of experts it can be only as far as their weights are used often enough: every
expert's weights and gradients are read and written once, however few tokens it gets.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from contest import compete, device, setting, table
from leandit.allocator import keep_memory
from leandit.ops import expert_ffn
from leandit.run.resolve import fast_bf16

DIM, K = 384, 4


def contestant(tokens: int, num_experts: int) -> Callable[[], None]:
    """Return experts under a race that was run beforehand, with their input."""
    hidden = 4 * DIM // K
    dtype = torch.bfloat16 if fast_bf16(device()) else torch.float32
    shapes = ((num_experts, DIM, hidden), (num_experts, hidden), (num_experts, hidden, DIM), (num_experts, DIM))
    weights = [(torch.randn(shape) * 0.02).to(device(), dtype).requires_grad_() for shape in shapes]
    scores = torch.randn(tokens, num_experts, generator=torch.Generator().manual_seed(0)).to(device())
    mask = scores >= scores.flatten().topk(tokens * K).values[-1]
    x = torch.randn(tokens, DIM).to(device(), dtype).requires_grad_()
    scores.requires_grad_()

    def run() -> None:
        y = expert_ffn(x, scores, mask, *weights, num_pairs=tokens * K)
        torch.autograd.grad(y, (x, scores, *weights), torch.ones_like(y))

    return run


def report(rounds: int) -> str:
    """Return the results as Markdown."""
    keep_memory()
    rows = []
    cells = [(tokens, 32) for tokens in (1024, 4096, 16384, 65536)]
    cells += [(16384, num_experts) for num_experts in (8, 16, 64, 128, 256)]
    for tokens, num_experts in cells:
        timing = compete({"ours": contestant(tokens, num_experts)}, rounds)["ours"]
        row = [tokens, num_experts, f"{1e3 * timing.median:.1f}", f"{1e6 * timing.median / tokens:.2f}"]
        rows.append([*row, f"{timing.spread:.0%}"])
        print(*rows[-1], flush=True)
    head = ("tokens", "experts", "ms", "microseconds per token", "spread")
    return f"## Growth\n\nd = {DIM}, k = {K}, forward and backward.\n\n{table(head, rows)}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(setting())
    print(report(options.rounds))
