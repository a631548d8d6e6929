"""Sampling: a picture belongs to its seed and label; which weights are used; what loading leaves behind."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from leandit import load, sample
from leandit.diffusion import DDIMConfig, EulerConfig, GuidanceConfig, HeunConfig
from leandit.errors import LeanDiTError
from leandit.models import Conditioning
from leandit.presets import run_config
from leandit.run import SamplingConfig
from leandit.run.checkpoint import open_checkpoint
from leandit.sampling import LoadedRun, draw, to_pictures
from leandit.training import run_training

LABELS = [0, 1, 1, -1, 0, 1, 0, 0, 1, -1, 0, 1, 1, 0, 1, 0]


@pytest.fixture(scope="module")
def awake(tiny_run: Path) -> LoadedRun:
    """The run with weights far from their zero start, and thresholds that split each layer's scores."""
    run = load(tiny_run)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        x = torch.randn(4, 3, 32, 32, generator=generator)
        for index, layer in enumerate(run.model.blocks):
            routing = run.model(x, torch.full((4,), 0.5), Conditioning(torch.zeros(4, dtype=torch.long))).routers
            layer.moe.router.threshold.value.copy_(routing[index].scores.median())
    return run


def draw_in_batches(run: LoadedRun, size: int, settings: SamplingConfig) -> torch.Tensor:
    parts = []
    for start in range(0, len(LABELS), size):
        part = slice(start, start + size)
        parts.append(draw(run, LABELS[part], list(range(100, 116))[part], settings))
    return torch.cat(parts)


@pytest.mark.parametrize("sampler", [EulerConfig(steps=3), HeunConfig(steps=3), DDIMConfig(steps=3)])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_picture_does_not_depend_on_its_batch(
    awake: LoadedRun, sampler: EulerConfig | HeunConfig | DDIMConfig, scale: float
) -> None:
    settings = SamplingConfig(sampler=sampler, guidance=GuidanceConfig(scale=scale))
    whole = draw_in_batches(awake, 16, settings)
    assert whole.std() > 0.2
    for size in (1, 3):
        torch.testing.assert_close(draw_in_batches(awake, size, settings), whole, rtol=0, atol=1e-4)


def test_the_stochastic_sampler_has_its_noise_from_the_seed_too(tmp_path: Path) -> None:
    config = run_config(
        "tiny", ["train.steps=2", "objective.type=ddpm", "model.learned_sigma=true", "sampling.sampler.type=ddpm"]
    )
    run_training(config, tmp_path)
    run = load(tmp_path)
    settings = config.sampling.replace(sampler={"type": "ddpm", "steps": 4})
    whole = draw_in_batches(run, 16, settings)
    torch.testing.assert_close(draw_in_batches(run, 3, settings), whole, rtol=0, atol=1e-4)
    assert (whole[0] - whole[1]).abs().max() > 0.1


def test_label_guidance_and_seed_each_matter(awake: LoadedRun) -> None:
    def one(label: int, seed: int, scale: float = 1.0) -> torch.Tensor:
        settings = SamplingConfig(sampler=EulerConfig(steps=3), guidance=GuidanceConfig(scale=scale))
        return draw(awake, [label], [seed], settings)

    base = one(0, 3)
    for other in (one(1, 3), one(0, 4), one(0, 3, 3.0)):
        assert (base - other).abs().max() > 1e-3
    torch.testing.assert_close(one(-1, 3, 3.0), one(-1, 3), rtol=0, atol=1e-5)


def test_labels_by_name_or_number_in_the_order_given(awake: LoadedRun) -> None:
    assert awake.class_names == ("heart", "cat")
    pictures = sample(awake, labels=["cat", 0], seeds=[1, 2], steps=2)
    again = sample(awake, labels=[1, "heart"], seeds=[1, 2], steps=2, batch_size=3)
    assert (pictures.int() - again.int()).abs().max() <= 1
    alone = sample(awake, labels=["heart"], seeds=[2], steps=2)
    assert (pictures[3].int() - alone[0].int()).abs().max() <= 1
    assert len(sample(awake, seeds=[0], steps=1)) == 2


def test_progress_counts_the_steps_of_all_batches(awake: LoadedRun) -> None:
    seen: list[tuple[int, int]] = []
    sample(awake, labels=[0], seeds=range(5), steps=2, batch_size=2, progress=lambda a, b: seen.append((a, b)))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_rounding_to_pixels() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0, 2 / 255]).reshape(1, 1, 2, 3)
    assert to_pictures(values).flatten().tolist() == [0, 0, 128, 255, 255, 128]
    assert to_pictures(values).shape == (1, 2, 3, 1)


def test_weights_are_the_average_or_the_raw_ones(tiny_run: Path) -> None:
    stored = open_checkpoint(tiny_run / "checkpoints" / "step-00000020")
    for group in ("ema", "model"):
        weights = load(tiny_run, weights=group).model.state_dict()
        for name, tensor in weights.items():
            assert torch.equal(tensor, stored.tensors(group)[name]), name
    assert torch.equal(load(tiny_run).model.final.linear.weight, stored.tensors("ema")["final.linear.weight"])
    assert not torch.equal(stored.tensors("ema")["final.linear.weight"], stored.tensors("model")["final.linear.weight"])
    with pytest.raises(LeanDiTError, match="choose ema"):
        load(tiny_run, weights="optimizer")


def test_target_heads_stay_behind_and_change_nothing(tiny_run: Path) -> None:
    stored = open_checkpoint(tiny_run / "checkpoints" / "step-00000020").tensors("ema")
    heads = {name for name in stored if ".target_head." in name}
    run = load(tiny_run)
    assert len(heads) == 4
    assert set(stored) - heads == set(run.model.state_dict())
    assert not run.model.training
    full = run.config.model.build().eval()
    full.load_state_dict(stored)
    bare, dressed = (draw(replace(run, model=m), [0], [1]) for m in (run.model, full))
    assert torch.equal(bare, dressed)


def test_loading_a_named_checkpoint_and_a_run_with_a_damaged_newest_one(tiny_run: Path, tmp_path: Path) -> None:
    assert load(tiny_run).step == 20
    assert load(tiny_run / "checkpoints" / "step-00000010").step == 10
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "checkpoints" / "step-00000020" / "ema.safetensors").unlink()
    assert load(run).step == 10
    assert (run / "checkpoints" / "step-00000020").is_dir()


def test_nothing_to_draw_and_impossible_seeds_are_refused(awake: LoadedRun) -> None:
    for seeds, message in (([], "no seed"), ([-1], "seed -1"), ([2**63], f"seed {2**63}")):
        with pytest.raises(LeanDiTError, match=message):
            sample(awake, labels=[0], seeds=seeds)
    with pytest.raises(LeanDiTError, match="no label"):
        sample(awake, labels=[], seeds=[0])
    with pytest.raises(LeanDiTError, match="label -1"):
        sample(awake, labels=[-1], seeds=[0])
    with pytest.raises(LeanDiTError, match="label '9"):
        sample(awake, labels=["9" * 5000], seeds=[0])
    unconditional = replace(
        awake, model=run_config("tiny").model.complete(input_size=32, channels=3, num_classes=0).build(), class_names=()
    )
    with pytest.raises(LeanDiTError, match="no classes"):
        sample(unconditional, labels=[0], seeds=[0])
