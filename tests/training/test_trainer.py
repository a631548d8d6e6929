"""The trainer: one step against one by hand, and a broken-off run against one that went on, bit by bit."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import shlex
import shutil
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from leandit.cli import main
from leandit.data import Batch, Loader, build_source
from leandit.errors import LeanDiTError
from leandit.models import Conditioning
from leandit.presets import run_config
from leandit.random import Stream, normal, uniform
from leandit.run import RunFolder, read_metrics
from leandit.run.checkpoint import Checkpoint, find_newest
from leandit.run.metrics import MetricsLog
from leandit.run.resolve import resolve, resolve_device
from leandit.training import Callback, StepReport, Trainer, run_training

# Every rate differs from step to step, so that a schedule entered at the wrong step is seen.
RATES = ["schedule.warmup_steps=3", "schedule.decay=cosine"]
OPTIMIZERS = {"adamw": [], "muon": ["optimizer.type=muon"]}
MEMORY = {"plain": [], "lean": ["train.accumulation=2", "train.activation_checkpointing=true"]}


class StopAfter(Callback):
    """Ctrl-C during one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        if report.step == self.step:
            signal.raise_signal(signal.SIGINT)


def train(out: Path, *overrides: str, callbacks: tuple[Callback, ...] = (), resume: bool = False) -> int:
    return run_training(run_config("tiny", list(overrides)), out, resume, callbacks)


def newest(out: Path) -> Checkpoint:
    checkpoint = find_newest(out / "checkpoints")
    assert checkpoint is not None
    return checkpoint


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = newest(one), newest(other)
    assert first.step == second.step
    assert first.groups == second.groups == ["ema", "model", "optimizer"]
    for group in first.groups:
        a, b = first.tensors(group), second.tensors(group)
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), f"{group}: {name}"


def numbers(out: Path) -> list[dict[str, Any]]:
    """The metrics without what the clock says."""
    return [
        {k: v for k, v in line.items() if k not in ("images_per_second", "mfu")}
        for line in read_metrics(out / "metrics.jsonl")
    ]


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_broken_off_run_ends_in_the_same_bits(tmp_path: Path, optimizer: str, memory: str) -> None:
    overrides = [*RATES, *OPTIMIZERS[optimizer], *MEMORY[memory]]
    assert train(tmp_path / "whole", *overrides) == 0
    for number, stop in enumerate((5, 10, 13)):
        assert train(tmp_path / "broken", *overrides, callbacks=(StopAfter(stop),), resume=number > 0) == 130
        assert newest(tmp_path / "broken").step == stop
    assert train(tmp_path / "broken", *overrides, resume=True) == 0
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    thresholds = [name for name in newest(tmp_path / "whole").tensors("ema") if "threshold" in name]
    assert len(thresholds) == 2
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "broken")
    assert [line["step"] for line in numbers(tmp_path / "broken")] == [1, 5, 10, 15, 20]
    starts = RunFolder(tmp_path / "broken").environment.read_text().splitlines()
    assert len([json.loads(line) for line in starts]) == 4


def test_steps_after_the_last_checkpoint_are_computed_and_logged_anew(tmp_path: Path) -> None:
    class Die(Callback):
        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            if report.step == 17:
                raise RuntimeError("power cut")

    train(tmp_path / "whole", *RATES)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "cut", *RATES, callbacks=(Die(),))
    assert [line["step"] for line in numbers(tmp_path / "cut")] == [1, 5, 10, 15]
    # A power cut, unlike an error, leaves no time to save the steps after the last checkpoint.
    shutil.rmtree(newest(tmp_path / "cut").path)
    assert newest(tmp_path / "cut").step == 10
    train(tmp_path / "cut", *RATES, resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "cut")


def test_reading_threads_and_a_finished_runs_resume_change_nothing(tmp_path: Path) -> None:
    train(tmp_path / "a", "data.flip=0.5")
    train(tmp_path / "b", "data.flip=0.5", "data.num_threads=3")
    assert_same_bits(tmp_path / "a", tmp_path / "b")
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "a" / "checkpoints").rglob("*"))
    assert train(tmp_path / "a", "data.flip=0.5", resume=True) == 0
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "a" / "checkpoints").rglob("*")) == before
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")


