"""Named models, with the figures that the papers print for them."""

from __future__ import annotations

from dataclasses import dataclass

from leandit.errors import unknown
from leandit.models import BackboneConfig, DiTConfig, count_parameters, forward_flops
from leandit.moe import MoEConfig
from leandit.presets import text_models

# depth, dim, heads. DiT has S, B, L and XL; Expert Race has B, M, L and XL.
_SIZES = {
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "M": (16, 960, 16),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
_PATCHES = (2, 4, 8)

# Expert Race, Table 4: total and activated parameters in billions, routers included.
_TABLE_4 = {"B": (0.531, 0.135), "M": (1.106, 0.281), "L": (1.889, 0.479), "XL": (2.788, 0.707)}
_TABLE_4_DENSE = {"B": 0.127, "M": 0.265, "L": 0.453, "XL": 0.669}
# DiT-MoE (arXiv 2407.11633), Table 1, the rows with 8 experts, 2 of them active: total and activated parameters,
# embedders included. Some figures are rounded and some are truncated. Rows with 16 experts are omitted.
_DIT_MOE = {"S": (199e6, 71e6), "B": (795e6, 286e6), "L": (2.8e9, 1.0e9), "XL": (4.1e9, 1.5e9)}
# Expert Race, Table 5: DiT-B/2 with k-in-E, total parameters in billions, without routers.
_TABLE_5 = {
    **{(1, 4): 0.297, (1, 8): 0.524, (1, 16): 0.978},
    **{(2, 8): 0.297, (2, 16): 0.524, (2, 32): 0.977},
    **{(4, 16): 0.297, (4, 32): 0.524, (4, 64): 0.977},
    **{(8, 32): 0.297, (8, 64): 0.524, (8, 128): 0.977},
}

_NOTES = {(1, 16): "A misprint: rows with experts of the same total size have 0.977B, not 0.978B."}


@dataclass(frozen=True)
class NamedModel:
    """A config under the paper's name. Figures are numbers of parameters, None if the paper does not print them.

    `counts_routers` says whether the figures include routers; Expert Race counts in both ways. `not_itemised` is the
    number of parameters in a paper's totals that are neither blocks nor embedders, or None if the figures count blocks
    only. `note` explains a printed figure that does not fit.
    """

    name: str
    config: BackboneConfig
    paper_total: float | None = None
    paper_activated: float | None = None
    counts_routers: bool = True
    not_itemised: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class ModelCard:
    """The row of a model in `leandit models`. `flops` is one forward pass over one picture.

    `total` is `blocks`, as Expert Race counts, or blocks + embedders + not_itemised if `not_itemised` is a number.
    """

    name: str
    total: int
    activated: int
    flops: int
    paper_total: float | None
    paper_activated: float | None
    counts_routers: bool
    blocks: int
    embedders: int | None
    not_itemised: int | None
    note: str | None
    residual_total: float | None
    """100 (total / paper_total - 1), in percent; None without a printed figure."""
    residual_activated: float | None
    """The same for the activated parameters."""


def _dit(size: str, patch: int, moe: MoEConfig | None = None) -> DiTConfig:
    """Return a model for 256-pixel ImageNet: 32 x 32 latents of 4 channels, 1,000 classes."""
    depth, dim, heads = _SIZES[size]
    return DiTConfig(
        dim=dim,
        depth=depth,
        heads=heads,
        patch_size=patch,
        input_size=32,
        channels=4,
        num_classes=1000,
        moe=moe,
    )


def _dit_moe() -> MoEConfig:
    """Return the experts that fit the printed figures: SwiGLU of width 4d in every block, two shared ones of width d.

    The paper describes GELU experts of two matrices. Its public code has SwiGLU experts, and its totals and FLOPs are
    those of the code.
    """
    return MoEConfig(
        strategy="token_choice",
        gate="softmax",
        k=2,
        num_experts=8,
        hidden_split=1,
        expert="swiglu",
        num_shared_experts=2,
        shared_split=4,
        router="linear",
        per_layer_regularisation=False,
    )


def _catalogue() -> dict[str, NamedModel]:
    models = []
    for size in _SIZES:
        for patch in _PATCHES:
            figure = _TABLE_4_DENSE.get(size) if patch == 2 else None
            figure = None if figure is None else figure * 1e9
            models.append(NamedModel(f"DiT-{size}/{patch}", _dit(size, patch), figure, figure))
    for size, (total, activated) in _TABLE_4.items():
        config = _dit(size, 2, MoEConfig(k=4, num_experts=32))
        models.append(NamedModel(f"RaceDiT-{size}/2-4in32", config, total * 1e9, activated * 1e9))
    for (k, num_experts), total in _TABLE_5.items():
        if (k, num_experts) != (4, 32):  # is in the list already, with the figure of Table 4
            config = _dit("B", 2, MoEConfig(k=k, num_experts=num_experts))
            name = f"RaceDiT-B/2-{k}in{num_experts}"
            note = _NOTES.get((k, num_experts))
            models.append(NamedModel(name, config, total * 1e9, counts_routers=False, note=note))
    for size, (total, activated) in _DIT_MOE.items():
        models.append(NamedModel(f"DiT-MoE-{size}/2", _dit(size, 2, _dit_moe()), total, activated, not_itemised=0))
    models.extend(
        NamedModel(row.name, row.config, row.total, row.activated, not_itemised=row.not_itemised, note=row.note)
        for row in text_models.rows()
    )
    return {model.name: model for model in models}


MODELS = _catalogue()


def model_config(name: str) -> BackboneConfig:
    """Return the config of a named model. Raises LeanDiTError with the nearest name if the name is unknown."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    return MODELS[name].config


def model_card(model: NamedModel) -> ModelCard:
    """Count the parameters of a named model in the way of its paper."""
    count = count_parameters(model.config)
    routers = 0 if model.counts_routers else count.router
    outside = count.embedders + model.not_itemised if model.not_itemised is not None else 0
    text_tokens = text_models.TEXT_TOKENS if model.config.conditions_on_text else 0
    total, activated = count.total - routers + outside, count.activated - routers + outside
    return ModelCard(
        model.name,
        total,
        activated,
        forward_flops(model.config, text_tokens),
        model.paper_total,
        model.paper_activated,
        model.counts_routers,
        count.total - routers,
        count.embedders if model.not_itemised is not None else None,
        model.not_itemised,
        model.note,
        _residual(total, model.paper_total),
        _residual(activated, model.paper_activated),
    )


def _residual(ours: int, printed: float | None) -> float | None:
    return None if printed is None else 100 * (ours / printed - 1)
