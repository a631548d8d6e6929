"""A checkpoint of `be_choice` from before each token had its own threshold is sampled from and resumed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch

import leandit
from leandit.moe import routers
from leandit.presets import run_config
from leandit.run.checkpoint import find_newest
from leandit.training import run_training


def test_one_value_fills_the_thresholds(tmp_path: Path) -> None:
    config = run_config("tiny", ["model.moe.strategy=be_choice", "train.steps=2"])
    leandit.train(config, tmp_path / "run")
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        for group in ("model", "ema"):
            file = checkpoint / f"{group}.safetensors"
            tensors = safetensors.torch.load_file(file)
            for name in [name for name in tensors if name.endswith("threshold.value")]:
                assert tensors[name].ndim == 1
                tensors[name] = torch.tensor(0.25)
            safetensors.torch.save_file(tensors, file)
            content = file.read_bytes()
            manifest["files"][file.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        # The first format has no checksum of its own.
        older = {name: manifest[name] for name in ("format", "step", "files")} | {"version": 1}
        (checkpoint / "manifest.json").write_text(json.dumps(older))
    run = leandit.load(tmp_path / "run")
    for _, router in routers(run.model):
        assert router.threshold.value.tolist() == [0.25] * run.model.grid.tokens
    longer = run_config("tiny", ["model.moe.strategy=be_choice", "train.steps=3"])
    assert run_training(longer, tmp_path / "run", True) == 0
    newest = find_newest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    found = safetensors.torch.load_file(newest.path / "model.safetensors")
    values = next(value for name, value in found.items() if name.endswith("threshold.value"))
    assert len(set(values.tolist())) > 1  # each token's moves on its own
