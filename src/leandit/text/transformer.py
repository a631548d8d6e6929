"""A text encoder of the transformers library: from texts to hidden states."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.text.config import AnyEncoderConfig, ClipEncoderConfig
from leandit.text.features import TextFeatures, TextRow
from leandit.text.loading import find_folder, fingerprint, load_model, load_tokenizer

_log = logging.getLogger(__name__)


class TransformerEncoder(nn.Module):
    """One encoder, always in evaluation mode, so without dropout. Its weights get gradients if `config.finetune`.

    Raises LeanDiTError if the model is missing, unusable or too small for the config.
    """

    model: Any

    def __init__(self, config: AnyEncoderConfig, batch_size: int = 1) -> None:
        super().__init__()
        self._config = config
        self.finetune = config.finetune
        self._batch_size = batch_size
        folder = find_folder(config)
        self.model = load_model(config.type, folder).eval().requires_grad_(config.finetune)
        self._tokenizer = load_tokenizer(folder)
        sizes = self.model.config.get_text_config()
        _check_sizes(config, folder, sizes)
        self.text_dim = sizes.hidden_size * len(config.layers)
        self.pooled_dim: int = sizes.hidden_size
        self.fingerprint = fingerprint(folder, config)
        self._warned = False

    def train(self, mode: bool = True) -> TransformerEncoder:
        """Stay in evaluation mode: the features of a text must not vary through dropout."""
        return super().train(False)

    def rows(self, texts: Sequence[str]) -> list[TextRow]:
        """Return the features of each text, on the CPU. They are differentiable if the encoder is fine-tuned."""
        starts = range(0, len(texts), self._batch_size)
        batches = [self(texts[start : start + self._batch_size]) for start in starts]
        return [row for batch in batches for row in batch.map(Tensor.cpu).rows()]

    def forward(self, texts: Sequence[str]) -> TextFeatures:
        """Return the features of the texts as one batch, on the model's device and differentiable."""
        ids, mask = self._tokenize(texts)
        output = self.model(ids, attention_mask=self._attention_mask(mask), output_hidden_states=True)
        last = output.last_hidden_state
        # In some models the last entry of hidden_states is before the final norm; last_hidden_state is always after.
        states = [*output.hidden_states[:-1], last]
        tokens = torch.cat([states[layer] for layer in self._config.layers], dim=-1)
        return TextFeatures(tokens.masked_fill(~mask[..., None], 0), mask, pool(last, mask, self._config.pooled))

    def _tokenize(
        self, texts: Sequence[str]
    ) -> tuple[Int[Tensor, "batch text_tokens"], Bool[Tensor, "batch text_tokens"]]:
        encoded = self._tokenizer(list(texts), truncation=True, max_length=self._config.max_tokens, padding=False)
        self._warn_of_cuts(texts, encoded)
        rows = [torch.tensor(ids or [self._stand_in()]) for ids in encoded["input_ids"]]
        pad = self._tokenizer.pad_token_id
        # The tokenizer must not pad: language models often have no padding token, or pad at the front.
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0 if pad is None else pad)
        mask = torch.arange(ids.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]
        device = self.model.device
        return ids.to(device), mask.to(device)

    def _stand_in(self) -> int:
        """Return the token for a text without tokens: some language models turn "" into zero tokens."""
        tokenizer = self._tokenizer
        for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
            if token is not None:
                return int(token)
        raise LeanDiTError(
            f"{self._config.path}: the tokenizer turns the empty caption into zero tokens and has no special token to "
            "replace it; set bos_token or eos_token in its tokenizer_config.json"
        )

    def _attention_mask(self, mask: Bool[Tensor, "batch text_tokens"]) -> Tensor:
        if not (isinstance(self._config, ClipEncoderConfig) and self._config.bidirectional):
            return mask.long()
        # A mask per pair of tokens replaces CLIP's causal mask; CLIP adds it to the attention logits.
        dtype = next(self.model.parameters()).dtype
        hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
        return hidden[:, None, None, :].expand(-1, 1, mask.shape[1], -1)

    def _warn_of_cuts(self, texts: Sequence[str], encoded: Any) -> None:
        cut = [text for text, one in zip(texts, encoded.encodings or (), strict=False) if one.overflowing]
        if cut and not self._warned:
            self._warned = True
            _log.warning(
                "captions longer than max_tokens=%d are cut, for example %r", self._config.max_tokens, cut[0][:80]
            )


def pool(
    states: Float[Tensor, "batch text_tokens width"], mask: Bool[Tensor, "batch text_tokens"], kind: str
) -> Float[Tensor, "batch width"]:
    """Return one vector per text: its first token ("cls"), its last, or the mean over its tokens."""
    if kind == "cls":
        return states[:, 0]
    if kind == "last":
        return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _check_sizes(config: AnyEncoderConfig, folder: Path, sizes: Any) -> None:
    depth = sizes.num_hidden_layers
    wrong = [layer for layer in config.layers if not -depth - 1 <= layer <= depth]
    if wrong:
        raise LeanDiTError(
            f"{folder}: no hidden state {wrong[0]}: the model has {depth} layers, so valid layers are 0 to {depth} "
            f"and -1 to -{depth + 1}; correct text.encoders"
        )
    # T5's positions are relative: they have no limit, even if its config gives one.
    positions = None if config.type == "t5" else getattr(sizes, "max_position_embeddings", None)
    if positions is not None and config.max_tokens > positions:
        raise LeanDiTError(
            f"{folder}: max_tokens={config.max_tokens} is more than the model's {positions} positions; lower it"
        )
