"""Checkpoints: exact round trips, refusal of the damaged and the foreign, full disks, kills at any moment."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from leandit.errors import LeanDiTError
from leandit.run import checkpoint as checkpoint_module
from leandit.run.checkpoint import Checkpoint, find_newest, open_checkpoint
from leandit.run.manifest import DamagedCheckpoint, UnfitCheckpoint
from leandit.run.store import CheckpointStore

STATE = {"samples": 640, "loss": 0.25, "names": ["a", "b"]}
CONFIG = {"model": {"dim": 8}}


def tensors(step: int) -> dict[str, dict[str, torch.Tensor]]:
    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4) + step
    return {
        "model": {"weight": weight, "half": weight.to(torch.bfloat16) / 3},
        "optimizer": {"step": torch.tensor(step), "mask": weight > 4, "moment": weight.double() / 7},
    }


def publish(store: CheckpointStore, *steps: int) -> Path:
    for step in steps:
        path = store.publish(step, tensors(step), {**STATE, "step": step}, CONFIG)
    return path


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def assert_same(loaded: dict[str, torch.Tensor], saved: dict[str, torch.Tensor]) -> None:
    assert loaded.keys() == saved.keys()
    for name, tensor in saved.items():
        assert loaded[name].dtype == tensor.dtype, name
        assert torch.equal(loaded[name], tensor), name


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.mark.parametrize("full", [False, True])
def test_what_was_published_is_read_back_exactly(store: CheckpointStore, full: bool) -> None:
    loaded = open_checkpoint(publish(store, 1000), full=full)
    assert (loaded.step, loaded.state, loaded.config) == (1000, {**STATE, "step": 1000}, CONFIG)
    assert loaded.groups == ["model", "optimizer"]
    for group, saved in tensors(1000).items():
        assert_same(loaded.tensors(group), saved)


def test_views_shared_memory_scalars_and_empty_tensors(store: CheckpointStore) -> None:
    base = torch.randn(6, 4, requires_grad=True)
    awkward = {
        "base": base,
        "tied": base,
        "row": base[2],
        "lone view": torch.arange(9)[3:5],
        "transposed": base.t(),
        "strided": base[::2, 1:3],
        "expanded": torch.ones(1).expand(5),
        "scalar": torch.tensor(3.5),
        "flag": torch.tensor(True),
        "empty": torch.empty(0, 3),
    }
    loaded = open_checkpoint(store.publish(1, {"model": awkward}, {}, {})).tensors("model")
    assert_same(loaded, {name: tensor.detach() for name, tensor in awkward.items()})


def test_files_are_as_the_manifest_says_by_an_independent_reading(store: CheckpointStore) -> None:
    path = publish(store, 7)
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"], manifest["step"]) == ("leandit-checkpoint", 2, 7)
    own = manifest.pop("sha256")
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    assert own == hashlib.sha256(canonical.encode()).hexdigest()
    assert sorted(manifest["files"]) == [n for n in names(path) if n != "manifest.json"]
    for name, record in manifest["files"].items():
        content = (path / name).read_bytes()
        assert record == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert (path / name).stat().st_mode == (path / "manifest.json").stat().st_mode
    assert path.name == "step-00000007"


def test_loaded_tensors_outlive_their_file(store: CheckpointStore) -> None:
    path = publish(store, 1)
    loaded = open_checkpoint(path).tensors("model")
    (path / "model.safetensors").write_bytes(b"")
    assert_same(loaded, tensors(1)["model"])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_manifest(path: Path, **changes: object) -> None:
    """Change keys of the manifest and its checksum with them."""
    content = json.loads((path / "manifest.json").read_text()) | changes
    content.pop("sha256", None)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    signed = content | {"sha256": hashlib.sha256(canonical).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(signed if content["version"] != 1 else content))


def in_manifest(path: Path, old: str, new: str) -> None:
    """Replace a text in the manifest and leave its checksum."""
    content = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(content.replace(old, new))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "bit flipped": (lambda p: flip(p / "model.safetensors"), r"model\.safetensors: altered or damaged"),
    "state altered": (lambda p: (p / "state.json").write_text(
        (p / "state.json").read_text().replace("640", "641")), r"state\.json: altered or damaged"),
    "truncated": (lambda p: os.truncate(p / "model.safetensors", 50), r"model\.safetensors: truncated"),
    "file missing": (lambda p: (p / "optimizer.safetensors").unlink(), r"optimizer\.safetensors: missing"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), r"no manifest\.json in it"),
    "manifest torn": (lambda p: os.truncate(p / "manifest.json", 40), r"manifest\.json: not valid JSON"),
    "manifest altered": (lambda p: in_manifest(p, '"step": 2', '"step": 1'), r"manifest\.json: altered or damaged"),
    "version altered": (lambda p: in_manifest(p, '"version": 2', '"version": 9'), r"manifest\.json: altered"),
    "a hash altered": (lambda p: in_manifest(p, "a", "b"), r"manifest\.json: "),
    "checksum missing": (lambda p: in_manifest(p, '"sha256": "', '"sha265": "'), r"manifest\.json: not a manifest"),
    "a key more": (lambda p: edit_manifest(p, surplus=1), "the key 'surplus' is unknown"),
    "a key of version 2 missing": (lambda p: in_manifest(p, '"run": ', '"ran": '), r"manifest\.json: "),
    "a negative step": (lambda p: edit_manifest(p, step=-1), r"manifest\.json: not a manifest .*step -1"),
    "another step": (lambda p: edit_manifest(p, step=1), r"manifest\.json: says step 1"),
    "manifest a list": (lambda p: (p / "manifest.json").write_text("[]"), "expected a JSON object"),
    "other format": (lambda p: edit_manifest(p, format="other"), "format is 'other'"),
    "no files": (lambda p: edit_manifest(p, files=None), "not a manifest that LeanDiT wrote"),
    "path outside": (lambda p: edit_manifest(p, files={"../x": {"size": 1, "sha256": ""}}), r"name '\.\./x'"),
    "pickle inside": (lambda p: (p / "model.safetensors").write_bytes(
        pickle.dumps({"w": 1}).ljust((p / "model.safetensors").stat().st_size, b".")), "never loads pickles"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named_and_the_checkpoint_before_it_is_used(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    damage, message = DAMAGES[kind]
    path = publish(store, 1, 2)
    damage(path)
    with pytest.raises(DamagedCheckpoint, match=message):
        open_checkpoint(path, full=True)
    with caplog.at_level(logging.WARNING):
        newest = store.newest()
    assert newest is not None
    assert newest.step == 1
    assert names(store.folder) == ["step-00000001", "step-00000002.corrupt-1"]
    assert "step-00000002.corrupt-1" in caplog.text


def test_a_tensor_file_is_verified_when_it_is_loaded(store: CheckpointStore) -> None:
    path = publish(store, 1)
    flip(path / "optimizer.safetensors")
    loaded = open_checkpoint(path)
    assert_same(loaded.tensors("model"), tensors(1)["model"])
    with pytest.raises(LeanDiTError, match=r"optimizer\.safetensors: altered"):
        loaded.tensors("optimizer")
    with pytest.raises(LeanDiTError, match="Did you mean 'model'"):
        loaded.tensors("modle")


def test_each_tensor_file_is_hashed_once(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = publish(store, 1)
    hashed: list[str] = []
    original = checkpoint_module.check_hash
    monkeypatch.setattr(checkpoint_module, "check_hash", lambda f, n, r: (hashed.append(n), original(f, n, r)))
    open_checkpoint(path, full=True).tensors("model")
    assert sorted(hashed) == ["config.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    hashed.clear()
    open_checkpoint(path).tensors("model")
    assert sorted(hashed) == ["config.json", "model.safetensors", "state.json"]


def test_a_pickle_is_refused_even_with_a_manifest_that_vouches_for_it(store: CheckpointStore) -> None:
    path = publish(store, 1)
    for saved in (pickle.dumps({"w": 1}), b"PK\x03\x04" + bytes(60)):
        (path / "model.safetensors").write_bytes(saved)
        content = json.loads((path / "manifest.json").read_text())
        record = {"size": len(saved), "sha256": hashlib.sha256(saved).hexdigest()}
        edit_manifest(path, files=content["files"] | {"model.safetensors": record})
        with pytest.raises(LeanDiTError, match="never loads pickles"):
            open_checkpoint(path).tensors("model")


def test_a_safetensors_header_that_begins_like_a_pickle_is_read(store: CheckpointStore) -> None:
    for width in range(1, 400):
        content = safetensors.torch.save({"w" * width: torch.zeros(1)})
        if struct.unpack("<Q", content[:8])[0] % 256 == 0x80:
            break
    assert content[:1] == b"\x80"
    path = store.publish(1, {"model": {"w" * width: torch.zeros(1)}}, {}, {})
    assert list(open_checkpoint(path).tensors("model")) == ["w" * width]


def test_foreign_paths_are_refused_with_what_was_expected(store: CheckpointStore, tmp_path: Path) -> None:
    with pytest.raises(LeanDiTError, match="no such checkpoint folder"):
        open_checkpoint(tmp_path / "nothing")
    torch.save({"w": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(LeanDiTError, match=r"model\.pt: a pickled file\. LeanDiT never loads pickles"):
        open_checkpoint(tmp_path / "model.pt")
    foreign = tmp_path / "diffusers"
    foreign.mkdir()
    (foreign / "model_index.json").write_text("{}")
    with pytest.raises(LeanDiTError, match=r"contains model_index\.json(.|\n)*Expected manifest\.json"):
        open_checkpoint(foreign)
    (foreign / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(LeanDiTError, match="never loads pickles"):
        open_checkpoint(foreign)
    publish(store, 3)
    with pytest.raises(LeanDiTError, match=r"Did you mean .*step-00000003"):
        open_checkpoint(tmp_path)


def test_a_newer_format_stops_resuming_instead_of_being_set_aside(store: CheckpointStore) -> None:
    edit_manifest(publish(store, 1, 2), version=3)
    with pytest.raises(LeanDiTError, match="reads up to format 2"):
        store.newest()
    assert store.steps() == [1, 2]


def test_a_checkpoint_of_the_first_format_is_read(store: CheckpointStore) -> None:
    path = publish(store, 1)
    content = json.loads((path / "manifest.json").read_text())
    first = {key: content[key] for key in ("format", "step", "files")} | {"version": 1}
    (path / "manifest.json").write_text(json.dumps(first))
    newest = CheckpointStore(store.folder, run="0" * 32).newest()
    assert newest is not None
    assert_same(newest.tensors("model"), tensors(1)["model"])


def test_the_checkpoint_of_another_run_is_passed_over_and_never_kept_for_ones_own(tmp_path: Path) -> None:
    ours, theirs = (CheckpointStore(tmp_path / name, run=name * 32) for name in "ab")
    publish(ours, 1, 2)
    foreign = publish(theirs, 1, 2)
    shutil.rmtree(ours.folder / "step-00000002")
    shutil.copytree(foreign, ours.folder / "step-00000002")
    newest = ours.newest()
    assert newest is not None
    assert newest.step == 1
    assert names(ours.folder) == ["step-00000001", "step-00000002.corrupt-1"]
    # Beside a training: it publishes a step that another run's checkpoint has been put in the place of.
    shutil.copytree(foreign, ours.folder / "step-00000002")
    assert open_checkpoint(publish(ours, 2)).manifest.run == "a" * 32


def test_where_no_checkpoint_fits_none_is_renamed(store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    publish(store, 1, 2)

    def refuse(steps: set[int]) -> Callable[[Checkpoint], int]:
        def use(checkpoint: Checkpoint) -> int:
            if checkpoint.step in steps:
                raise UnfitCheckpoint(f"{checkpoint.path}: does not fit")
            return checkpoint.step

        return use

    with pytest.raises(LeanDiTError, match=r"step-00000002: does not fit\nNo earlier checkpoint fits"):
        store.read(refuse({1, 2}))
    assert store.steps() == [1, 2]
    assert store.read(refuse({2})) == 1
    assert names(store.folder) == ["step-00000001", "step-00000002.corrupt-1"]
    assert "does not fit" in caplog.text


def test_content_without_a_stored_form_is_refused_and_leaves_nothing(store: CheckpointStore) -> None:
    for groups, state, message in [
        ({}, {"x": object()}, r"state\.json: .* no JSON form"),
        ({}, {"x": float("nan")}, r"state\.json: .* no JSON form"),
        ({"../up": {}}, {}, "tensor group"),
        ({"model": {"w": torch.eye(2).to_sparse()}}, {}, r"model\.safetensors: tensors without"),
    ]:
        with pytest.raises(LeanDiTError, match=message):
            store.publish(1, groups, state, {})
    assert names(store.folder) == []


def test_retention_keeps_the_newest_and_the_marked(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1, keep_every=4)
    publish(store, *range(1, 11))
    assert names(tmp_path) == [f"step-{s:08d}" for s in (4, 8, 9, 10)]


def test_retention_never_counts_damaged_ones(store: CheckpointStore) -> None:
    os.truncate(publish(store, 1, 2) / "model.safetensors", 9)
    publish(store, 3)
    assert names(store.folder) == ["step-00000001", "step-00000002.corrupt-1", "step-00000003"]
    publish(store, 4)
    assert store.steps() == [3, 4]


def test_leftovers_are_removed_by_the_store_and_left_alone_by_readers(store: CheckpointStore) -> None:
    publish(store, 1)
    for name in (".tmp-00000002-ab", ".trash-step-00000000-cd"):
        (store.folder / name).mkdir()
        (store.folder / name / "model.safetensors").write_bytes(b"x")
    newest = find_newest(store.folder)
    assert newest is not None
    assert newest.step == 1
    assert len(names(store.folder)) == 3
    store.newest()
    assert names(store.folder) == ["step-00000001"]


def test_readers_pass_over_damage_without_renaming(store: CheckpointStore, tmp_path: Path) -> None:
    os.truncate(publish(store, 1, 2) / "model.safetensors", 9)
    newest = find_newest(store.folder)
    assert newest is not None
    assert newest.step == 1
    assert store.steps() == [1, 2]
    assert find_newest(tmp_path / "none") is None
    assert CheckpointStore(tmp_path / "none").newest() is None


def test_an_intact_step_is_kept_a_damaged_one_replaced_an_earlier_one_refused(store: CheckpointStore) -> None:
    path = publish(store, 5)
    store.publish(5, {"model": {"w": torch.zeros(1)}}, {}, {})
    assert_same(open_checkpoint(path).tensors("model"), tensors(5)["model"])
    flip(path / "model.safetensors")
    publish(store, 5)
    assert_same(open_checkpoint(path).tensors("model"), tensors(5)["model"])
    assert names(store.folder) == ["step-00000005", "step-00000005.corrupt-1"]
    with pytest.raises(LeanDiTError, match="step 5 is there already"):
        publish(store, 4)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process and return its exit code (negative: the signal that ended it)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # a forked child has none of its parent's worker threads
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check_refused(store: CheckpointStore, reason: str) -> None:
    big = {"model": {"w": torch.zeros(1 << 19)}}
    with pytest.raises(LeanDiTError, match=reason) as caught:
        store.publish(2, big, {}, {})
    for part in (
        "step 2",
        "2,097,152 bytes",
        "bytes are free",
        "intact (newest: step 1)",
        "model.safetensors",
    ):
        assert part in str(caught.value), part
    assert names(store.folder) == ["step-00000001"]
    assert store.newest() is not None


def test_a_file_size_limit_is_an_error_that_leaves_the_earlier_checkpoint(store: CheckpointStore) -> None:
    publish(store, 1)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        check_refused(store, os.strerror(errno.EFBIG))

    assert in_child(limited) == 0


FULL_DISK = """
import sys, torch; from pathlib import Path
sys.path.insert(0, {here!r})
import test_store
store = test_store.CheckpointStore(Path({folder!r}) / "checkpoints")
test_store.publish(store, 1)
test_store.check_refused(store, "No space left on device")
"""


def test_a_really_full_disk_is_an_error_that_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    # A private mount namespace: the small disk is seen by this one process and goes with it.
    script = FULL_DISK.format(here=str(Path(__file__).parent), folder=str(tmp_path))
    mount = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}" || exit 77; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting a small disk is not permitted here")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("broken", ["os.fsync", "os.rename", "pathlib.Path.mkdir", "pathlib.Path.write_text"])
def test_any_failing_call_is_an_error_and_leaves_nothing(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    publish(store, 1)

    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(LeanDiTError, match="step 2 could not be written: No space left on device"):
            publish(store, 2)
    assert names(store.folder) == ["step-00000001"]


def test_an_interrupt_leaves_nothing(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, 1)

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish(store, 2)
    assert names(store.folder) == ["step-00000001"]


CUT_POINTS = ("fsync", "rename", "mkdir", "unlink", "rmdir")


def test_a_process_that_dies_at_any_system_call_leaves_an_intact_checkpoint(tmp_path: Path) -> None:
    """Step 3 replaces step 1; the process ends before its first, second, ... call, until none is left."""
    outcomes = []
    for cut in range(100):
        store = CheckpointStore(tmp_path / str(cut))
        publish(store, 1, 2)

        def doomed(cut: int = cut, store: CheckpointStore = store) -> None:
            left = [cut]
            for name in CUT_POINTS:
                setattr(os, name, dying(getattr(os, name), left))
            publish(store, 3)

        code = in_child(doomed)
        newest = CheckpointStore(store.folder).newest()
        assert newest is not None
        for group, saved in tensors(newest.step).items():
            assert_same(newest.tensors(group), saved)
        assert all(name.startswith("step-") and "corrupt" not in name for name in names(store.folder))
        for step in store.steps():
            open_checkpoint(store.folder / f"step-{step:08d}", full=True)
        outcomes.append(newest.step)
        if code == 0:
            break
    assert code == 0
    assert outcomes == sorted(outcomes)
    assert outcomes.count(2) >= 8, "before the rename: the folder, five files, their folder"
    assert outcomes.count(3) >= 4, "after it: the parent folder, and each step of deleting step 1"


def test_every_byte_is_on_the_disk_before_the_name_and_the_name_before_returning(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.folder.mkdir()
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}").split("/")[-1])
        fsync(descriptor)

    def record_rename(source: Path, target: Path) -> None:
        events.append(f"{source.name} -> {target.name}")
        rename(source, target)

    monkeypatch.setattr("os.fsync", record_fsync)
    monkeypatch.setattr("os.rename", record_rename)
    path = publish(store, 1)
    assert sorted(events[:5]) == names(path)
    assert events[5].startswith(".tmp-00000001-")
    assert events[6:] == [f"{events[5]} -> step-00000001", "checkpoints"]


def dying(call: Callable[..., object], left: list[int]) -> Callable[..., object]:
    def wrapped(*args: object, **options: object) -> object:
        if left[0] == 0:
            os._exit(9)
        left[0] -= 1
        return call(*args, **options)

    return wrapped


def test_killed_at_random_times_the_newest_verifies_and_is_no_older_than_reported(tmp_path: Path) -> None:
    chance = random.Random(0)
    store = CheckpointStore(tmp_path)
    reported = 0
    for _ in range(20):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            publish_forever(store, writer)
        os.close(writer)
        first = os.read(reader, 8)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reader, "rb") as pipe:
            received = first + pipe.read()
        previous, reported = reported, struct.unpack("<q", received[-8:])[0]
        newest = CheckpointStore(tmp_path).newest()
        assert newest is not None
        assert newest.step >= reported > previous
        for group, saved in tensors(newest.step).items():
            assert_same(newest.tensors(group), saved)
    assert not [name for name in names(tmp_path) if "corrupt" in name]


def publish_forever(store: CheckpointStore, writer: int) -> None:
    try:
        newest = store.newest()
        step = newest.step if newest else 0
        while True:
            step += 1
            publish(store, step)
            os.write(writer, struct.pack("<q", step))
    finally:
        os._exit(1)
