"""CLIP weights under open_clip's names, as HPSv2 publishes them, in a CLIPModel of transformers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.weights import read_tensors

# Left: open_clip's names, right: those of transformers.
_SINGLE = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_NORMS = {
    "ln_final": "text_model.final_layer_norm",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)$")
_PACKED = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$")
# Buffers that the model makes by itself.
_IGNORED = {"attn_mask"}


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors or .pt file by name, without the "module." of a parallel run."""
    return {name.removeprefix("module."): tensor for name, tensor in read_tensors(path, "a judge").items()}


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same weights under transformers' names; LeanDiTError names the first that is unknown."""
    return dict(pair for name, tensor in state.items() for pair in _renamed(name, tensor))


def clip_from_open_clip(
    state: dict[str, Tensor], picture_heads: int = 16, text_heads: int = 16, activation: str = "gelu"
) -> Any:
    """Return a CLIPModel of transformers with open_clip's weights.

    The weights say the sizes, but not the heads and the activation: the defaults are those of ViT-H/14.
    Raises LeanDiTError for weights of another architecture.
    """
    from transformers import CLIPConfig, CLIPModel

    try:
        tensors = to_transformers(state)
        model = CLIPModel(CLIPConfig(**_config(tensors, picture_heads, text_heads, activation)))
        model.load_state_dict(tensors)
    except LeanDiTError:
        raise
    # The tensors may have any shape, so reading sizes from them can raise any kind of error.
    except Exception as error:
        reason = str(error).split("\n")[0][:200]
        raise LeanDiTError(f"the open_clip weights are no CLIP of two transformers: {reason}") from None
    return model


def _renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name in _IGNORED:
        return
    if name in _SINGLE:
        yield _SINGLE[name], tensor
    elif name in _TRANSPOSED:
        yield _TRANSPOSED[name], tensor.mT.contiguous()
    elif (stem := name.rpartition(".")[0]) in _NORMS:
        yield f"{_NORMS[stem]}.{name.rpartition('.')[2]}", tensor
    elif match := _PACKED.match(name):
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{_layer(match)}.self_attn.{part}_proj.{match[3]}", rows.contiguous()
    elif (match := _BLOCK.match(name)) and match[3] in _IN_BLOCK:
        yield f"{_layer(match)}.{_IN_BLOCK[match[3]]}.{match[4]}", tensor
    else:
        raise LeanDiTError(f"{name}: not a weight of open_clip's ViT; give the weights of a CLIP of two transformers")


def _layer(match: re.Match[str]) -> str:
    return f"{'vision_model' if match[1] else 'text_model'}.encoder.layers.{match[2]}"


def _config(tensors: dict[str, Tensor], picture_heads: int, text_heads: int, activation: str) -> dict[str, Any]:
    words, width = tensors["text_model.embeddings.token_embedding.weight"].shape
    patches = tensors["vision_model.embeddings.patch_embedding.weight"]
    cells = math.isqrt(len(tensors["vision_model.embeddings.position_embedding.weight"]) - 1)
    text = {
        **_tower(tensors, "text_model", width, text_heads, activation),
        "vocab_size": words,
        "max_position_embeddings": len(tensors["text_model.embeddings.position_embedding.weight"]),
        # The last word of the vocabulary ends a text, the one before begins it.
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1,
    }
    size = {"patch_size": patches.shape[-1], "image_size": cells * patches.shape[-1]}
    picture = {**_tower(tensors, "vision_model", len(patches), picture_heads, activation), **size}
    projection = len(tensors["text_projection.weight"])
    return {"text_config": text, "vision_config": picture, "projection_dim": projection}


def _tower(tensors: dict[str, Tensor], tower: str, width: int, heads: int, activation: str) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": len(tensors[f"{tower}.encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": _depth(name for name in tensors if name.startswith(f"{tower}.encoder.layers.")),
        "num_attention_heads": heads,
        "hidden_act": activation,
    }


def _depth(names: Iterable[str]) -> int:
    return 1 + max(int(name.split(".")[3]) for name in names)
