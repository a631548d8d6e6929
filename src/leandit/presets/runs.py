"""Complete runs by name. Each preset is a function that returns a config."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from leandit.autoencoder import PixelsConfig
from leandit.config import Tree, apply_overrides, read_tree, validate
from leandit.data import DataConfig, EmojiConfig, IdxConfig
from leandit.diffusion import GuidanceConfig, HeunConfig
from leandit.errors import LeanDiTError, unknown
from leandit.models import DiTConfig
from leandit.moe import MoEConfig
from leandit.presets import papers, text_runs
from leandit.presets.models import model_config
from leandit.run import AdamWConfig, LossWeights, MuonConfig, RunConfig, SamplingConfig, ScheduleConfig, TrainConfig

# Pictures that look unlike their class, such as a heart on an envelope. A run of minutes cannot learn these few.
_UNTYPICAL = (
    *("letter", "decoration", "broken", "arrow", "ribbon", "two hearts", "revolving", "sparkling", "mending"),
    *("exclamation", "fire", "white flower", "wilted", "bouquet", "melting", "upside", "rolling", "halo", "weary"),
)


def quickstart() -> RunConfig:
    """A small Race-DiT on five classes of the package's emoji. It trains in minutes on two CPU cores.

    So that experts go to the content of the pictures, the model predicts the velocity, sees white, the background, as
    0, and learns without per-layer regularisation: docs/design/allocation.md. For pictures without a white background
    set codec=null.
    """
    return RunConfig(
        name="quickstart",
        model=DiTConfig(
            dim=128,
            depth=4,
            heads=4,
            patch_size=4,
            moe=MoEConfig(k=2, num_experts=8, per_layer_regularisation=False),
        ),
        codec=PixelsConfig(shift=1.0),
        data=DataConfig(
            source=EmojiConfig(
                classes={
                    "flower": ("plant-flower",),
                    "fruit": ("food-fruit",),
                    "face": ("face-smiling", "face-affection", "face-tongue"),
                    "heart": ("heart",),
                    "cat": ("cat-face",),
                },
                exclude_names=_UNTYPICAL,
            ),
            image_size=32,
            flip=0.5,
        ),
        optimizer=MuonConfig(lr=2e-2, adamw=AdamWConfig(lr=2e-3, beta2=0.95)),
        schedule=ScheduleConfig(warmup_steps=50, decay="linear", decay_share=0.6),
        losses=LossWeights(per_layer_regularisation=0.0),
        train=TrainConfig(steps=1100, batch_size=64, ema_decay=0.995, log_every=10, checkpoint_every=500),
        sampling=SamplingConfig(sampler=HeunConfig(steps=25), guidance=GuidanceConfig(scale=2.0), grid=50),
    )


def tiny() -> RunConfig:
    """A model that trains in seconds, for tests and for trying commands. Its samples do not look like pictures yet."""
    return RunConfig(
        name="tiny",
        model=DiTConfig(dim=32, depth=2, heads=2, patch_size=8, moe=MoEConfig(k=2, num_experts=4)),
        data=DataConfig(source=EmojiConfig(classes={"heart": ("heart",), "cat": ("cat-face",)}), image_size=32),
        optimizer=AdamWConfig(lr=1e-3),
        train=TrainConfig(
            steps=20,
            batch_size=8,
            ema_decay=0.9,
            log_every=5,
            checkpoint_every=10,
            sample_every=None,
            precision="fp32",
        ),
        sampling=SamplingConfig(sampler=HeunConfig(steps=4), grid=8),
    )


def fashion_mnist() -> RunConfig:
    """A Race-DiT on Fashion-MNIST, read from the folder of Debian's package dataset-fashion-mnist. Black is its 0."""
    folder = "/usr/share/datasets/fashion-mnist"
    names = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
    return quickstart().replace(
        name="fashion-mnist",
        codec=PixelsConfig(shift=-1.0),
        data=DataConfig(
            source=IdxConfig(
                images=f"{folder}/train-images-idx3-ubyte.gz",
                labels=f"{folder}/train-labels-idx1-ubyte.gz",
                class_names=tuple(names),
            ),
            image_size=32,
            channels=1,
            flip=0.5,
        ),
        train=TrainConfig(steps=3000, batch_size=64, ema_decay=0.998, log_every=20, checkpoint_every=500),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "quickstart": quickstart,
    "tiny": tiny,
    "fashion-mnist": fashion_mnist,
    "emoji-pixart": text_runs.emoji_pixart,
    "emoji-ec-dit": text_runs.emoji_ec_dit,
    "emoji-mmdit": text_runs.emoji_mmdit,
    "emoji-dit-air": text_runs.emoji_dit_air,
    "emoji-dit-air-lite": text_runs.emoji_dit_air_lite,
    "emoji-race-air": text_runs.emoji_race_air,
    "emoji": text_runs.emoji,
    "scenes-race-air": text_runs.scenes_race_air,
    "dit-air-b-256": papers.dit_air_b_256,
    "dit-air-xxl-256": papers.dit_air_xxl_256,
    "dit-air-xxl-512": papers.dit_air_xxl_512,
    "dit-air-xxl-sft": papers.dit_air_xxl_sft,
    "ec-dit-xl-32e": papers.ec_dit_xl_32e,
    "ec-dit-xl-32e-unmasked": papers.ec_dit_xl_32e_unmasked,
    "ec-dit-3xl-32e": papers.ec_dit_3xl_32e,
    "ec-dit-3xl-32e-unmasked": papers.ec_dit_3xl_32e_unmasked,
    "race-dit-xl": papers.race_dit_xl,
}


