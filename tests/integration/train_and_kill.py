"""Train runs in forked processes, kill them at random moments, and check that nothing published is ever lost.

Usage: train_and_kill.py FOLDER KILLS SEED; prints one JSON object. A script of its own, since a process may fork
only before torch has started its threads; so everything is imported once, and each training is a fork of that.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import struct
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import torch

torch.set_num_threads(1)

from leandit.presets import run_config  # noqa: E402
from leandit.run import checkpoint, store  # noqa: E402
from leandit.run.checkpoint import find_newest, open_checkpoint  # noqa: E402
from leandit.training import Callback, StepReport, Trainer, run_training  # noqa: E402

EVENT = struct.Struct("<cI")
STEP, SAVE, FILE, PUBLISHED = b"t", b"s", b"f", b"p"
CONFIG = run_config("tiny", ["train.steps=24", "train.checkpoint_every=3", "train.log_every=2", "train.batch_size=4"])


@dataclass
class Report:
    """What the parent learnt."""

    kills: int = 0
    in_saves: int = 0
    half_written: int = 0
    resumed_from: list[int] = field(default_factory=list)
    finished_runs: int = 0
    problems: list[str] = field(default_factory=list)


class Telegraph(Callback):
    """Tells the parent of every step and of every moment of a save, through a pipe."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def tell(self, kind: bytes, step: int) -> None:
        os.write(self.pipe, EVENT.pack(kind, step))

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        self.tell(STEP, report.step)

    def watch_saves(self) -> None:
        """Report the parts of a save and stretch them a little, so that kills can fall between any two."""
        publish, sync = store.CheckpointStore.publish, checkpoint.fsync_path

        def told_publish(own: store.CheckpointStore, step: int, *rest: object) -> Path:
            self.tell(SAVE, step)
            path = publish(own, step, *rest)  # type: ignore[arg-type]
            self.tell(PUBLISHED, step)
            return path

        def told_sync(path: Path) -> None:
            sync(path)
            self.tell(FILE, 0)
            time.sleep(0.002)

        store.CheckpointStore.publish = told_publish  # type: ignore[method-assign,assignment]
        checkpoint.fsync_path = store.fsync_path = told_sync


def start(out: Path) -> tuple[int, int]:
    """Fork a training of `out` and return its process and the pipe that it reports to."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            telegraph = Telegraph(writing)
            telegraph.watch_saves()
            code = run_training(CONFIG, out, resume=True, callbacks=[telegraph])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    return pid, reading


def events(pipe: int) -> list[tuple[bytes, int]]:
    """Return the next events, or none once the process has ended."""
    if not select.select([pipe], [], [], 60)[0]:
        raise TimeoutError("no sign of life from the training for a minute")
    content = os.read(pipe, EVENT.size * 1024)
    return list(EVENT.iter_unpack(content[: len(content) // EVENT.size * EVENT.size]))


def train_and_kill(out: Path, dice: random.Random, report: Report) -> tuple[bool, list[tuple[bytes, int]]]:
    """Train until a random moment, in every second case one within a save; return (was killed, all events)."""
    pid, pipe = start(out)
    in_save = dice.random() < 0.5
    countdown = dice.randint(1, 9 if in_save else 7)
    seen: list[tuple[bytes, int]] = []
    killed = False
    while new := events(pipe):
        seen += new
        count = sum(kind in (SAVE, FILE) if in_save else kind == STEP for kind, _ in seen)
        if not killed and count >= countdown:
            time.sleep(dice.random() * 0.004)
            os.kill(pid, signal.SIGKILL)
            killed = True
    os.close(pipe)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    died = status == -signal.SIGKILL
    if not died and status != 0:
        report.problems.append(f"{out.name}: the training failed with {status}")
    return died, seen


def check(out: Path, published: list[int], report: Report) -> None:
    """Every kept checkpoint verifies in full, and the last published one is among them."""
    folder = out / "checkpoints"
    found = store.list_steps(folder)
    for step in found:
        open_checkpoint(folder / checkpoint.folder_name(step), full=True)
    if published and (not found or found[-1] < published[-1] or len(found) < min(2, len(set(published)))):
        report.problems.append(f"{out.name}: published {published}, found {found}")
    report.half_written += any(path.name.startswith(".tmp-") for path in folder.glob(".*"))


def same_bits(one: Path, other: Path) -> bool:
    """Whether two finished runs ended in the same model, EMA and optimiser."""
    pairs = [find_newest(run / "checkpoints") for run in (one, other)]
    first, second = (pair for pair in pairs if pair is not None)
    if first.step != second.step:
        return False
    for group in ("model", "ema", "optimizer"):
        a, b = first.tensors(group), second.tensors(group)
        if a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a):
            return False
    return "blocks.0.moe.router.threshold.value" in first.tensors("model")


def steps_logged(out: Path) -> list[int]:
    """The steps of metrics.jsonl, in the order of its lines."""
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def torture(out: Path, whole: Path, kills: int, dice: random.Random, report: Report) -> None:
    """Train one run to its end through kills; leave it alone once `kills` have happened in all."""
    published: list[int] = []
    died = True
    while died:
        if report.kills < kills:
            died, seen = train_and_kill(out, dice, report)
        else:
            pid, pipe = start(out)
            seen = []
            while new := events(pipe):
                seen += new
            os.close(pipe)
            died = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
        steps = [step for kind, step in seen if kind == STEP]
        report.resumed_from += steps[:1]
        published += [step for kind, step in seen if kind == PUBLISHED]
        if died:
            report.kills += 1
            moments = [kind for kind, _ in seen if kind in (SAVE, PUBLISHED)]
            report.in_saves += moments[-1:] == [SAVE]
        check(out, published, report)
        if report.problems:
            return
    report.finished_runs += 1
    if not same_bits(out, whole):
        report.problems.append(f"{out.name}: its weights differ from those of the run left alone")
    if steps_logged(out) != steps_logged(whole):
        report.problems.append(f"{out.name}: logged {steps_logged(out)}")


def main() -> None:
    """Kill as often as asked, over as many runs as that takes."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    report = Report()
    # In this process, so that what torch imports on first use is there before the forks.
    whole = folder / "whole"
    run_training(CONFIG, whole)
    while (report.kills < kills or not report.finished_runs) and not report.problems:
        torture(folder / f"run-{report.finished_runs}", whole, kills, dice, report)
    print(json.dumps(vars(report)))


main()
