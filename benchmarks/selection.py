"""The race's selection against torch.topk and torch.sort, over 2^16 to 2^24 scores.

    python benchmarks/selection.py [--rounds 9]

As in 4-in-32, an eighth of the scores is kept. torch.topk and torch.sort are timed without making a mask of what they
return, which ours includes.
"""

from __future__ import annotations

import argparse

import torch

from contest import compete, device, ratio, setting, table
from leandit.ops import pooled_topk


def report(rounds: int) -> str:
    """Return the results as Markdown."""
    rows = []
    for power in (16, 18, 20, 21, 22, 24):
        scores = torch.randn(1, 2**power, generator=torch.Generator().manual_seed(0)).to(device())
        kept = scores.numel() // 8
        budget = torch.tensor([kept], device=scores.device)
        timings = compete(
            {
                "ours": lambda s=scores, b=budget: pooled_topk(s, b),
                "torch.topk": lambda s=scores, k=kept: s.topk(k),
                "torch.sort": lambda s=scores: s.sort(),
            },
            rounds,
        )
        cells = [f"{1e3 * timing.median:.2f}" for timing in timings.values()]
        rows.append([f"2^{power}", *cells, *(f"{ratio(timings[n], timings['ours']):.1f}" for n in list(timings)[1:])])
        print(*rows[-1], flush=True)
    head = ("scores", "ours, ms", "torch.topk, ms", "torch.sort, ms", "topk over ours", "sort over ours")
    return f"## Selection\n\nAn eighth of the scores is kept, as in 4-in-32.\n\n{table(head, rows)}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(setting())
    print(report(options.rounds))