def test_a_run_made_longer_is_the_longer_run(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "grown", "train.steps=10")
    train(tmp_path / "grown", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "grown")
    assert RunFolder(tmp_path / "grown").read_config().train.steps == 20


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    train(tmp_path / "a", "train.steps=2")
    train(tmp_path / "b", "train.steps=2", "seed=1")
    a, b = (newest(tmp_path / name).tensors("model") for name in "ab")
    assert not torch.equal(a["patch_embedding.weight"], b["patch_embedding.weight"])


@pytest.fixture
def dense(tmp_path: Path) -> Iterator[Trainer]:
    trainer = build_trainer(tmp_path / "dense", "model.moe=null", "train.clip=0.05")
    yield trainer
    trainer.metrics.close()


def build_trainer(out: Path, *overrides: str) -> Trainer:
    config = run_config("tiny", ["train.label_dropout=0.4", "train.batch_size=12", *overrides])
    source = build_source(config.data.source)
    return Trainer(resolve(config, source), source, RunFolder(out))


def test_a_dense_step_is_the_one_written_out_by_hand(dense: Trainer) -> None:
    batch = Loader(dense.source, dense.config.data, 12, dense.config.seed).batch(0)  # without draws
    twin = dense.config.model.build()
    twin.load_state_dict(dense.model.state_dict())
    start = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    rows = list(batch.indices)
    eps = torch.from_numpy(normal(0, Stream.NOISE, rows, (3, 32, 32)))
    u = torch.from_numpy(uniform(0, Stream.TIMESTEP, rows))
    noised = dense.task.objective.draw(batch.images, u, eps)
    dropped = torch.from_numpy(uniform(0, Stream.LABEL_DROP, rows)) < 0.4
    assert 0 < dropped.sum() < 12
    label = batch.labels.clone()
    label[dropped] = -1
    out = twin(noised.x_t, noised.t, Conditioning(label)).prediction
    # The rectified flow: x_t = (1 - t) x0 + t eps, the velocity eps - x0 as target.
    t = noised.t[:, None, None, None]
    torch.testing.assert_close(noised.x_t, ((1 - t) * batch.images + t * eps).float())
    loss = (out - (eps - batch.images)).square().mean()
    loss.backward()
    norm = torch.sqrt(sum(p.grad.square().sum() for p in twin.parameters()))
    assert norm > 0.05
    with torch.no_grad():
        for p in twin.parameters():
            gradient = p.grad * 0.05 / (norm + 1e-6)
            # AdamW's first step without weight decay: both moments are the gradient's own.
            p.sub_(1e-3 * gradient / (gradient.abs() + 1e-8))
    parts, _, _ = dense._train_step(dense.loader.batch(0))
    assert parts["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert parts["gradient_norm"] == pytest.approx(norm.item(), rel=1e-5)
    for name, p in twin.named_parameters():
        torch.testing.assert_close(dict(dense.model.named_parameters())[name], p, rtol=0, atol=2e-5, msg=name)
        # The ramp's first factor is 1 / 10.
        torch.testing.assert_close(dense.ema.tensors[name], start[name] + 0.9 * (p - start[name]), rtol=0, atol=2e-5)


def test_accumulated_gradients_of_a_dense_model_are_those_of_the_whole_batch(tmp_path: Path, dense: Trainer) -> None:
    parts = build_trainer(tmp_path / "parts", "model.moe=null", "train.clip=0.05", "train.accumulation=4")
    batch = dense.loader.batch(0)
    whole, *_ = dense._train_step(batch)
    split, *_ = parts._train_step(batch)
    parts.metrics.close()
    assert split == pytest.approx(whole, rel=1e-4)


def test_thresholds_move_once_per_step_whatever_the_accumulation(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, "train.accumulation=3", "train.activation_checkpointing=true")
    seen: list[float] = []
    router = next(iter(trainer.model.blocks)).moe.router
    handle = router.register_forward_hook(lambda m, i, out: seen.append(float(out.cutoff)))
    trainer._train_step(trainer.loader.batch(0))
    handle.remove()
    trainer.metrics.close()
    # Three micro-batches; recomputation runs each forward twice, with the same cutoff.
    assert len(seen) == 6
    expected = 0.95 * 1.0 + 0.05 * sum(seen) / len(seen)
    assert router.threshold.value.item() == pytest.approx(expected, rel=1e-5)


def poison(monkeypatch: pytest.MonkeyPatch, step: int, row: int) -> None:
    original = Loader.batch

    def batch(self: Loader, at: int) -> Batch:
        result = original(self, at)
        if at == step:
            result.images[row] = math.nan
        return result

    monkeypatch.setattr(Loader, "batch", batch)


@pytest.mark.parametrize("strategy", ["expert_race", "token_choice"])
def test_a_poisoned_picture_stops_the_run_by_name_before_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    overrides = ["train.checkpoint_every=5", "train.batch_size=4", f"model.moe.strategy={strategy}"]
    train(tmp_path / "whole", *overrides)
    config = resolve_tiny(overrides)
    guilty = Loader(build_source(config.data.source), config.data, 4, 0).batch(7).keys[2]
    with monkeypatch.context() as patch:
        poison(patch, step=7, row=2)
        with pytest.raises(LeanDiTError) as error:
            train(tmp_path / "run", *overrides)
    message = str(error.value)
    assert "step 8: the loss is not finite" in message
    assert guilty in message
    assert "Newest checkpoint: step 5" in message
    assert newest(tmp_path / "run").step == 5
    train(tmp_path / "run", *overrides, resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "run")


def resolve_tiny(overrides: list[str]) -> Any:
    config = run_config("tiny", overrides)
    return resolve(config, build_source(config.data.source))


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("final.linear.weight", "final.linear.weight"),
        ("blocks.0.moe.router.gate_head.weight", "blocks.0.moe.router.gate_head.weight"),
        ("blocks.1.moe.experts.w1", "blocks.1.moe.experts.w1 (expert 3)"),
    ],
)
def test_a_poisoned_weight_stops_the_run_before_a_checkpoint_and_is_blamed(
    tmp_path: Path, where: str, named: str
) -> None:
    class Poison(Callback):
        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            if report.step == 10:
                dict(trainer.model.named_parameters())[where].data.view(-1)[-1] = math.nan

    with pytest.raises(LeanDiTError, match="step 11: the loss is not finite") as error:
        train(tmp_path, "train.checkpoint_every=3", callbacks=(Poison(),))
    assert f"\nWeights that are not finite: {named}\n" in str(error.value)
    assert "Samples" not in str(error.value)
    assert newest(tmp_path).step == 9
    assert all(torch.isfinite(t).all() for group in ("model", "ema") for t in newest(tmp_path).tensors(group).values())


