"""Text encoders trained with the backbone: gradients, optimisers, averages, checkpoints, and what is never cached."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from torch import Tensor

from leandit.api import load, sample
from leandit.data import build_source
from leandit.errors import LeanDiTError
from leandit.pictures import averaged_run
from leandit.presets import run_config
from leandit.run import MuonConfig, RunFolder
from leandit.run.checkpoint import Checkpoint, find_newest
from leandit.run.resolve import resolve
from leandit.sampling import LoadedRun
from leandit.text import ClipEncoderConfig, TextConfig, TransformerEncoder, build_text_encoder
from leandit.training import Callback, StepReport, Trainer, run_training
from leandit.training.optimizers import build_optimizers
from tiny_encoders import text_model

RUN = ["train.steps=6", "train.checkpoint_every=3", "train.label_dropout=0.3", "train.ema_decay=0.9"]
KINDS = ("clip", "sentence", "t5", "llm")


def encoder(kind: str, folder: Path, **options: Any) -> dict[str, Any]:
    own = {"bidirectional": True, "pooled": "mean"} if kind == "clip" else {}
    return {"type": kind, "path": str(folder), "max_tokens": 12, "finetune": True, **own, **options}


def train(out: Path, *encoders: dict[str, Any], extra: tuple[str, ...] = (), **options: Any) -> None:
    run_training(run_config("tiny", [*text_model(*encoders), *RUN, *extra]), out, **options)


def newest(out: Path) -> Checkpoint:
    checkpoint = find_newest(out / "checkpoints")
    assert checkpoint is not None
    return checkpoint


def build_trainer(out: Path, *encoders: dict[str, Any], extra: tuple[str, ...] = ()) -> Trainer:
    """A trainer whose weights are all random: zero-initialised layers would let no gradient through to the text."""
    config = run_config("tiny", [*text_model(*encoders), *RUN, *extra])
    assert config.text is not None
    source, text = build_source(config.data.source), build_text_encoder(config.text)
    trainer = Trainer(resolve(config, source, text), source, RunFolder(out), (), text)
    trainer.metrics.close()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainer.model.named_parameters():
        if not name.startswith("text_encoder."):
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return trainer


def of_encoder(trainer: Trainer) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in trainer.model.named_parameters() if name.startswith("text_encoder.")}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(tmp_path: Path, folders: dict[str, Path], kind: str) -> None:
    trainer = build_trainer(tmp_path, encoder(kind, folders[kind]), extra=("train.label_dropout=0.5",))
    batch = trainer.loader.batch(0)
    whole = slice(0, len(batch.indices))
    trainer.model.train()
    trainer.task.forward(batch, whole).loss.backward()

    def loss() -> float:
        with torch.enable_grad():
            noised = trainer.task.objective.draw(batch.images, batch.draws["u"], batch.draws["noise"])
            cond = trainer.task.conditioner(list(batch.texts))
            prediction = trainer.model(noised.x_t, noised.t, cond).prediction.double()
        return float((prediction - (noised.eps - noised.x0).double()).square().mean())

    found = 0
    for parameter in of_encoder(trainer).values():
        if parameter.grad is None or parameter.ndim < 2:
            continue
        place = int(parameter.grad.abs().argmax())
        slope = float(parameter.grad.view(-1)[place])
        with torch.no_grad():
            parameter.view(-1)[place] += 1e-2
            above = loss()
            parameter.view(-1)[place] -= 2e-2
            below = loss()
            parameter.view(-1)[place] += 1e-2
        assert (above - below) / 2e-2 == pytest.approx(slope, rel=0.1, abs=1e-3)
        found += abs(slope) > 1e-3
    assert found >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_averages_move_and_each_has_one_key(tmp_path: Path, folders: dict[str, Path], kind: str) -> None:
    train(tmp_path / "run", encoder(kind, folders[kind]))
    config = run_config("tiny", text_model(encoder(kind, folders[kind]))).text
    assert config is not None
    start = {f"text_encoder.{name}": t for name, t in build_text_encoder(config).finetuned.state_dict().items()}
    checkpoint = newest(tmp_path / "run")
    raw, average = (checkpoint.tensors(group) for group in ("model", "ema"))
    names = {name for name in raw if name.startswith("text_encoder.")}
    assert names == start.keys()
    assert not any("pooler" in name or "shared" in name for name in names)
    # The words of these captions are few, and the pooled vector of the last layer is all that some weights lead to.
    moved = [name for name in names if not torch.equal(raw[name], start[name])]
    assert len(moved) > 0.8 * len(names)
    for name in moved:
        assert not torch.equal(average[name], start[name])
        # A bias of keys, which the softmax does not see, moves by rounding errors alone.
        assert not torch.equal(average[name], raw[name]) or (raw[name] - start[name]).abs().max() < 1e-4
    assert {name.rpartition(".")[0] for name in checkpoint.tensors("optimizer")} >= set(moved)


class StopAfter(Callback):
    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        if report.step == 4:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("optimizer.type=muon",),
        ("train.accumulation=2", "train.activation_checkpointing=true", "text.batch_size=4"),
        ("optimizer.type=adafactor", "train.precision=bf16"),
    ],
    ids=["adamw", "muon", "lean", "adafactor in bf16"],
)
def test_a_broken_off_run_ends_in_the_same_bits(
    tmp_path: Path, folders: dict[str, Path], extra: tuple[str, ...]
) -> None:
    encoders = encoder("clip", folders["clip"]), encoder("llm", folders["llm"], finetune=False)
    train(tmp_path / "whole", *encoders, extra=extra)
    # Grids of the averaged model on the way are drawn with copies, and disturb nothing.
    train(tmp_path / "broken", *encoders, extra=extra, callbacks=(StopAfter(),))
    assert newest(tmp_path / "broken").step == 4
    train(tmp_path / "broken", *encoders, extra=extra, resume=True)
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "broken")
    assert one.step == other.step == 6
    for group in ("model", "ema", "optimizer"):
        a, b = one.tensors(group), other.tensors(group)
        assert a.keys() == b.keys()
        assert [name for name in a if not torch.equal(a[name], b[name])] == []


class Draw(Callback):
    """Samples of the last step, drawn from memory: with the average, and with the raw weights."""

    def __init__(self) -> None:
        self.pictures: dict[str, Tensor] = {}

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        averaged = averaged_run(trainer)
        drawn = sample(averaged, prompts=["red apple", "tiger"], seeds=[3])
        if report.step == 6:
            encoder, names = trainer.text, trainer.source.class_names
            model = trainer.model.eval()
            raw = LoadedRun(trainer.config, model, trainer.task.objective, names, 6, trainer.folder.path, encoder)
            self.pictures = {"ema": drawn, "model": sample(raw, prompts=["red apple", "tiger"], seeds=[3])}


def test_samples_after_loading_are_those_before_saving(tmp_path: Path, folders: dict[str, Path]) -> None:
    draw, clip = Draw(), encoder("clip", folders["clip"])
    extra = ("optimizer.lr=0.01", "train.precision=fp32")
    train(tmp_path / "run", clip, extra=extra, callbacks=(draw,))
    for weights, expected in draw.pictures.items():
        loaded = load(tmp_path / "run", weights=weights)
        drawn = sample(loaded, prompts=["red apple", "tiger"], seeds=[3])
        assert torch.equal(drawn, expected)
        # The text counts: with the encoder as it was before the training, the same backbone draws something else.
        assert loaded.config.text is not None
        untrained = LoadedRun(
            *(loaded.config, loaded.model, loaded.objective, loaded.class_names, loaded.step, loaded.path),
            build_text_encoder(loaded.config.text),
        )
        features = [run.text.encode(["red apple"]).tokens for run in (loaded, untrained) if run.text is not None]
        assert not torch.allclose(features[0], features[1], atol=1e-2)
    assert not torch.equal(draw.pictures["ema"], draw.pictures["model"])
    # Drawing from copies on every step has changed nothing of the training.
    train(tmp_path / "silent", clip, extra=extra)
    one, other = (newest(tmp_path / name).tensors("model") for name in ("run", "silent"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_frozen_encoders_beside_it_stay_outside_of_the_run(tmp_path: Path, folders: dict[str, Path]) -> None:
    cache = tmp_path / "cache"
    encoders = (
        encoder("llm", folders["llm"], finetune=False),
        encoder("clip", folders["clip"]),
        encoder("t5", folders["t5"], finetune=False),
    )
    train(tmp_path / "run", *encoders, extra=(f"text.cache={cache}",))
    names = newest(tmp_path / "run").tensors("model")
    assert {name.split(".")[1] for name in names if name.startswith("text_encoder.")} == {"1"}
    stored = set()
    for path in cache.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            stored.add(file.metadata()["fingerprint"])
    configs = TextConfig.model_validate({"encoders": encoders}).encoders
    assert stored == {TransformerEncoder(configs[place]).fingerprint for place in (0, 2)}
    assert len(sample(tmp_path / "run", prompts=["tiger"], seeds=[0])) == 1


def test_a_cache_that_nothing_would_go_into_is_refused(folders: dict[str, Path]) -> None:
    clip = ClipEncoderConfig.model_validate(encoder("clip", folders["clip"]))
    with pytest.raises(ValidationError, match="would stay empty: every encoder is fine-tuned"):
        TextConfig(encoders=(clip, clip), cache="cache")
    assert TextConfig(encoders=(clip, clip.replace(finetune=False)), cache="cache").cache == "cache"


def test_features_follow_the_weights_and_are_computed_once_per_text(folders: dict[str, Path]) -> None:
    config = TextConfig.model_validate({"encoders": [encoder("clip", folders["clip"])]})
    text = build_text_encoder(config)
    before = text.encode(["tiger", "red", "tiger"])
    assert before.tokens.requires_grad
    assert torch.equal(before.tokens[0], before.tokens[2])
    twin = text.copy()
    with torch.no_grad():
        for parameter in text.finetuned.parameters():
            parameter.mul_(1.5)
        assert not torch.allclose(text.encode(["tiger"]).tokens, before.tokens[:1], atol=1e-2)
        assert torch.equal(twin.encode(["tiger"]).pooled, before.pooled[:1])
    calls = []
    handle = text.finetuned["0"].register_forward_hook(lambda module, args, output: calls.append(args[0]))
    text.encode(["tiger", "red", "tiger", ""])
    handle.remove()
    assert [list(texts) for texts in calls] == [["tiger"], ["red"], [""]]


def test_the_encoder_stays_without_dropout(tmp_path: Path, folders: dict[str, Path]) -> None:
    trainer = build_trainer(tmp_path, encoder("sentence", folders["sentence"]))
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in trainer.model.text_encoder.modules())
    trainer.model.train()
    assert trainer.model.training
    one, other = (trainer.task.conditioner(["tiger"]).text for _ in range(2))
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)


def test_muon_leaves_the_encoder_to_adamw(tmp_path: Path, folders: dict[str, Path]) -> None:
    trainer = build_trainer(tmp_path, encoder("sentence", folders["sentence"]))
    assert any("attention." in name for name in of_encoder(trainer))
    muon, adamw = ({id(p) for p in o.param_groups[0]["params"]} for o in build_optimizers(MuonConfig(), trainer.model))
    own = {id(p) for p in of_encoder(trainer).values()}
    assert own <= adamw
    assert not own & muon
    assert muon


def test_fine_tuning_is_part_of_what_a_run_is(tmp_path: Path, folders: dict[str, Path]) -> None:
    train(tmp_path / "run", encoder("clip", folders["clip"]))
    with pytest.raises(LeanDiTError, match=r"cannot resume with another configuration:\n  text.encoders"):
        train(tmp_path / "run", encoder("clip", folders["clip"], finetune=False), resume=True)