def run_config(name: str | os.PathLike[str], overrides: list[str] | None = None) -> RunConfig:
    """Return the config of a preset or of a .json, .toml or .yaml file, with `a.b.c=value` overrides.

    A file can start from a preset with `preset = "quickstart"` and state only changes; without `preset` it must be
    complete. `model` can be the name of a model, as in `model=DiT-S/2`: this sets its shape, and the data sets its
    input and its text. Raises LeanDiTError for an unknown preset, key or model, or an invalid value.
    """
    name = os.fspath(name)
    if name.endswith((".json", ".toml", ".yaml", ".yml")):
        tree, source = _from_file(Path(name)), name
    elif name in PRESETS:
        tree, source = PRESETS[name]().model_dump(mode="json"), f"preset {name}"
    elif os.path.isfile(os.path.join(name, "config.json")):  # False also for a folder that may not be read
        raise LeanDiTError(
            f"{name} is a run; continue it with `leandit resume {name}`, or train {name}/config.json anew"
        )
    else:
        raise unknown("preset", name, PRESETS)
    if overrides:
        source += " with overrides"
    named = [override for override in overrides or [] if override.startswith(f"{_MODEL}=") and "{" not in override]
    for override in named:
        tree = {**tree, _MODEL: override.partition("=")[2]}
    if isinstance(tree.get(_MODEL), str):
        fields = model_config(str(tree[_MODEL])).model_dump(mode="json")
        tree = {**tree, _MODEL: {**fields, **dict.fromkeys(_LEFT_TO_DATA)}}
    return validate(RunConfig, apply_overrides(tree, [o for o in overrides or [] if o not in named], RunConfig), source)


_MODEL = "model"
# Fields of a named model that the data set.
_LEFT_TO_DATA = ("input_size", "channels", "num_classes", "text_dim", "pooled_dim")


def _from_file(path: Path) -> Tree:
    tree = read_tree(path)
    tree.pop("$schema", None)  # for editors
    preset = tree.pop("preset", None)
    if preset is None:
        return tree
    if not isinstance(preset, str) or preset not in PRESETS:
        error = unknown("preset", str(preset), PRESETS)
        raise LeanDiTError(f"{path}: {error}")
    return _merge(PRESETS[preset]().model_dump(mode="json"), tree)


def _merge(base: Tree, changes: Tree) -> Tree:
    """Return base with the changes applied. If the `type` of a table changes, the whole table is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        same_kind = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type")
        )
        merged[key] = _merge(old, value) if same_kind else value  # type: ignore[arg-type]
    return merged
