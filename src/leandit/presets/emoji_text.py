"""Small text-to-picture runs on the bundled emoji: one for each backbone, at about equal activated FLOPs.

At 16 text tokens a forward pass takes 193 to 221 MFLOPs a picture in all of them (`leandit train NAME --dry-run` shows
three times that by the batch). Captions are like "red apple, noto emoji"; held-out pairs are never shown.
"""

from __future__ import annotations

from leandit.data import DataConfig, EmojiConfig
from leandit.diffusion import GuidanceConfig, HeunConfig, RectifiedFlowConfig
from leandit.models import DiTAirConfig, MMDiTConfig, ModelConfig, PixArtConfig
from leandit.moe import MoEConfig
from leandit.run import AdamWConfig, LossWeights, MuonConfig, RunConfig, SamplingConfig, ScheduleConfig, TrainConfig
from leandit.text import SentenceEncoderConfig, TextConfig

PROMPTS = (
    *("red apple, noto emoji", "red apple, fluent emoji"),
    *("grinning face with smiling eyes, noto emoji", "grinning face with smiling eyes, fluent emoji"),
    *("blue heart, noto emoji", "tulip, fluent emoji", "cat face, noto emoji", "pizza, fluent emoji"),
)
_SIZE = {"dim": 128, "heads": 4, "patch_size": 4}


def _run(name: str, model: ModelConfig) -> RunConfig:
    # Expert Race's two losses; EC-DiT has none beside the objective.
    race = model.moe is not None and model.moe.routing_name == "expert_race"
    return RunConfig(
        name=name,
        model=model,
        text=TextConfig(encoders=(SentenceEncoderConfig(),)),
        objective=RectifiedFlowConfig(prediction="x0"),
        data=DataConfig(source=EmojiConfig(), validation=EmojiConfig(split="held_out"), image_size=32),
        optimizer=MuonConfig(lr=2e-2, adamw=AdamWConfig(lr=2e-3, beta2=0.95)),
        schedule=ScheduleConfig(warmup_steps=50, decay="linear", decay_share=0.6),
        losses=LossWeights() if race else LossWeights(router_similarity=0.0, per_layer_regularisation=0.0),
        train=TrainConfig(
            steps=6000,
            batch_size=64,
            ema_decay=0.998,
            log_every=20,
            checkpoint_every=500,
            sample_every=1000,
            validate_every=100,
        ),
        sampling=SamplingConfig(
            sampler=HeunConfig(steps=25), guidance=GuidanceConfig(scale=3.0), grid=64, prompts=PROMPTS
        ),
    )


def emoji_pixart() -> RunConfig:
    """PixArt-alpha: the text by cross-attention, adaLN-single."""
    return _run("emoji-pixart", PixArtConfig(depth=6, **_SIZE))


def emoji_ec_dit() -> RunConfig:
    """EC-DiT: experts of the dense size, two a token on average, choose out of 16 pictures, one when sampling."""
    moe = MoEConfig(
        strategy="expert_choice",
        gate="softmax",
        k=2,
        num_experts=8,
        hidden_split=1,
        every=2,
        router="linear",
        per_layer_regularisation=False,
        group_tokens=1024,
    )
    model = PixArtConfig(depth=5, adaln="per_layer", kv_heads=2, project_text=False, time_dim=None, moe=moe, **_SIZE)
    # Its branches have no gates that start at zero, so that a step moves them as they are: smaller steps.
    return _run("emoji-ec-dit", model).replace(optimizer=MuonConfig(lr=6e-3, adamw=AdamWConfig(lr=2e-3, beta2=0.95)))


def emoji_mmdit() -> RunConfig:
    """MMDiT: text and image in streams of their own that meet in attention."""
    return _run("emoji-mmdit", MMDiTConfig(depth=6, **_SIZE))


def emoji_dit_air() -> RunConfig:
    """DiT-Air: one stream, one AdaLN for all layers."""
    return _run("emoji-dit-air", DiTAirConfig(depth=6, **_SIZE))


def emoji_dit_air_lite() -> RunConfig:
    """DiT-Air-Lite: attention shared by all layers, too."""
    return _run("emoji-dit-air-lite", DiTAirConfig(depth=6, sharing="attention", **_SIZE))


def emoji_race_air() -> RunConfig:
    """Expert Race in DiT-Air: 2 of 8 experts a token on average, in every layer."""
    return _run("emoji-race-air", DiTAirConfig(depth=6, moe=MoEConfig(k=2, num_experts=8), **_SIZE))


def emoji() -> RunConfig:
    """The run of the model that comes with the package: Expert Race in DiT-Air, just under 4 million weights."""
    run = _run("emoji", DiTAirConfig(depth=6, moe=MoEConfig(k=2, num_experts=6), **_SIZE))
    long = run.train.replace(steps=8_000, ema_decay=0.9995, sample_every=2000, validate_every=500)
    return run.replace(train=long, schedule=ScheduleConfig(warmup_steps=50, decay="linear", decay_share=0.4375))
