"""Build the torch optimisers of a run, and convert their state to named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.run.recipe import AdafactorConfig, AdamWConfig, MuonConfig, OptimizerConfig, RMSPropConfig
from leandit.training.adafactor import Adafactor
from leandit.training.muon import Muon
from leandit.training.rmsprop import RMSProp

# Names of the matrices for Muon: those that map tokens to tokens inside a block of the backbone.
_MUON_PARTS = ("attention.", "feed_forward.", "experts.w", "shared_experts.", "router.hidden.")


def build_optimizers(config: OptimizerConfig, model: nn.Module) -> list[torch.optim.Optimizer]:
    """Return torch optimisers that together update every parameter of the model once."""
    options = config.model_dump(exclude={"type"})
    match config:
        case AdamWConfig():
            return [_adamw(config, list(model.parameters()))]
        case AdafactorConfig():
            return [Adafactor(model.parameters(), **options)]
        case RMSPropConfig():
            return [RMSProp(model.parameters(), **options)]
        case MuonConfig():
            return _muon(config, model)


def _muon(config: MuonConfig, model: nn.Module) -> list[torch.optim.Optimizer]:
    named = dict(model.named_parameters())
    matrices = [
        name
        for name, p in named.items()
        if p.ndim >= 2 and any(part in name for part in _MUON_PARTS) and not name.startswith("text_encoder.")
    ]
    if not matrices:
        raise LeanDiTError(
            f"optimizer.type = muon: no matrix of this model is in a part that Muon knows ({', '.join(_MUON_PARTS)}); "
            "name its parts so, or choose another optimiser"
        )
    rest = [p for name, p in named.items() if name not in set(matrices)]
    muon = Muon(
        [named[name] for name in matrices],
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        iterations=config.iterations,
    )
    return [muon, _adamw(config.adamw, rest)]


def _adamw(config: AdamWConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        # The fused form does not know the meta device, on which `state_size` counts.
        fused=not any(parameter.is_meta for parameter in parameters),
    )


def optimizer_tensors(optimizers: list[torch.optim.Optimizer], model: nn.Module) -> dict[str, Tensor]:
    """Return the state of all optimisers as tensors named `<parameter>.<slot>`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}.{slot}": value
        for optimizer in optimizers
        for parameter, slots in optimizer.state.items()
        for slot, value in slots.items()
    }


def state_size(config: OptimizerConfig, shapes: nn.Module) -> int:
    """Return how many numbers the optimisers' state has after a step of a model on the meta device."""
    optimizers = build_optimizers(config, shapes)
    for parameter in shapes.parameters():
        parameter.grad = torch.empty_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    return sum(tensor.numel() for tensor in optimizer_tensors(optimizers, shapes).values())


def load_optimizer_tensors(
    optimizers: list[torch.optim.Optimizer], model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Restore the state from `optimizer_tensors`. Raises LeanDiTError if it belongs to another model."""
    parameters = dict(model.named_parameters())
    owner = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for key, value in tensors.items():
        name, _, slot = key.rpartition(".")
        if name not in parameters:
            raise LeanDiTError(f"the checkpoint's optimiser state has {key!r}, but the model has no parameter {name!r}")
        parameter = parameters[name]
        # AdamW counts steps in a CPU scalar; all other state is on the device of its parameter.
        device = value.device if slot == "step" and parameter.device.type == "cpu" else parameter.device
        owner[parameter].state[parameter][slot] = value.to(device).clone()
