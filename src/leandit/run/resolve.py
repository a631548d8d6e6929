"""Turn a config with open fields into the complete config of a run."""

from __future__ import annotations

import re

import torch

from leandit.data import Source, naming
from leandit.data.classes import check_same_classes
from leandit.data.latents import fit_latent
from leandit.errors import LeanDiTError
from leandit.grid import Grid
from leandit.models import BackboneConfig
from leandit.moe.strategies import GROUPED
from leandit.run.config import RunConfig
from leandit.text import TextEncoder, check_captions


def resolve(
    config: RunConfig, source: Source | None, text: TextEncoder | None = None, earlier: RunConfig | None = None
) -> RunConfig:
    """Fill in the fields that depend on the data and the machine, and check that model and data fit each other.

    In a dry run the data (None) or the text encoder can be missing. Fields that depend on them then stay open and are
    not checked. `earlier` is the config of a run that is resumed: the run keeps the precision of its first start, also
    on a machine that would choose another. Raises LeanDiTError if model and data do not fit.
    """
    if source is not None and not len(source):
        raise LeanDiTError("data.source: contains no pictures")
    by_data = config.replace(codec=None)
    if config.codec == by_data.codec_config():
        config = by_data  # The codec that the data decide is the same run, named or not.
    channels, height, width = config.sample_shape()
    size = Grid(height, width)
    if config.model.input_size is None and not size.divisible(config.model.patch_size):
        name = "data.image_size" if size == config.data.size else "the size of what the codec returns"
        raise LeanDiTError(f"{name} = {size} is not divisible by model.patch_size = {config.model.patch_size}")
    model = config.model.complete(
        input_size=size.plain,
        channels=channels,
        num_classes=0 if config.model.conditions_on_text else _num_classes(source),
        text_dim=text.text_dim if text else None,
        pooled_dim=text.pooled_dim if text else None,
    )
    _check_fit(config, model.size, model.channels)
    _check_experts(config, model)
    _check_guidance(config, model)
    if source is not None:
        _check_classes(model.num_classes, len(source.class_names))
        _check_first(config, source, "data.source")
    if text is not None:
        _check_text(model, text)
    _check_prompts(config)
    device = resolve_device(config.train.device)
    precision = config.train.precision
    if precision == "auto" and earlier is not None:
        precision = earlier.train.precision
    elif precision == "auto":
        precision = "bf16" if fast_bf16(device) else "fp32"
    train = config.train.replace(device=device, precision=precision)
    return config.replace(model=model, train=train)


def _num_classes(source: Source | None) -> int | None:
    return None if source is None else len(source.class_names)


def _check_fit(config: RunConfig, size: Grid, channels: int | None) -> None:
    expected = config.sample_shape()
    if (channels, size.height, size.width) != expected:
        data = f"data.image_size = {config.data.size} and data.channels = {config.data.channels}"
        made = f"{expected[0]} channels of {Grid(*expected[1:])}"
        coded = "" if config.codec is None else f", of which the codec makes {made}"
        raise LeanDiTError(
            f"model.input_size = {size} and model.channels = {channels} do not fit {data}{coded}; "
            "leave the model's at null to follow the data"
        )


