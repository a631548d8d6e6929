"""The runs of the papers at full size. `leandit train NAME --dry-run` shows a run and its cost.

They learn latents (LatentsConfig) from folders in data/. Later stages start from runs/NAME of the stage before.
Override both paths if your files are elsewhere. Everything that a paper states is used as stated. Everything else is a
choice of this project. The docstring of a run lists its own choices; these are the choices for all runs:

- gradients are clipped at norm 1, the EMA decay is 0.9999, a tenth of captions or labels is dropped, no weight decay;
- the runs are for one device, so batches are split into micro-batches (`train.accumulation`) and blocks are recomputed
  in the backward pass; the papers distribute a batch over many devices;
- the intervals of checkpoints and log lines; training draws no pictures, because there is no autoencoder.

The optimiser starts without state in each stage.
"""

from __future__ import annotations

from leandit.data import DataConfig, LatentsConfig
from leandit.diffusion import (
    EulerConfig,
    GuidanceConfig,
    HeunSDEConfig,
    LogitNormalTimesteps,
    RectifiedFlowConfig,
    size_shift,
)
from leandit.models import BackboneConfig
from leandit.presets.models import model_config
from leandit.run import AdamWConfig, LossWeights, RunConfig, SamplingConfig, ScheduleConfig, StartConfig, TrainConfig
from leandit.run.recipe import AdafactorConfig, RMSPropConfig
from leandit.text import ClipEncoderConfig, LlmEncoderConfig, T5EncoderConfig, TextConfig

# Sides of the latents of 256- and 512-pixel pictures, by an autoencoder that shrinks them 8 times.
_SIDE_256, _SIDE_512 = 32, 64

# CLIP/H and a language model replace Apple's own models, which are not public. In the paper all CLIP layers from the
# middle on are equally good, so this uses the last. From the 36 layers of the language model it uses the hidden states
# at one half and at three quarters.
_CLIP = ClipEncoderConfig(path="laion/CLIP-ViT-H-14-laion2B-s32B-b79K", bidirectional=True, pooled="mean")
_LLM = LlmEncoderConfig(path="HuggingFaceTB/SmolLM3-3B-Base", layers=(18, 27))
_CLIP_DIM, _LLM_DIM = 1024, 2048
# EC-DiT's encoder is T5-based and has 670M parameters; it is not public, and its width, 1,536 by the totals, is that of
# no public T5. The encoder of flan-t5-large has 341M parameters and width 1,024, that of flan-t5-xl 1.2B and 2,048.
_T5 = T5EncoderConfig(path="google/flan-t5-large")
_T5_DIM = 1024
_TWO_ENCODERS = TextConfig(encoders=(_CLIP, _LLM))
_TWO_ENCODERS_DIMS = {"text_dim": _CLIP_DIM + 2 * _LLM_DIM, "pooled_dim": _CLIP_DIM + _LLM_DIM}


def _train(steps: int, batch_size: int, micro_batch: int, mask_ratio: float = 0.0) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        accumulation=batch_size // micro_batch,
        activation_checkpointing=True,
        log_every=100,
        checkpoint_every=min(5_000, steps // 5),
        sample_every=None,
        mask_ratio=mask_ratio,
    )


def _latents(name: str, side: int, channels: int) -> DataConfig:
    return DataConfig(
        source=LatentsConfig(path=f"data/{name}"), image_size=side, channels=channels, flip=0.0, num_threads=8
    )