def test_an_infinite_gradient_stops_the_run_too(tmp_path: Path) -> None:
    class Poison(Callback):
        def on_start(self, trainer: Trainer) -> None:
            parameter = trainer.model.patch_embedding.weight
            parameter.register_hook(lambda gradient: gradient * (math.inf if trainer.step == 2 else 1.0))

    with pytest.raises(LeanDiTError, match="step 3: the gradient is not finite") as error:
        train(tmp_path, callbacks=(Poison(),))
    message = str(error.value)
    assert "\nGradients that are not finite: patch_embedding.weight\n" in message
    assert "Samples" not in message
    assert "Newest checkpoint: none yet. Start again in another --out with a lower optimizer.lr" in message
    assert find_newest(tmp_path / "checkpoints") is None


def test_the_way_out_of_a_loss_that_is_not_finite_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        poison(patch, step=7, row=2)
        with pytest.raises(LeanDiTError) as error:
            train(tmp_path / "my run", "train.checkpoint_every=5", "train.batch_size=4")
    [advice] = re.findall(r"leandit (train .*) --out NEW optimizer.lr=\.\.\.", str(error.value))
    words = [*shlex.split(advice), "--out", str(tmp_path / "new"), "optimizer.lr=1e-4", "train.steps=1"]
    assert main(words) == 0
    assert "started from the ema weights" in capsys.readouterr().err or (tmp_path / "new/checkpoints").is_dir()


