"""The metrics log: no written line is lost to a kill, torn ends are dropped, resuming cuts later steps."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from leandit.errors import LeanDiTError
from leandit.run.metrics import MetricsLog, read_metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.jsonl"


def write(path: Path, *steps: int) -> MetricsLog:
    log = MetricsLog(path)
    for step in steps:
        log.write(step, {"loss": step / 2})
    return log


def steps(path: Path) -> list[int]:
    return [record["step"] for record in read_metrics(path)]


def test_numbers_of_every_kind_are_read_back(path: Path) -> None:
    values = {"a": 0.1, "images": 3, "t": torch.tensor(0.5), "n": np.float32(0.25), "i": np.int64(4)}
    MetricsLog(path).write(np.int64(7), values)
    assert json.loads(path.read_text()) == {"step": 7, "a": 0.1, "images": 3, "t": 0.5, "n": 0.25, "i": 4}
    assert read_metrics(path) == [json.loads(path.read_text())]
    assert type(read_metrics(path)[0]["images"]) is int


def test_non_finite_values_are_valid_json_and_come_back(path: Path) -> None:
    MetricsLog(path).write(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": torch.tensor(math.nan)})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert json.loads(path.read_text(), parse_constant=refuse)["a"] == "nan"
    record = read_metrics(path)[0]
    assert math.isnan(record["a"])
    assert math.isnan(record["d"])
    assert (record["b"], record["c"]) == (math.inf, -math.inf)


def test_a_killed_process_loses_no_written_line(path: Path) -> None:
    path.parent.mkdir()
    pid = os.fork()
    if pid == 0:
        write(path, *range(50))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert steps(path) == list(range(50))


def test_a_line_torn_anywhere_is_left_out_and_dropped_on_opening(path: Path) -> None:
    write(path, 1, 2)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert steps(path) == [1], length
        write(path, 3)
        assert steps(path) == [1, 3], length
    path.write_bytes(whole[:-1])
    write(path, 3)
    assert steps(path) == [1, 2, 3]
    path.write_bytes(whole + bytes(30))
    assert steps(path) == [1, 2]
    write(path, 3)
    assert steps(path) == [1, 2, 3]


@pytest.mark.parametrize("bad", [b"{torn\n", b"[1]\n", b"{}\n", b'{"step": "1"}\n', b"\n", b"\xff\n"])
def test_a_bad_line_in_the_middle_names_file_and_line(path: Path, bad: bytes) -> None:
    write(path, 1)
    path.write_bytes(path.read_bytes() + bad + b'{"step": 2}\n')
    for use in (read_metrics, MetricsLog):
        with pytest.raises(LeanDiTError, match=r"metrics\.jsonl, line 2:"):
            use(path)


def test_resuming_drops_later_steps_and_goes_on_after_them(path: Path) -> None:
    log = write(path, 1, 2, 3, 4, 5)
    kept = b"".join(path.read_bytes().splitlines(keepends=True)[:3])
    log.truncate_after(3)
    assert path.read_bytes() == kept
    log.write(4, {"loss": 9.0})
    assert read_metrics(path)[-1] == {"step": 4, "loss": 9.0}
    assert steps(path) == [1, 2, 3, 4]
    log.truncate_after(-1)
    assert steps(path) == []
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.jsonl"]


def test_truncating_is_atomic(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = write(path, 1, 2, 3)
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(LeanDiTError, match="No space left on device"):
            log.truncate_after(1)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.jsonl"]
    log.write(4, {})
    assert steps(path) == [1, 2, 3, 4]


def test_a_full_disk_leaves_no_half_line(path: Path) -> None:
    log = write(path, 1)
    limit = path.stat().st_size + 10
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with pytest.raises(LeanDiTError, match=os.strerror(errno.EFBIG)):
                log.write(2, {"loss": 0.5})
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert path.read_bytes() == b'{"step": 1, "loss": 0.5}\n'


def test_a_disk_that_fails_to_sync_is_a_message(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log = write(path, 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(LeanDiTError, match=r"metrics\.jsonl: the metrics could not be written: Input/output error"):
            log.sync()


def test_misuse_is_refused(path: Path, tmp_path: Path) -> None:
    log = write(path, 1)
    with pytest.raises(ValueError, match="step"):
        log.write(2, {"step": 3})
    with pytest.raises(TypeError):
        log.write(2, {"x": object()})
    with pytest.raises(LeanDiTError, match="cannot be read"):
        read_metrics(tmp_path / "none")
    with pytest.raises(LeanDiTError, match="could not be written"):
        MetricsLog(path / "below")
    log.sync()
    log.close()
    assert steps(path) == [1]
