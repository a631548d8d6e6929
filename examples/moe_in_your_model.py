"""The MoE layer in a transformer of your own: three lines more than a dense one.

    python examples/moe_in_your_model.py --steps 200

The model sorts digits: it reads 16 of them in any order and says which stands where once they are sorted. The lines
that experts need are marked with (1), (2) and (3).
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.moe import MoEConfig, MoELayer, RouterOutput, after_step, max_violation, router_similarity, router_stats

DIM, HEADS, DEPTH, LENGTH, DIGITS = 64, 4, 2, 16, 10
# Each token gets 2 of 8 experts on average; easy ones get fewer, hard ones more. Other routers, all of them dropless:
# MoEConfig(strategy="token_choice", gate="softmax", k=2, num_experts=8), or with a balancing bias
# MoEConfig(k=2, num_experts=8, routing=BiasedRouterConfig(route_scale=2.5)).
MOE = MoEConfig(k=2, num_experts=8)


class Block(nn.Module):
    """Attention, then experts in the place of the feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(DIM), nn.LayerNorm(DIM)])
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.experts = MoELayer(MOE, DIM, hidden=4 * DIM)  # (1) `hidden` is that of the feed-forward it stands for

    def forward(self, x: Tensor) -> tuple[Tensor, RouterOutput]:
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y, routing = self.experts(self.norms[1](x))
        return x + y, routing


class Sorter(nn.Module):
    """Digits -> logits of the sorted digits, and what the routers decided."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(DIGITS, DIM)
        self.positions = nn.Parameter(0.02 * torch.randn(LENGTH, DIM))
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.head = nn.Linear(DIM, DIGITS)

    def forward(self, digits: Tensor) -> tuple[Tensor, list[RouterOutput]]:
        x, routed = self.embedding(digits) + self.positions, []
        for block in self.blocks:
            x, routing = block(x)
            routed.append(routing)
        return self.head(x), routed


def main() -> None:
    """Train, then sort digits that were not seen; a threshold stands in for the race there."""
    parser = argparse.ArgumentParser(description="Train a small transformer with experts to sort digits.")
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    model = Sorter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        digits = torch.randint(DIGITS, (64, LENGTH))
        logits, routed = model(digits)
        loss = F.cross_entropy(logits.flatten(0, 1), digits.sort().values.flatten())
        # (2) a term that keeps experts apart; race and token choice need one, the biased router does not
        loss = loss + 0.01 * sum(router_similarity(routing.logits, routing.mask) for routing in routed) / DEPTH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        stats = router_stats(routed, DEPTH)
        after_step(model, stats)  # (3) moves thresholds and biases; forward changes no state
        if step % 50 == 0 or step == steps - 1:
            worst = max(max_violation(layer.load) for layer in stats)
            print(f"step {step + 1}/{steps}  loss {loss.item():.3f}  busiest expert {1 + worst:.1f} times the mean")
    model.eval()
    digits = torch.randint(DIGITS, (256, LENGTH))
    with torch.no_grad():
        logits, routed = model(digits)
    correct = (logits.argmax(-1) == digits.sort().values).float().mean()
    experts = torch.stack([routing.mask.sum(-1).float().mean() for routing in routed]).mean()
    print(f"{correct:.0%} of new digits in their place, {experts:.1f} experts a token")


if __name__ == "__main__":
    main()