def test_a_part_of_the_loss_that_is_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leandit.moe.losses.router_similarity", lambda logits, mask: logits.sum() * math.inf)
    with pytest.raises(LeanDiTError, match="Parts of the loss: router_similarity; every sample's own loss is finite"):
        train(tmp_path)


def test_tensorboard_mirrors_the_numbers_of_the_metrics(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path, "train.tensorboard=true", "train.log_every=2", callbacks=(StopAfter(7),))
    train(tmp_path, "train.tensorboard=true", "train.log_every=2", resume=True)
    mirror = events.EventAccumulator(str(tmp_path / "tensorboard"))
    mirror.Reload()
    records = numbers(tmp_path)
    names = {name for name, value in records[0].items() if isinstance(value, int | float)} - {"step"}
    assert {"loss", "mse", "gradient_norm", "threshold/blocks.0.moe"} <= names
    assert set(mirror.Tags()["scalars"]) == names | {"images_per_second", "mfu"}
    for name in names:
        found = [(event.step, event.value) for event in mirror.Scalars(name)]
        assert found == [(r["step"], pytest.approx(r[name], rel=1e-6)) for r in records], name


def test_tensorboard_not_installed_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(LeanDiTError, match=r"pip install 'leandit\[tensorboard\]'"):
        train(tmp_path, "train.tensorboard=true")


def test_callbacks_are_told_of_the_end_once_and_of_the_finish_only_at_the_last_step(tmp_path: Path) -> None:
    class Diary(Callback):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def on_start(self, trainer: Trainer) -> None:
            self.lines.append(f"start {trainer.step}")

        def on_metrics(self, trainer: Trainer, step: int, values: Any) -> None:
            self.lines.append(f"metrics {step}")

        def on_finish(self, trainer: Trainer) -> None:
            self.lines.append(f"finish {trainer.store.steps()}")

        def on_end(self, trainer: Trainer) -> None:
            self.lines.append("end")

    diary = Diary()
    train(tmp_path, callbacks=(diary, StopAfter(6)))
    train(tmp_path, callbacks=(diary,), resume=True)
    stopped = ["start 0", "metrics 1", "metrics 5", "end"]
    finished = ["start 6", "metrics 10", "metrics 15", "metrics 20", "finish [10, 20]", "end"]
    assert diary.lines == stopped + finished


def test_damaged_checkpoints_are_never_taken_for_a_fresh_start(tmp_path: Path) -> None:
    train(tmp_path)
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    for path in (tmp_path / "checkpoints").glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        with pytest.raises(LeanDiTError, match=r"no intact checkpoint[^$]*step-00000010.corrupt-1"):
            train(tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


def test_one_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "run")
    damaged = tmp_path / "run" / "checkpoints" / "step-00000020" / "optimizer.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    train(tmp_path / "run", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "run")
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "run")
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000010", "step-00000020", "step-00000020.corrupt-1"]


def test_a_run_is_not_resumed_on_other_pictures(tmp_path: Path) -> None:
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(pictures / f"{index}.png")
    source = ["data.source.type=class_folder", f"data.source.path={pictures}", "train.batch_size=2"]
    train(tmp_path / "run", "train.steps=2", *source)
    (pictures / "0.png").unlink()
    with pytest.raises(LeanDiTError, match="3 pictures in 0 classes when the run was stopped, 2 pictures in"):
        train(tmp_path / "run", "train.steps=4", *source, resume=True)


