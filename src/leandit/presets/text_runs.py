"""Small text-to-picture runs: on the package's emoji, one for each backbone, and on scenes of coloured shapes.

The runs on emoji have about equal activated FLOPs: with 16 text tokens, a forward pass takes 193 to 221 MFLOPs per
picture. `leandit train NAME --dry-run` shows three times that number, times the batch size. Captions are like "red
apple, noto emoji". Training never shows the held-out pairs.
"""

from __future__ import annotations

from leandit.autoencoder import PixelsConfig
from leandit.data import DataConfig, EmojiConfig, ScenesConfig
from leandit.diffusion import GuidanceConfig, HeunConfig, RectifiedFlowConfig
from leandit.models import DiTAirConfig, MMDiTConfig, ModelConfig, PixArtConfig
from leandit.moe import MoEConfig
from leandit.run import AdamWConfig, LossWeights, MuonConfig, RunConfig, SamplingConfig, ScheduleConfig, TrainConfig
from leandit.text import SentenceEncoderConfig, TextConfig

_EMOJI_PROMPTS = (
    *("red apple, noto emoji", "red apple, fluent emoji"),
    *("grinning face with smiling eyes, noto emoji", "grinning face with smiling eyes, fluent emoji"),
    *("blue heart, noto emoji", "tulip, fluent emoji", "cat face, noto emoji", "pizza, fluent emoji"),
)
_SCENE_PROMPTS = (
    *("a red circle", "a picture of a cat", "an orange cross and a black square", "a tree and a ring"),
    *(
        "three blue squares",
        "four strawberries",
        "a green star above a yellow circle",
        "a fish left of a purple circle",
    ),
)
_SIZE = {"dim": 128, "heads": 4, "patch_size": 4}


def _run(name: str, model: ModelConfig) -> RunConfig:
    # Expert Race adds two losses to the objective; EC-DiT adds none.
    race = model.moe is not None and model.moe.routing_name == "expert_race"
    losses = LossWeights() if race else LossWeights(router_similarity=0.0)
    if model.moe is None or not model.moe.has_target_head:
        losses = losses.replace(per_layer_regularisation=0.0)
    return RunConfig(
        name=name,
        model=model,
        text=TextConfig(encoders=(SentenceEncoderConfig(),)),
        objective=RectifiedFlowConfig(prediction="x0"),
        data=DataConfig(source=EmojiConfig(), validation=EmojiConfig(split="held_out"), image_size=32),
        optimizer=MuonConfig(lr=2e-2, adamw=AdamWConfig(lr=2e-3, beta2=0.95)),
        schedule=ScheduleConfig(warmup_steps=50, decay="linear", decay_share=0.6),
        losses=losses,
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
            sampler=HeunConfig(steps=25), guidance=GuidanceConfig(scale=3.0), grid=64, prompts=_EMOJI_PROMPTS
        ),
    )


def emoji_pixart() -> RunConfig:
    """PixArt-alpha: text by cross-attention, and adaLN-single."""
    return _run("emoji-pixart", PixArtConfig(depth=6, **_SIZE))


def emoji_ec_dit() -> RunConfig:
    """EC-DiT in the forms that its paper prints; experts choose from 16 pictures in training, from one in sampling.

    Experts have the dense size, two per token on average: f_c = 2 in training and in sampling. The text encoder is the
    small one of all presets on emoji.
    """
    moe = MoEConfig(
        strategy="expert_choice",
        gate="softmax",
        k=2,
        num_experts=8,
        hidden_split=1,
        every=2,
        router="linear",
        router_input="plain",
        per_layer_regularisation=False,
        group_tokens=1024,
    )
    model = PixArtConfig(
        depth=5,
        adaln="per_layer",
        adaln_vectors=3,
        kv_heads=2,
        cross_kv_heads=4,
        project_text=False,
        time_dim=None,
        router_norm=False,
        moe=moe,
        **_SIZE,
    )
    # Most of its branches have no gates that start at zero, so every step has its full effect and must be smaller.
    return _run("emoji-ec-dit", model).replace(optimizer=MuonConfig(lr=6e-3, adamw=AdamWConfig(lr=2e-3, beta2=0.95)))


def emoji_mmdit() -> RunConfig:
    """MMDiT: separate streams for text and image, with joint attention."""
    return _run("emoji-mmdit", MMDiTConfig(depth=6, **_SIZE))


def emoji_dit_air() -> RunConfig:
    """DiT-Air: one stream, one AdaLN for all layers."""
    return _run("emoji-dit-air", DiTAirConfig(depth=6, **_SIZE))


def emoji_dit_air_lite() -> RunConfig:
    """DiT-Air-Lite: all layers also share their attention."""
    return _run("emoji-dit-air-lite", DiTAirConfig(depth=6, sharing="attention", **_SIZE))


def emoji_race_air() -> RunConfig:
    """Expert Race in DiT-Air: 2 of 8 experts per token on average, in every layer."""
    return _run("emoji-race-air", DiTAirConfig(depth=6, moe=MoEConfig(k=2, num_experts=8), **_SIZE))


def emoji() -> RunConfig:
    """The run of the model in the package: Expert Race in DiT-Air, slightly less than 4 million weights.

    As the quickstart, it predicts the velocity, sees white as 0 and learns without per-layer regularisation, so that
    experts go to the content. The model in the package started from one that had learned x0 for 8,000 steps.
    """
    moe = MoEConfig(k=2, num_experts=6, per_layer_regularisation=False)
    run = _run("emoji", DiTAirConfig(depth=6, moe=moe, **_SIZE))
    long = run.train.replace(steps=8_000, ema_decay=0.9995, sample_every=2000, validate_every=500)
    return run.replace(
        objective=RectifiedFlowConfig(prediction="velocity"),
        codec=PixelsConfig(shift=1.0),
        train=long,
        schedule=ScheduleConfig(warmup_steps=50, decay="linear", decay_share=0.4375),
    )


def scenes_race_air() -> RunConfig:
    """Expert Race in DiT-Air on scenes of coloured shapes, for the benchmark `leandit evaluate RUN scenes`."""
    moe = MoEConfig(k=2, num_experts=8)
    return RunConfig(
        name="scenes-race-air",
        model=DiTAirConfig(dim=128, heads=4, patch_size=4, depth=5, moe=moe),
        text=TextConfig(encoders=(SentenceEncoderConfig(),)),
        objective=RectifiedFlowConfig(prediction="x0"),
        data=DataConfig(source=ScenesConfig(), validation=ScenesConfig(split="held_out", length=512), image_size=32),
        optimizer=MuonConfig(lr=2e-2, adamw=AdamWConfig(lr=2e-3, beta2=0.95)),
        schedule=ScheduleConfig(warmup_steps=50, decay="linear", decay_share=0.6),
        train=TrainConfig(
            steps=4000,
            batch_size=64,
            ema_decay=0.998,
            log_every=20,
            checkpoint_every=500,
            validate_every=500,
        ),
        sampling=SamplingConfig(
            sampler=HeunConfig(steps=25), guidance=GuidanceConfig(scale=3.0), grid=64, prompts=_SCENE_PROMPTS
        ),
    )
