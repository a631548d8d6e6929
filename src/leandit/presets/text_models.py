"""The text-to-picture models of DiT-Air and EC-DiT: configs, printed figures, and parameters that are not itemised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from leandit.models import BackboneConfig, DiTAirConfig, MaskingConfig, MMDiTConfig, PixArtConfig
from leandit.models.dit_air import SIZES
from leandit.moe import MoEConfig

# Length of a caption for FLOPs: that of CLIP, which DiT-Air uses. EC-DiT does not state a length.
TEXT_TOKENS = 77

# 256-pixel pictures as 32 x 32 latents of 8 channels; text features of CLIP/H's width for DiT-Air. EC-DiT does not
# state the width of its text; 1,536 follows from its totals.
_LATENTS: dict[str, Any] = {"input_size": 32, "channels": 8, "patch_size": 2, "num_classes": 0}
_INPUT: dict[str, Any] = {**_LATENTS, "text_dim": 1024, "pooled_dim": 1024}
_EC_DIT_INPUT: dict[str, Any] = {**_LATENTS, "text_dim": 1536, "pooled_dim": 1536}

# Parameters that printed totals contain and papers do not itemise. For DiT-Air and MMDiT they are derived from the
# totals at size B, for EC-DiT from its whole table: the text encoder (670M) and the autoencoder (34M), which the paper
# states, and 14M of unknown purpose. For PixArt-alpha at these sizes no paper prints totals.
NOT_ITEMISED_DIT_AIR = 8_000_000
NOT_ITEMISED_MMDIT = 32_000_000
NOT_ITEMISED_EC_DIT = 718_000_000

# Printed totals of DiT-Air, then of EC-DiT (Table 1).
_PRINTED = {
    "DiT-Air/B": 0.321e9,
    "DiT-Air/B-Lite": 0.230e9,
    "DiT-Air/B-Lite-full": 0.049e9,
    "DiT-Air/L-Lite": 0.7e9,
    "DiT-Air/XXL": 2.8e9,
    "MMDiT/B": 0.902e9,
    "MMDiT/B-shared-AdaLN": 0.631e9,
    "DENSE-XL": 1.47e9,
    "DENSE-XXL": 2.35e9,
    "DENSE-3XL": 4.50e9,
    "DENSE-M": 8.03e9,
    "EC-DiT-XL-8E": 2.51e9,
    "EC-DiT-XL-16E": 3.70e9,
    "EC-DiT-XL-32E": 6.08e9,
    "EC-DiT-XXL-8E": 4.87e9,
    "EC-DiT-XXL-16E": 7.73e9,
    "EC-DiT-XXL-32E": 13.47e9,
    "EC-DiT-3XL-8E": 10.74e9,
    "EC-DiT-3XL-16E": 17.87e9,
    "EC-DiT-3XL-32E": 32.15e9,
    "EC-DiT-M-64E": 97.21e9,
}
_PRINTED_ACTIVATED = {"XL": 1.62e9, "XXL": 2.71e9, "3XL": 5.18e9, "M": 8.27e9}
_NOTES = {
    "DiT-Air/L-Lite": "A misprint: 0.7B is DiT-Air/L without shared attention.",
    **{
        f"EC-DiT-3XL-{num_experts}E": "A misprint: two experts in every second layer, as in the other sizes, are 5.4B "
        "activated, not 5.18B."
        for num_experts in (8, 16, 32)
    },
}

# EC-DiT: layers, width, key-value heads, numbers of experts.
_EC_DIT = {
    "XL": (28, 1152, 6, (8, 16, 32)),
    "XXL": (38, 1536, 6, (8, 16, 32)),
    "3XL": (42, 2304, 6, (8, 16, 32)),
    "M": (38, 3072, 12, (64,)),
}
# The dense M is deeper, so that it is as large as the activated part of EC-DiT-M.
_DENSE_DEPTH = {"XL": 28, "XXL": 38, "3XL": 42, "M": 46}


@dataclass(frozen=True)
class TextModel:
    """A text model under the paper's name. `total` and `activated` are printed figures."""

    name: str
    config: BackboneConfig
    not_itemised: int
    total: float | None = None
    activated: float | None = None
    note: str | None = None


