"""The linear layer of all models."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from leandit.ops import linear, linear_gelu


class Linear(nn.Linear):
    """torch's linear layer with its weights left uninitialised: whatever it is part of calls `init_weights`.

    So nothing is drawn twice, and building on the meta device, where random draws are slow, draws nothing.
    """

    def reset_parameters(self) -> None:
        """Leave the weights to `init_weights`, which is called once."""

    def init_weights(self) -> None:
        """Xavier-uniform matrix, zero bias."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out"]:
        return linear(input, self.weight, self.bias)

    def gelu(self, input: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out"]:
        """Return GELU of what `forward` returns, in its tanh form."""
        return linear_gelu(input, self.weight, self.bias)
