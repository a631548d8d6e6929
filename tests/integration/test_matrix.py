"""Every cell of backbone x routing x sharing is one line of configuration: it trains, saves, loads and samples."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from leandit.api import load, sample
from leandit.presets import run_config
from leandit.run.checkpoint import find_newest
from leandit.text import TextFeatures
from leandit.training import run_training

BACKBONES = ["dit", "pixart", "mmdit", "dit_air"]
# Each with another shape of picture, height and width.
SHARING = {"none": (32, 32), "adaln": (24, 40), "attention": (40, 16), "block": (16, 32)}
ROUTING = {
    "dense": ["model.moe=null"],
    "token_choice": ["model.moe.strategy=token_choice", "model.moe.gate=softmax"],
    "expert_choice": ["model.moe.strategy=expert_choice", "model.moe.gate=sigmoid"],
    "expert_race": [],
}


class HashEncoder:
    """Features drawn from a hash of the text: stands in for a language model."""

    text_dim, pooled_dim, fingerprint = 12, 10, "hash"

    def encode(self, texts: Sequence[str], checked: bool = False) -> TextFeatures:
        draws = [np.random.default_rng(zlib.crc32(text.encode())) for text in texts]
        tokens = torch.tensor(np.stack([d.normal(size=(5, 12)) for d in draws]), dtype=torch.float32)
        lengths = torch.tensor([1 + len(text) % 5 for text in texts])
        pooled = torch.tensor(np.stack([d.normal(size=10) for d in draws]), dtype=torch.float32)
        return TextFeatures(tokens, torch.arange(5) < lengths[:, None], pooled)


@pytest.fixture
def no_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("leandit.training.runner", "leandit.sampling.load"):
        monkeypatch.setattr(sys.modules[module], "build_text_encoder", lambda config: HashEncoder())


def cell(backbone: str, routing: str, sharing: str) -> list[str]:
    text = [] if backbone == "dit" else ['text.encoders=[{"type": "sentence"}]']
    size = ["model.dim=32", "model.depth=2", "model.heads=2", "model.patch_size=8"]
    moe = ["model.moe.k=2", "model.moe.num_experts=4"] if routing != "dense" else []
    height, width = SHARING[sharing]
    shape = [f"data.image_size={height}x{width}", f"model.sharing={sharing}"]
    common = [*shape, "train.batch_size=4", "sampling.sampler.steps=2", "sampling.guidance.scale=2"]
    kind = [f"model.type={backbone}"] if backbone != "dit" else []
    return [*kind, *size, *moe, *ROUTING[routing], *text, *common]


@pytest.mark.usefixtures("no_language_model")
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("routing", ROUTING)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_cell_trains_saves_loads_and_samples(tmp_path: Path, backbone: str, routing: str, sharing: str) -> None:
    config = run_config("tiny", ["train.steps=1", *cell(backbone, routing, sharing)])
    assert run_training(config, tmp_path / "run") == 0
    checkpoint = find_newest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    names = checkpoint.tensors("model").keys()
    assert any(".moe.experts." in name for name in names) == (routing != "dense")
    assert any(name.startswith("blocks.shared.") for name in names) == (sharing != "none" or backbone == "pixart")
    assert any(".0.attention." in name for name in names) == (sharing in ("none", "adaln"))
    wanted = {"labels": ["cat"]} if backbone == "dit" else {"prompts": ["a cat"]}
    pictures = sample(load(tmp_path / "run"), seeds=[3, 4], **wanted)
    assert pictures.shape == (2, *SHARING[sharing], 3)
    assert not torch.equal(pictures[0], pictures[1])


@pytest.mark.usefixtures("no_language_model")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_broken_off_text_run_ends_in_the_same_bits(tmp_path: Path, backbone: str) -> None:
    lines = [*cell(backbone, "expert_race", "block"), "train.checkpoint_every=2"]
    run_training(run_config("tiny", ["train.steps=4", *lines]), tmp_path / "whole")
    run_training(run_config("tiny", ["train.steps=2", *lines]), tmp_path / "broken")
    run_training(run_config("tiny", ["train.steps=4", *lines]), tmp_path / "broken", resume=True)
    for group in ("model", "ema", "optimizer"):
        one, other = (find_newest(tmp_path / name / "checkpoints").tensors(group) for name in ("whole", "broken"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
