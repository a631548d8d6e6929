"""A small text-to-picture run on scenes of coloured shapes, for the benchmark `leandit evaluate RUN scenes`."""

from __future__ import annotations

from leandit.data import DataConfig, ScenesConfig
from leandit.diffusion import GuidanceConfig, HeunConfig, RectifiedFlowConfig
from leandit.models import DiTAirConfig
from leandit.moe import MoEConfig
from leandit.run import AdamWConfig, MuonConfig, RunConfig, SamplingConfig, ScheduleConfig, TrainConfig
from leandit.text import SentenceEncoderConfig, TextConfig

PROMPTS = (
    *("a red circle", "a picture of a cat", "an orange cross and a black square", "a tree and a ring"),
    *(
        "three blue squares",
        "four strawberries",
        "a green star above a yellow circle",
        "a fish left of a purple circle",
    ),
)


def scenes_race_air() -> RunConfig:
    """Expert Race in DiT-Air: 2 of 8 experts per token on average, in every layer."""
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
            sample_every=None,
            validate_every=500,
        ),
        sampling=SamplingConfig(
            sampler=HeunConfig(steps=25), guidance=GuidanceConfig(scale=3.0), grid=64, prompts=PROMPTS
        ),
    )
