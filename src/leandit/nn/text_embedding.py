"""The text input of a backbone: token features, the pooled vector, and the mask over [text ; image]."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.errors import LeanDiTError
from leandit.nn.parts import Linear
from leandit.ops import row_stable_linear
from leandit.ops.linear import MIN_ROWS


class PooledEmbedding(nn.Module):
    """Linear -> SiLU -> Linear on the pooled vector of a text. The result is added to the time embedding.

    Reference: SD3 (arXiv 2403.03206). DiT-Air (arXiv 2503.10618) has "its own MLP" and does not state its form.
    """

    def __init__(self, pooled_dim: int, dim: int) -> None:
        super().__init__()
        self.first = Linear(pooled_dim, dim)
        self.second = Linear(dim, dim)

    def forward(self, pooled: Float[Tensor, "batch pooled_dim"]) -> Float[Tensor, "batch dim"]:
        """Embed the vector. Raises LeanDiTError if its width is not the width that the model was built for."""
        _check_width("the pooled text vector is", pooled, self.first)
        hidden = row_stable_linear(pooled.to(self.first.weight.dtype), self.first.weight, self.first.bias)
        return row_stable_linear(F.silu(hidden), self.second.weight, self.second.bias)


class TextEmbedding(nn.Module):
    """Linear -> GELU -> Linear on the features of every token. The features of padding are not read.

    Reference: DiT-Air (arXiv 2503.10618), "MLP" in Figure 3. The paper does not state hidden width and activation.
    """

    def __init__(self, text_dim: int, dim: int) -> None:
        super().__init__()
        self.first = Linear(text_dim, dim)
        self.second = Linear(dim, dim)

    def forward(
        self, text: Float[Tensor, "batch text_tokens text_dim"], mask: Bool[Tensor, "batch text_tokens"] | None
    ) -> tuple[Float[Tensor, "batch padded_tokens dim"], Bool[Tensor, "batch padded_tokens"] | None]:
        """Return the embedded tokens and their mask, both padded by `pad_text`.

        Raises LeanDiTError if the width of the features is not the width that the model was built for.
        """
        _check_width("text features are", text, self.first)
        text, mask = pad_text(text, mask)
        if mask is not None:
            text = text.masked_fill(~mask[..., None], 0.0)
        hidden = F.gelu(self.first(text.to(self.first.weight.dtype)), approximate="tanh")
        return self.second(hidden), mask


def pad_text(
    text: Float[Tensor, "batch text_tokens text_dim"], mask: Bool[Tensor, "batch text_tokens"] | None
) -> tuple[Float[Tensor, "batch padded_tokens text_dim"], Bool[Tensor, "batch padded_tokens"] | None]:
    """Pad short text with masked tokens to the number of rows of `row_stable_linear`, under the same conditions.

    A sample then has the same result alone and in a batch.
    """
    missing = MIN_ROWS - text.shape[1]
    if missing <= 0 or torch.is_grad_enabled() or text.device.type != "cpu":
        return text, mask
    mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device) if mask is None else mask
    return F.pad(text, (0, 0, 0, missing)), F.pad(mask, (0, missing))


def joint_mask(
    text_mask: Bool[Tensor, "batch text_tokens"] | None, image_tokens: int
) -> Bool[Tensor, "batch all_tokens"] | None:
    """Return the mask over [text ; image]. It is True for all image tokens. None stays None."""
    return None if text_mask is None else F.pad(text_mask, (0, image_tokens), value=True)


def _check_width(what: str, value: Tensor, linear: Linear) -> None:
    if value.shape[-1] != linear.in_features:
        raise LeanDiTError(
            f"{what} {value.shape[-1]} wide, the model was built for {linear.in_features}: "
            "use the text encoder that it was trained with"
        )
