"""Training with hidden tokens: the loss against a loop over tokens, masks by (seed, sample), runs that resume."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leandit.api import load, sample
from leandit.data import EmojiConfig, build_source
from leandit.diffusion import DDPMConfig, Noised, Objective, ObjectiveConfig, RectifiedFlowConfig, build_objective
from leandit.errors import LeanDiTError
from leandit.models import Conditioning, MaskingConfig, PixArt, PixArtConfig, forward_flops
from leandit.moe import MoEConfig
from leandit.presets import run_config
from leandit.random import Stream, subsets
from leandit.run import RunFolder, read_metrics
from leandit.run.checkpoint import Checkpoint, find_newest
from leandit.run.config import LossWeights, TrainConfig
from leandit.run.resolve import resolve
from leandit.text import TextFeatures
from leandit.training import Callback, StepReport, Trainer, run_training
from leandit.training.losses import LossTerms, loss_terms, mask_reconstruction

OBJECTIVES: dict[str, ObjectiveConfig] = {
    "velocity": RectifiedFlowConfig(),
    "x0": RectifiedFlowConfig(prediction="x0"),
    "ddpm": DDPMConfig(learned_sigma=False),
    "learned sigma": DDPMConfig(prediction="velocity"),
}
SIZE, PATCH, TOKENS, CHANNELS = (4, 16), 2, 16, 3
WEIGHTS = {"router_similarity": 0.3, "per_layer_regularisation": 0.7, "mask_reconstruction": 0.4}


def randomised(objective: ObjectiveConfig) -> PixArt:
    """Experts with target heads in both layers, and no weight at its start."""
    model = PixArtConfig(
        **{"dim": 32, "depth": 2, "heads": 2, "patch_size": PATCH, "input_size": SIZE, "channels": CHANNELS},
        **{"num_classes": 0, "text_dim": 12, "pooled_dim": 4},
        learned_sigma=objective.type == "ddpm" and objective.learned_sigma,
        moe=MoEConfig(k=2, num_experts=4),
        masking=MaskingConfig(decoder_depth=1, decoder_dim=16, decoder_heads=2),
    ).build()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    return model


def draw(objective: Objective, size: int = 5) -> Noised:
    generator = torch.Generator().manual_seed(1)
    x0, eps = (torch.randn(size, CHANNELS, *SIZE, generator=generator) for _ in range(2))
    # The first time of the chain has a likelihood of its own under a learned variance.
    return objective.draw(x0, torch.tensor([1e-6, 0.2, 0.5, 0.7, 0.95])[:size], eps)


def patch(x: Tensor, picture: int, token: int) -> Tensor:
    """One patch as a picture of its own; tokens are in row-major order."""
    row, column = PATCH * (token // (SIZE[1] // PATCH)), PATCH * (token % (SIZE[1] // PATCH))
    return x[picture : picture + 1, :, row : row + PATCH, column : column + PATCH]


@pytest.mark.parametrize("weights", [WEIGHTS, {**WEIGHTS, "mask_reconstruction": 0.0}], ids=["all", "none"])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_loss_is_a_mean_over_visible_tokens(kind: str, weights: dict[str, float]) -> None:
    """Token by token: a visible patch, its noise and its target head's patch are a small picture each."""
    objective = build_objective(OBJECTIVES[kind])
    model = randomised(OBJECTIVES[kind]).train()
    noised = draw(objective)
    visible = torch.from_numpy(subsets(3, Stream.MASK, range(5), TOKENS, 6))
    output = model(noised.x_t, noised.t, Conditioning(text=torch.randn(5, 4, 12)), visible)
    terms = loss_terms(model, output, objective, noised, LossWeights(**weights))

    parts: dict[str, list[Tensor]] = {}
    regularisation, samples = [], []
    for picture in range(5):
        of_picture = []
        for place, token in enumerate(visible[picture].tolist()):
            one = Noised(
                patch(noised.x_t, picture, token),
                noised.t[picture : picture + 1],
                patch(noised.x0, picture, token),
                patch(noised.eps, picture, token),
            )
            losses = objective.loss(patch(output.prediction, picture, token), one)
            of_picture.append(sum(losses.values()))
            for name, value in losses.items():
                parts.setdefault(name, []).append(value)
            for router in output.routers:
                assert router.target is not None
                head = router.target[picture, place].view(1, PATCH, PATCH, CHANNELS).permute(0, 3, 1, 2)
                regularisation.append(objective.auxiliary_loss(head, one))
        samples.append(torch.stack(of_picture).mean())
    for name, values in parts.items():
        torch.testing.assert_close(terms.parts[name], torch.stack(values).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms.per_sample, torch.stack(samples), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        terms.parts["per_layer_regularisation"], torch.stack(regularisation).mean(), rtol=1e-5, atol=1e-6
    )
    assert ("mask_reconstruction" in terms.parts) == (weights["mask_reconstruction"] > 0)
    expected = terms.per_sample.mean() + sum(
        weights[name] * value for name, value in terms.parts.items() if name in weights
    )
    torch.testing.assert_close(terms.total, expected, rtol=1e-6, atol=1e-6)