def _check_experts(config: RunConfig, model: BackboneConfig) -> None:
    """Raise LeanDiTError if a capacity leaves no expert a slot, so that no token would have an expert."""
    moe, train = model.moe, config.train
    if moe is None:
        return
    tokens = model.grid.tokens
    visible = train.visible_tokens(tokens) if train.mask_ratio else tokens
    batch = visible * (train.batch_size // train.accumulation)
    for phase, own in (("", visible), ("inference_", tokens)):
        factor, group = getattr(moe, f"{phase}capacity_factor"), getattr(moe, f"{phase}group_tokens")
        # A training batch may not fill a group. How many pictures are drawn together is not known here.
        pool = own if group is None else group if phase else min(group, batch)
        # In expert choice, experts share what is left over, and inference has the factor of training if none is given.
        shared = moe.strategy in GROUPED
        factor = moe.experts_per_token(training=not phase) if shared else factor
        if factor is not None and int(pool * factor / (1 if shared else moe.num_experts) + 1e-6) == 0:
            product = f"{pool} tokens * {factor:g}{'' if shared else f' / {moe.num_experts} experts'}"
            raise LeanDiTError(
                f"model.moe.{phase}capacity_factor = {factor:g} leaves no expert a slot: {product} is below 1; "
                f"raise it, or raise model.moe.{phase}group_tokens"
            )


def _check_guidance(config: RunConfig, model: BackboneConfig) -> None:
    """Raise LeanDiTError if pictures are to be guided away from "no label", which training never shows."""
    scale = config.sampling.guidance.scale
    conditional = model.conditions_on_text or model.num_classes != 0
    if conditional and scale != 1 and not config.can_guide:
        raise LeanDiTError(
            f"sampling.guidance.scale = {scale:g} needs a model that has seen pictures without their label or caption, "
            "and train.label_dropout is 0: set it above 0, or set sampling.guidance.scale=1"
        )


def _check_classes(num_classes: int | None, found: int) -> None:
    if num_classes and num_classes < found:
        raise LeanDiTError(
            f"model.num_classes = {num_classes}, but the data has {found} classes: set it to {found} or null"
        )
    if num_classes and not found:
        raise LeanDiTError(f"model.num_classes = {num_classes}, but the data has no labels: set it to 0 or null")


def check_validation(config: RunConfig, source: Source | None, validation: Source) -> None:
    """Check held-out data as training data are checked: their classes by name, and the first picture.

    Raises LeanDiTError, which names data.validation.
    """
    if source is not None and source.class_names and config.text is None and config.model.num_classes != 0:
        check_same_classes(source.class_names, validation.class_names, "data.validation")
    _check_first(config, validation, "data.validation")


def _check_first(config: RunConfig, source: Source, key: str) -> None:
    """Read one picture, so that a wrong set is found now. Raises LeanDiTError if it has no caption for a text model."""
    with naming(key):
        first = source[0]
        if config.data.holds_latents:
            fit_latent(first, config.data.channels, config.data.size)
    if config.text is not None and not first.captions:
        described = config.data.source if key == "data.source" else config.data.validation
        names = [name for name in ("text_key", "text_column") if hasattr(described, name)]
        way_out = "".join(
            f"; {key}.{name} = {getattr(described, name)!r} is where they are looked for" for name in names
        )
        raise LeanDiTError(f"{key}: its pictures have no captions, which this model is conditioned on{way_out}")


def _check_text(model: BackboneConfig, text: TextEncoder) -> None:
    if (model.text_dim, model.pooled_dim) != (text.text_dim, text.pooled_dim):
        raise LeanDiTError(
            f"model.text_dim = {model.text_dim} and model.pooled_dim = {model.pooled_dim} do not fit the text encoder, "
            f"whose features are {text.text_dim} and {text.pooled_dim} wide; leave the model's at null to follow it"
        )


def _check_prompts(config: RunConfig) -> None:
    """Find errors in the prompts now, instead of when the first grid is drawn."""
    if config.text is not None:
        prompts = config.sampling.prompts
        names = [f"sampling.prompts[{place}]" for place in range(len(prompts))]
        check_captions(prompts, config.text.max_caption_chars, allow_empty=False, names=names)


def resolve_device(device: str | torch.device) -> str:
    """Return the device for "auto", or check the given device. Raises LeanDiTError if it does not exist."""
    device = str(device)  # also a torch.device
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", device):
        raise LeanDiTError(f"device {device!r}: choose auto, cpu, cuda, or cuda:N for one of several GPUs")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise LeanDiTError(f"device {device!r}: torch finds no CUDA device here; use cpu or auto")
    index = device.partition(":")[2]
    if index and int(index) >= (count := torch.cuda.device_count()):
        found = "is only cuda:0" if count == 1 else f"are only cuda:0 to cuda:{count - 1}"
        raise LeanDiTError(f"device {device!r}: there {found} here; use one of them or auto")
    return device


def fast_bf16(device: str) -> bool:
    """Return whether the processor multiplies bf16 matrices natively, which is at least twice as fast as fp32."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