def test_other_pictures_under_other_names_are_other_data(tmp_path: Path) -> None:
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(pictures / f"{index}.png")
    source = ["data.source.type=class_folder", f"data.source.path={pictures}", "train.batch_size=2"]
    train(tmp_path / "run", "train.steps=2", *source)
    (pictures / "0.png").rename(pictures / "9.png")
    with pytest.raises(
        LeanDiTError, match=r"the data has changed: 3 pictures in 0 classes[^$]*the same numbers, but other pictures"
    ):
        train(tmp_path / "run", "train.steps=4", *source, resume=True)
    (pictures / "9.png").rename(pictures / "0.png")
    # Mended in place.
    Image.new("RGB", (48, 48)).save(pictures / "0.png")
    assert train(tmp_path / "run", "train.steps=4", *source, resume=True) == 0


def test_weights_ruined_by_a_finite_gradient_reach_no_checkpoint(tmp_path: Path) -> None:
    class Overshoot(Callback):
        def on_start(self, trainer: Trainer) -> None:
            trainer._rates = [1e39 for _ in trainer._rates]

    with pytest.raises(LeanDiTError, match=r"step 1: the weights are not finite[^$]*Newest checkpoint: none yet"):
        train(tmp_path, "train.steps=1", callbacks=(Overshoot(),))
    assert find_newest(tmp_path / "checkpoints") is None
    # Nothing to lose there: a better rate may take its place, and the numbers of the failure are gone.
    assert train(tmp_path, "train.steps=1", "optimizer.lr=1e-4") == 0
    assert [math.isfinite(line["loss"]) for line in numbers(tmp_path)] == [True]
    assert len((tmp_path / "environment.jsonl").read_text().splitlines()) == 2


def test_averages_that_are_not_finite_keep_the_checkpoint_before(tmp_path: Path) -> None:
    class Poison(Callback):
        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            if report.step == 10:
                trainer.ema.tensors["final.linear.weight"][0, 0] = math.inf

    with pytest.raises(LeanDiTError, match=r"step 20: the averaged weights[^$]*final\.linear\.weight[^$]*: step 10"):
        train(tmp_path, callbacks=(Poison(),))
    assert newest(tmp_path).step == 10


def test_fewer_steps_than_are_done_are_refused_before_anything_is_rewritten(tmp_path: Path) -> None:
    train(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.glob("*.json*")}
    with pytest.raises(LeanDiTError, match=r"train\.steps = 15, but the run has a checkpoint of step 20"):
        train(tmp_path, "train.steps=15", resume=True)
    assert {p: p.read_bytes() for p in tmp_path.glob("*.json*")} == before


def test_the_config_is_there_before_anything_else_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_cut(self: MetricsLog, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "__init__", power_cut)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert RunFolder(tmp_path).read_config().name == "tiny"
    assert train(tmp_path, "train.steps=2", resume=True) == 0


def test_a_step_is_saved_before_the_callbacks_that_may_draw(tmp_path: Path) -> None:
    saved: list[int] = []

    class Look(Callback):
        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            if report.step in (10, 20):
                saved.append(trainer.store.steps()[-1])

    train(tmp_path, callbacks=(Look(),))
    assert saved == [10, 20]


def test_a_signal_ends_what_callbacks_do_between_and_after_steps(tmp_path: Path) -> None:
    class Draw(Callback):
        def __init__(self, step: int) -> None:
            self.step = step
            self.drawn = 0

        def draw(self, trainer: Trainer) -> None:
            signal.raise_signal(signal.SIGTERM)
            for _ in range(3):
                trainer.stop.check()
                self.drawn += 1

        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            if report.step == self.step:
                self.draw(trainer)

        def on_finish(self, trainer: Trainer) -> None:
            self.draw(trainer)

    on_the_way, at_the_end = Draw(step=4), Draw(step=0)
    assert train(tmp_path, callbacks=(on_the_way,)) == 143
    assert newest(tmp_path).step == 4
    assert train(tmp_path, callbacks=(at_the_end,), resume=True) == 143
    assert newest(tmp_path).step == 20
    assert on_the_way.drawn == at_the_end.drawn == 0