def test_under_flow_matching_it_is_the_velocitys_error_in_numpy() -> None:
    objective = build_objective(RectifiedFlowConfig())
    model = randomised(RectifiedFlowConfig()).train()
    noised = draw(objective)
    visible = torch.from_numpy(subsets(3, Stream.MASK, range(5), TOKENS, 6))
    output = model(noised.x_t, noised.t, Conditioning(text=torch.randn(5, 4, 12)), visible)
    terms = loss_terms(model, output, objective, noised, LossWeights(**WEIGHTS))
    prediction, x_t, x0, eps = (
        v.detach().numpy().astype(np.float64) for v in (output.prediction, noised.x_t, noised.x0, noised.eps)
    )
    seen, hidden = [], []
    for b in range(5):
        for token in range(TOKENS):
            i, j = PATCH * (token // 8), PATCH * (token % 8)
            at = (b, slice(None), slice(i, i + PATCH), slice(j, j + PATCH))
            if token in visible[b].tolist():
                seen.append(np.mean((prediction[at] - (eps[at] - x0[at])) ** 2))
            else:
                target = (x_t[at] - x_t[at].mean()) / np.sqrt(x_t[at].var(ddof=1) + 1e-6)
                hidden.append(np.mean((prediction[at] - target) ** 2))
    assert (len(seen), len(hidden)) == (5 * 6, 5 * 10)
    assert terms.parts["mse"].item() == pytest.approx(np.mean(seen), rel=1e-5)
    assert terms.parts["mask_reconstruction"].item() == pytest.approx(np.mean(hidden), rel=1e-5)


def test_a_learned_variance_is_not_reconstructed() -> None:
    model = randomised(OBJECTIVES["learned sigma"])
    objective = build_objective(OBJECTIVES["learned sigma"])
    noised = draw(objective)
    visible = torch.from_numpy(subsets(3, Stream.MASK, range(5), TOKENS, 6))
    text = Conditioning(text=torch.randn(5, 4, 12))
    terms: list[LossTerms] = []
    for offset in (0.0, 9.0):
        output = model(noised.x_t, noised.t, text, visible)
        output.prediction[:, CHANNELS:] += offset
        terms.append(loss_terms(model, output, objective, noised, LossWeights()))
    assert torch.equal(terms[0].parts["mask_reconstruction"], terms[1].parts["mask_reconstruction"])
    assert not torch.equal(terms[0].parts["vlb"], terms[1].parts["vlb"])


def test_a_patch_of_one_number_is_reconstructed_as_zero() -> None:
    """It has no contrast to be normalised by; the loss must stay finite."""
    sizes: dict[str, Any] = {"dim": 8, "depth": 1, "heads": 2, "patch_size": 1, "input_size": 4, "channels": 1}
    masking = MaskingConfig(decoder_depth=1, decoder_dim=8, decoder_heads=2)
    model = PixArtConfig(**sizes, num_classes=0, text_dim=4, pooled_dim=4, masking=masking).build()
    prediction, visible = torch.full((2, 1, 4, 4), 3.0), torch.arange(8).expand(2, 8)
    assert mask_reconstruction(model, prediction, torch.randn(2, 1, 4, 4), visible).item() == 9.0


def test_masks_are_uniform_and_of_one_size() -> None:
    drawn = subsets(0, Stream.MASK, range(4000), 10, 3)
    assert drawn.shape == (4000, 3)
    assert (np.diff(drawn, axis=1) > 0).all()
    share = np.bincount(drawn.ravel(), minlength=10) / 4000
    assert np.abs(share - 0.3).max() < 4 * np.sqrt(0.3 * 0.7 / 4000)
    pairs = np.zeros((10, 10))
    for row in drawn:
        pairs[np.ix_(row, row)] += 1
    assert np.abs(pairs[~np.eye(10, dtype=bool)] / 4000 - 3 * 2 / (10 * 9)).max() < 4.5 * np.sqrt(0.067 * 0.933 / 4000)


def test_a_mask_is_a_function_of_seed_and_sample() -> None:
    together = subsets(0, Stream.MASK, range(50), 16, 8)
    assert np.array_equal(subsets(0, Stream.MASK, [7, 30], 16, 8), together[[7, 30]])
    assert not np.array_equal(subsets(1, Stream.MASK, range(50), 16, 8), together)
    assert len({row.tobytes() for row in together}) > 45
    assert subsets(0, Stream.MASK, [], 16, 8).shape == (0, 8)


class HashEncoder:
    """Features drawn from a hash of the text: stands in for a language model."""

    text_dim, pooled_dim, fingerprint = 12, 10, "hash"

    def encode(self, texts: Sequence[str], checked: bool = False) -> TextFeatures:
        draws = [np.random.default_rng(zlib.crc32(text.encode())) for text in texts]
        tokens = torch.tensor(np.stack([d.normal(size=(5, 12)) for d in draws]), dtype=torch.float32)
        return TextFeatures(tokens, torch.ones(len(texts), 5, dtype=torch.bool), torch.zeros(len(texts), 10))


@pytest.fixture(autouse=True)
def _no_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("leandit.training.runner", "leandit.sampling.load"):
        monkeypatch.setattr(sys.modules[module], "build_text_encoder", lambda config: HashEncoder())


# 32 pixels in patches of 8: 16 tokens.
TINY = [
    *("model.type=pixart", 'text.encoders=[{"type": "sentence"}]', "model.dim=32", "model.depth=2", "model.heads=2"),
    *("model.patch_size=8", "model.adaln=per_layer", "model.masking.decoder_depth=1", "model.masking.decoder_dim=16"),
    *("model.masking.decoder_heads=2", "train.batch_size=8", "sampling.sampler.steps=2", "train.log_every=1"),
]
EXPERTS = [
    *("model.moe.strategy=expert_choice", "model.moe.gate=softmax", "model.moe.k=2", "model.moe.num_experts=4"),
    *("model.moe.every=2", "model.moe.group_tokens=32"),
]
MASKED = [*TINY, "train.mask_ratio=0.5"]


def newest(out: Path) -> Checkpoint:
    checkpoint = find_newest(out / "checkpoints")
    assert checkpoint is not None
    return checkpoint


def build_trainer(out: Path, *overrides: str) -> Trainer:
    config = run_config("tiny", [*MASKED, *overrides])
    source, text = build_source(config.data.source), HashEncoder()
    return Trainer(resolve(config, source, text), source, RunFolder(out), text=text)


def seen_masks(trainer: Trainer, step: int) -> list[Tensor]:
    """The visible tokens of all pictures of a step, in their order."""
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        seen.extend(kwargs.get("visible", ()))

    handle = trainer.model.register_forward_pre_hook(keep, with_kwargs=True)
    trainer._train_step(trainer.loader.batch(step))
    handle.remove()
    trainer.metrics.close()
    return seen


def test_visible_tokens_are_rounded_down_in_decimal_numbers() -> None:
    """As MaskDiT truncates, and without its loss of a token to the rounding of 1 - 0.9 in binary."""
    for hundredths in range(100):
        train = TrainConfig(mask_ratio=hundredths / 100)
        for tokens in (1, 9, 10, 16, 64, 100, 256, 1000):
            assert train.visible_tokens(tokens) == tokens * (100 - hundredths) // 100


@pytest.mark.parametrize(("ratio", "count"), [(0.5, 8), (0.75, 4), (0.3, 11), (0.9, 1), (0.01, 15)])
def test_the_trainer_hides_the_share_that_is_asked_for(tmp_path: Path, ratio: float, count: int) -> None:
    seen = seen_masks(build_trainer(tmp_path, f"train.mask_ratio={ratio}"), 3)
    assert [mask.tolist() for mask in seen] == subsets(0, Stream.MASK, range(24, 32), 16, count).tolist()


def test_flops_are_those_of_the_visible_tokens_and_the_text(tmp_path: Path) -> None:
    """The trainer knows the FLOPs at three lengths of a text, and this is a fourth."""
    trainer = build_trainer(tmp_path)
    *_, flops = trainer._train_step(trainer.loader.batch(0))
    trainer.metrics.close()
    model = trainer.config.model
    assert flops == pytest.approx(3 * 8 * forward_flops(model, 5, 8), rel=1e-9)
    assert forward_flops(model, 5, 8) < forward_flops(model, 5) < forward_flops(model, 9)


def test_accumulation_changes_no_mask_and_no_dense_gradient(tmp_path: Path) -> None:
    whole, parts = (build_trainer(tmp_path / n, "model.moe=null", f"train.accumulation={n}") for n in "14")
    one, other = seen_masks(whole, 0), seen_masks(parts, 0)
    assert len(one) == len(other) == 8
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for (name, a), b in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("ratio", [0.5, 0.0])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "rmsprop", "adafactor"])
def test_a_broken_off_run_ends_in_the_same_bits(tmp_path: Path, optimizer: str, ratio: float) -> None:
    """Also where nothing is hidden, so that the mask token has no gradient and its optimiser no state."""
    overrides = [
        *TINY,
        *EXPERTS,
        f"optimizer.type={optimizer}",
        f"train.mask_ratio={ratio}",
        "train.checkpoint_every=3",
    ]
    run_training(run_config("tiny", ["train.steps=5", *overrides]), tmp_path / "whole")
    run_training(run_config("tiny", ["train.steps=3", *overrides]), tmp_path / "broken")
    run_training(run_config("tiny", ["train.steps=5", *overrides]), tmp_path / "broken", resume=True)
    for group in ("model", "ema", "optimizer"):
        one, other = (newest(tmp_path / name).tensors(group) for name in ("whole", "broken"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        if group == "optimizer":
            assert any(name.startswith("decoder.mask_token.") for name in one) == (ratio > 0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "rmsprop", "adafactor"])
def test_unmasked_training_goes_on_from_masked_weights(tmp_path: Path, optimizer: str) -> None:
    """Same keys; the mask token, which nothing uses, stays as it is, in the weights and in their average."""
    masked = build_trainer(tmp_path / "masked", *EXPERTS)
    for parameter in masked.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    tuned = build_trainer(tmp_path / "tuned", *EXPERTS, "train.mask_ratio=0", f"optimizer.type={optimizer}")
    tuned.model.load_state_dict(masked.model.state_dict())
    tuned.ema = type(tuned.ema)(tuned.model, 0.9)
    assert seen_masks(tuned, 1) == []
    before, after = masked.model.state_dict(), tuned.model.state_dict()
    same = [name for name in before if torch.equal(before[name], after[name])]
    assert same == ["decoder.mask_token"]
    torch.testing.assert_close(tuned.ema.tensors["decoder.mask_token"], before["decoder.mask_token"], rtol=0, atol=0)


def test_a_masked_run_learns_validates_unmasked_and_samples(tmp_path: Path) -> None:
    held_out = EmojiConfig(split="held_out", classes={"heart": ("heart",), "cat": ("cat-face",)})
    config = run_config("tiny", [*MASKED, *EXPERTS, "train.steps=60", "train.validate_every=30", "optimizer.lr=3e-3"])
    config = config.replace(data=config.data.replace(validation=held_out))
    shapes: set[tuple[bool, int]] = set()

    class Watch(Callback):
        def on_start(self, trainer: Trainer) -> None:
            for layer in trainer.model.blocks:
                layer.register_forward_pre_hook(
                    lambda _layer, given: shapes.add((trainer.model.training, given[1].shape[1]))
                )

        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            assert trainer.model.training or report.step % 30 == 0

    assert run_training(config, tmp_path, callbacks=(Watch(),)) == 0
    assert shapes >= {(True, 8), (False, 16)}
    assert (True, 16) not in shapes
    assert (False, 8) not in shapes
    lines = read_metrics(tmp_path / "metrics.jsonl")
    steps = [line for line in lines if "mse" in line]
    # Of noisy patches that are normalised one by one, little can be told from the others.
    for name, share in {"mse": 0.9, "mask_reconstruction": 0.993, "loss": 0.9}.items():
        first, last = (np.mean([line[name] for line in part]) for part in (steps[:5], steps[-15:]))
        assert last < share * first, name
    validation = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert len(validation) == 2
    assert validation[1] < validation[0]
    pictures = sample(load(tmp_path), seeds=[3, 4], prompts=["a cat"])
    assert pictures.shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.mask_ratio=0.5"], r"mask_ratio = 0\.5 needs the decoder .*: set model\.masking=\{\}"),
        ([*MASKED, "model.masking=null"], "needs the decoder"),
        ([*TINY, "train.mask_ratio=1"], "below 1"),
        ([*TINY, "train.mask_ratio=-0.1"], "at least 0"),
        ([*TINY, "train.mask_ratio=0.98"], "leaves 0 of a picture's 16 tokens visible"),
        ([*TINY, "train.mask_ratio=0.95"], "leaves 0 of a picture's 16 tokens visible"),
        ([*MASKED, "losses.mask_reconstruction=-1"], "at least 0"),
    ],
)
def test_masks_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(LeanDiTError, match=message):
        run_config("tiny", overrides)


def test_a_decoder_by_its_defaults_is_one_override() -> None:
    model = run_config("tiny", [*TINY[:7], "model.masking={}", "train.mask_ratio=0.5"]).model
    assert model.masking == MaskingConfig(decoder_depth=8, decoder_dim=512, decoder_heads=16)