def rows() -> Iterator[TextModel]:
    """Yield the models in the order of the papers' tables: DiT-Air's, then EC-DiT's."""
    for size, shape in SIZES.items():
        yield _row(f"PixArt-alpha/{size}", PixArtConfig(**shape, **_INPUT), 0)
    for size, shape in SIZES.items():
        yield _row(f"MMDiT/{size}", MMDiTConfig(**shape, **_INPUT), NOT_ITEMISED_MMDIT)
        shared = MMDiTConfig(sharing="adaln", **shape, **_INPUT)
        yield _row(f"MMDiT/{size}-shared-AdaLN", shared, NOT_ITEMISED_MMDIT)
    for size, shape in SIZES.items():
        yield _row(f"DiT-Air/{size}", DiTAirConfig(**shape, **_INPUT), NOT_ITEMISED_DIT_AIR)
        attention = DiTAirConfig(sharing="attention", **shape, **_INPUT)
        yield _row(f"DiT-Air/{size}-Lite", attention, NOT_ITEMISED_DIT_AIR)
        block = DiTAirConfig(sharing="block", **shape, **_INPUT)
        yield _row(f"DiT-Air/{size}-Lite-full", block, NOT_ITEMISED_DIT_AIR)
    for size, (_, dim, kv_heads, _) in _EC_DIT.items():
        config = _ec_dit(_DENSE_DEPTH[size], dim, kv_heads, None)
        yield _row(f"DENSE-{size}", config, NOT_ITEMISED_EC_DIT)
    for size, (depth, dim, kv_heads, counts) in _EC_DIT.items():
        for num_experts in counts:
            config = _ec_dit(depth, dim, kv_heads, _expert_choice(num_experts))
            activated = _PRINTED_ACTIVATED.get(size)
            yield _row(f"EC-DiT-{size}-{num_experts}E", config, NOT_ITEMISED_EC_DIT, activated)
    for size, (depth, dim, kv_heads, counts) in _EC_DIT.items():
        for num_experts in counts:
            config = _ec_dit(depth, dim, kv_heads, _gshard(num_experts))
            yield _row(f"GShard-{size}-{num_experts}E", config, NOT_ITEMISED_EC_DIT)


def _row(name: str, config: BackboneConfig, not_itemised: int, activated: float | None = None) -> TextModel:
    total = _PRINTED.get(name)
    return TextModel(name, config, not_itemised, total, total if config.moe is None else activated, _NOTES.get(name))


def _ec_dit(depth: int, dim: int, kv_heads: int, moe: MoEConfig | None) -> PixArtConfig:
    """Return the forms that the paper prints, and those that its totals leave for what it does not print.

    Printed: grouped queries in self-attention (Table 1), keys and values of the full width in cross-attention (eq. 2),
    hidden tokens as in MaskDiT. By the totals: text of width 1,536, MaskDiT's decoder, and 3 vectors of AdaLN a layer.
    """
    return PixArtConfig(
        depth=depth,
        dim=dim,
        heads=dim // 64,
        kv_heads=kv_heads,
        cross_kv_heads=dim // 64,
        adaln="per_layer",
        adaln_vectors=3,
        project_text=False,
        time_dim=None,
        router_norm=False,
        masking=MaskingConfig(),
        moe=moe,
        **_EC_DIT_INPUT,
    )


def _expert_choice(num_experts: int) -> MoEConfig:
    """Return experts of the dense size in every second layer; the router sees x' as it is (eqs. 4 and 5).

    `k` is the paper's capacity factor f_c = 2.0, in training and at inference: C = group tokens * k / E. In training,
    experts choose from groups of 1,024 tokens. At inference the paper has groups of 512 tokens, two pictures; here each
    picture is a group, so that it does not depend on the others. `model.moe.inference_group_tokens=512` is the paper's.
    """
    return MoEConfig(
        strategy="expert_choice",
        gate="softmax",
        k=2,
        num_experts=num_experts,
        hidden_split=1,
        every=2,
        router="linear",
        router_input="plain",
        per_layer_regularisation=False,
        group_tokens=1024,
    )


def _gshard(num_experts: int) -> MoEConfig:
    """EC-DiT's baseline: two experts per token, renormalised, with a capacity. Sizes and groups are those of EC-DiT.

    The paper states neither the capacity factor nor renormalisation. These are the defaults of axlearn, Apple's public
    training code, for training and inference.
    """
    return _expert_choice(num_experts).replace(
        strategy="token_choice", renormalize=True, capacity_factor=2.0, inference_capacity_factor=2.0
    )