def test_metrics_that_cannot_be_synced_cost_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, metrics = os.fsync, tmp_path / "metrics.jsonl"

    def fail(descriptor: int) -> None:
        if metrics.exists() and os.path.samestat(os.fstat(descriptor), metrics.stat()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(LeanDiTError, match="the metrics could not be written: Input/output error"):
        train(tmp_path)
    assert newest(tmp_path).step == 10


def test_a_micro_batch_leaves_none_of_its_routing_behind(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, "train.accumulation=4")
    masks: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def look(module: Any, inputs: Any, output: Any) -> None:
        alive.append(sum(mask() is not None for mask in masks))
        masks.append(weakref.ref(output.mask))

    handle = next(iter(trainer.model.blocks)).moe.router.register_forward_hook(look)
    trainer._train_step(trainer.loader.batch(0))
    handle.remove()
    trainer.metrics.close()
    # The one before may still be held while the next is computed.
    assert len(alive) == 4
    assert max(alive) <= 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_names_what_needs_less_of_it(tmp_path: Path, error: Exception) -> None:
    class Fill(Callback):
        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            raise error

    with pytest.raises(LeanDiTError, match=r"out of memory on cpu[^$]*train\.accumulation \(now 1[^$]*batch_size") as e:
        train(tmp_path, callbacks=(Fill(),))
    assert "train.activation_checkpointing=true" in str(e.value)


def test_memory_that_really_runs_out_on_the_cpu_is_told_apart_from_other_errors(tmp_path: Path) -> None:
    class Huge(Callback):
        def on_start(self, trainer: Trainer) -> None:
            torch.empty(2**60, dtype=torch.uint8)

    class Wrong(Callback):
        def on_start(self, trainer: Trainer) -> None:
            raise RuntimeError("shapes differ")

    with pytest.raises(LeanDiTError, match="out of memory on cpu"):
        train(tmp_path, callbacks=(Huge(),))
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(tmp_path, callbacks=(Wrong(),))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(LeanDiTError, match="device 'cuda:7': there are only cuda:0 to cuda:1 here"):
        resolve_device("cuda:7")


def test_warnings_that_no_callback_takes_go_into_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Listen(Callback):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_warning(self, trainer: Trainer, message: str) -> None:
            self.heard.append(message)

    trainer = build_trainer(tmp_path)
    trainer.metrics.close()
    with caplog.at_level(logging.WARNING, logger="leandit"):
        trainer.callbacks = (StopAfter(1),)
        trainer.warn("experts starve")
        assert [record.getMessage() for record in caplog.records] == ["step 0: experts starve"]
        trainer.callbacks = (StopAfter(1), listener := Listen())
        trainer.warn("experts starve")
    assert listener.heard == ["step 0: experts starve"]
    assert len(caplog.records) == 1


def test_a_resume_counts_the_steps_of_a_starved_expert_on(tmp_path: Path) -> None:
    class Starve(Callback):
        """Tells the watch that expert 1 of the second layer has starved for so many steps already."""

        def on_start(self, trainer: Trainer) -> None:
            if not trainer.step:
                trainer.task.watch_loads.restore([[0, 0, 0, 0], [0, 49, 0, 0]])
            # Nothing is ever fair enough.
            trainer.task.watch_loads.share = 100.0

    class Listen(Callback):
        def on_warning(self, trainer: Trainer, message: str) -> None:
            lines.append(message)

    lines: list[str] = []
    train(tmp_path, callbacks=(Starve(), StopAfter(3), Listen()))
    assert len(lines) == 1
    assert "step 1: blocks.1.moe: expert 1 got under" in lines[0]
    assert newest(tmp_path).state["task"]["state"]["starved_steps"] == [[3, 3, 3, 3], [3, 52, 3, 3]]
    train(tmp_path, callbacks=(Starve(), StopAfter(5), Listen()), resume=True)
    assert newest(tmp_path).state["task"]["state"]["starved_steps"] == [[5, 5, 5, 5], [5, 54, 5, 5]]
