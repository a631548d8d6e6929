"""The linear layer of all models."""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """torch's linear layer with its weights left uninitialised: the model's `init_weights` sets every one of them.

    So nothing is drawn twice, and building on the meta device, where random draws are slow, draws nothing.
    """

    def reset_parameters(self) -> None:
        """Leave the weights to `init_weights`."""