def _dit_air(
    name: str,
    data: DataConfig,
    model: BackboneConfig,
    text: TextConfig,
    train: TrainConfig,
    start: StartConfig | None = None,
) -> RunConfig:
    """DiT-Air, section on training: Adafactor at a constant 1e-4; Heun's SDE solver, 50 steps, guidance 7.5.

    The paper states b1 = 0.9 and b2 = 0.999. All else of Adafactor is as in axlearn, the library of the paper. The text
    encoders are frozen. Synthetic and original captions have the ratio 9 : 1, which the weights in the data must set.
    Times are logit-normal with SD3's location 0 and scale 1. For larger pictures the training times and the sampling
    times are shifted.
    """
    shift = size_shift(_SIDE_256, data.image_size)
    return RunConfig(
        name=name,
        model=model,
        start=start,
        text=text,
        objective=RectifiedFlowConfig(timesteps=LogitNormalTimesteps(shift=shift)),
        data=data,
        optimizer=AdafactorConfig(lr=1e-4, beta1=0.9, beta2=0.999),
        schedule=ScheduleConfig(),
        train=train,
        sampling=SamplingConfig(
            sampler=HeunSDEConfig(steps=50, shift=shift), guidance=GuidanceConfig(scale=7.5), grid=16
        ),
    )


def dit_air_b_256() -> RunConfig:
    """DiT-Air/B as in the paper's ablations: 1M steps with batches of 4,096 at 256 pixels, only bidirectional CLIP/H.

    The public CLIP was trained with causal attention. Here it is used bidirectionally without further training.
    """
    return _dit_air(
        "dit-air-b-256",
        _latents("dit-air-256", _SIDE_256, channels=8),
        model=model_config("DiT-Air/B").replace(text_dim=_CLIP_DIM, pooled_dim=_CLIP_DIM),
        text=TextConfig(encoders=(_CLIP,)),
        train=_train(1_000_000, 4096, micro_batch=64),
    )


def dit_air_xxl_256() -> RunConfig:
    """DiT-Air/XXL, first stage: 500k steps with batches of 4,096 at 256 pixels, CLIP/H and a language model."""
    return _dit_air(
        "dit-air-xxl-256",
        _latents("dit-air-256", _SIDE_256, channels=8),
        model=model_config("DiT-Air/XXL").replace(**_TWO_ENCODERS_DIMS),
        text=_TWO_ENCODERS,
        train=_train(500_000, 4096, micro_batch=32),
    )


def dit_air_xxl_512() -> RunConfig:
    """DiT-Air/XXL, second stage: 100k steps with batches of 2,048 at 512 pixels.

    For fine-tuning, the paper shifts times so that the log-SNR stays that of the low resolution. It does not say
    whether it does so in this stage. Here both stages shift times. The stage starts from the averaged weights.
    """
    return _dit_air(
        "dit-air-xxl-512",
        _latents("dit-air-512", _SIDE_512, channels=8),
        model=model_config("DiT-Air/XXL").replace(input_size=_SIDE_512, **_TWO_ENCODERS_DIMS),
        start=StartConfig(path="runs/dit-air-xxl-256"),
        text=_TWO_ENCODERS,
        train=_train(100_000, 2048, micro_batch=8),
    )


def dit_air_xxl_sft() -> RunConfig:
    """DiT-Air/XXL, supervised fine-tuning: 2.5k steps with batches of 64 on 1,033 chosen pairs, with shifted times.

    The paper does not state the learning rate and the share of dropped captions; they are those of the earlier stages.
    """
    return dit_air_xxl_512().replace(
        name="dit-air-xxl-sft",
        data=_latents("dit-air-sft-512", _SIDE_512, channels=8).model_dump(),
        start=StartConfig(path="runs/dit-air-xxl-512").model_dump(),
        train=_train(2_500, 64, micro_batch=8).model_dump(),
    )


def _ec_dit(size: str) -> RunConfig:
    """EC-DiT, section on training: 800k steps with batches of 4,096, half of the tokens hidden; RMSProp, 20k warm-up.

    The capacity factor f_c is 2.0 in training and at inference (`model.moe.k`, which `model.moe.capacity_factor` and
    `model.moe.inference_capacity_factor` replace by any number). In training, experts choose from 1,024 tokens: 8
    pictures with 128 visible tokens each.

    Not as in the paper: the text encoder, flan-t5-large, has 341M parameters and width 1,024, since the paper's encoder
    of 670M, which is based on T5, is not public. When sampling, experts choose within each picture, so that a picture
    does not depend on the others; the paper's groups of two pictures are `model.moe.inference_group_tokens=512`.

    Choices of this project: RMSProp's damped momentum of 0.9 and decay of 0.99, a constant rate after the warm-up,
    logit-normal times with location 0 and scale 1, the masking decoder and its loss (from MaskDiT), Euler's method with
    50 steps, and no guidance.
    """
    model = model_config(f"EC-DiT-{size}-32E")
    return RunConfig(
        name=f"ec-dit-{size.lower()}-32e",
        model=model.replace(text_dim=_T5_DIM, pooled_dim=_T5_DIM),
        text=TextConfig(encoders=(_T5,)),
        objective=RectifiedFlowConfig(timesteps=LogitNormalTimesteps()),
        data=_latents("ec-dit-256", _SIDE_256, channels=8),
        optimizer=RMSPropConfig(lr=1e-4),
        schedule=ScheduleConfig(warmup_steps=20_000),
        losses=LossWeights(router_similarity=0, per_layer_regularisation=0),
        train=_train(800_000, 4096, micro_batch=32, mask_ratio=0.5),
        sampling=SamplingConfig(sampler=EulerConfig(steps=50), grid=16),
    )


def _unmasked(masked: RunConfig) -> RunConfig:
    """Return the fine-tuning stage without hidden tokens that follows a masked stage. The decoder stays, as in MaskDiT.

    EC-DiT does not mention such a stage; MaskDiT has one. Choices of this project: 50k steps, batch size and rate of
    the masked stage, and 1k steps of warm-up, in which RMSProp collects its squares again.
    """
    return masked.replace(
        name=f"{masked.name}-unmasked",
        start=StartConfig(path=f"runs/{masked.name}").model_dump(),
        schedule=ScheduleConfig(warmup_steps=1_000).model_dump(),
        train=_train(50_000, 4096, micro_batch=32).model_dump(),
    )


def ec_dit_xl_32e() -> RunConfig:
    """EC-DiT-XL with 32 experts, with a text encoder of 341M parameters in place of the paper's 670M."""
    return _ec_dit("XL")


def ec_dit_xl_32e_unmasked() -> RunConfig:
    """EC-DiT-XL with 32 experts, fine-tuned on all tokens."""
    return _unmasked(ec_dit_xl_32e())


def ec_dit_3xl_32e() -> RunConfig:
    """EC-DiT-3XL with 32 experts, with a text encoder of 341M parameters in place of the paper's 670M."""
    return _ec_dit("3XL")


def ec_dit_3xl_32e_unmasked() -> RunConfig:
    """EC-DiT-3XL with 32 experts, fine-tuned on all tokens."""
    return _unmasked(ec_dit_3xl_32e())


def race_dit_xl() -> RunConfig:
    """RaceDiT-XL/2-4in32 on ImageNet at 256 pixels, as for Table 7: 1.7M steps with batches of 1,024.

    Expert Race states guidance 4.0 for the pictures that it shows, but not for its tables. It does not state
    autoencoder, objective, optimiser, learning rate, sampler and loss weights. Choices of this project: 4-channel
    latents; rectified flow with logit-normal times; AdamW at a constant 1e-4 and Euler's method with 250 steps, as in
    the comparisons of later papers; the default LossWeights. The race is over a micro-batch of 64.
    """
    return RunConfig(
        name="race-dit-xl",
        model=model_config("RaceDiT-XL/2-4in32"),
        objective=RectifiedFlowConfig(timesteps=LogitNormalTimesteps()),
        data=_latents("imagenet-256", _SIDE_256, channels=4),
        optimizer=AdamWConfig(lr=1e-4),
        train=_train(1_700_000, 1024, micro_batch=64),
        sampling=SamplingConfig(sampler=EulerConfig(steps=250), guidance=GuidanceConfig(scale=4.0), grid=16),
    )
