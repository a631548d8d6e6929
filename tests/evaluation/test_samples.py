"""Drawing for an evaluation: interrupted or split over ranks, it gives the same pictures."""

import tokenize
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leandit.errors import LeanDiTError
from leandit.evaluation import samples
from leandit.evaluation.metric import Plan
from leandit.evaluation.record import checkpoint_facts
from leandit.evaluation.samples import Rank, SampleSet
from leandit.run.config import SamplingConfig
from leandit.sampling import LoadedRun, load

_PLAN = Plan([0, 1] * 7, range(14))


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> LoadedRun:
    return load(tiny_run)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SHARD", 4)


def sample_set(run: LoadedRun, root: Path, plan: Plan = _PLAN, settings: SamplingConfig | None = None) -> SampleSet:
    return SampleSet(run, plan, settings or run.config.sampling, checkpoint_facts(run, "ema"), root)


def drawn_by(run: LoadedRun, root: Path, ranks: int) -> torch.Tensor:
    for number in reversed(range(ranks)):
        sample_set(run, root).draw(Rank(number, ranks), batch_size=64)
    return sample_set(run, root).collect(Rank(0, ranks)).pictures


def test_any_number_of_ranks_draws_the_same_set(run: LoadedRun, tmp_path: Path) -> None:
    alone = drawn_by(run, tmp_path / "one", 1)
    assert alone.shape == (14, 32, 32, 3)
    assert torch.equal(drawn_by(run, tmp_path / "three", 3), alone)
    smaller = sample_set(run, tmp_path / "batches")
    smaller.draw(Rank(), batch_size=3)
    assert (smaller.collect(Rank()).pictures.int() - alone.int()).abs().max() <= 1


def test_a_rank_draws_its_shards_alone(run: LoadedRun, tmp_path: Path) -> None:
    one_of_three = sample_set(run, tmp_path)
    one_of_three.draw(Rank(1, 3), batch_size=64)
    assert [one_of_three.path(n).exists() for n in range(4)] == [False, True, False, False]
    with pytest.raises(LeanDiTError, match="3 of 4 shards"):
        one_of_three.collect(Rank())


def test_an_interrupted_drawing_goes_on(run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn_by(run, tmp_path, 1)
    again = sample_set(run, tmp_path)
    again.path(1).unlink()
    again.path(2).write_bytes(again.path(2).read_bytes()[:-200])
    kept = again.path(0).stat().st_mtime_ns
    drawn: list[list[int]] = []
    draw = samples.sample

    def count(run, wanted, seeds, *rest):
        drawn.append(seeds)
        return draw(run, wanted, seeds, *rest)

    monkeypatch.setattr(samples, "sample", count)
    assert torch.equal(drawn_by(run, tmp_path, 1), whole)
    assert drawn == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert again.path(0).stat().st_mtime_ns == kept
    assert not list(again.folder.glob(".*"))


def test_a_shard_appears_whole_or_not_at_all(run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(samples.np, "savez", fail)
    with pytest.raises(LeanDiTError, match=r"No space left on device; choose another --out"):
        sample_set(run, tmp_path).draw(Rank(), batch_size=64)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_another_plan_sampler_or_checkpoint_has_another_folder(run: LoadedRun, tmp_path: Path) -> None:
    base = sample_set(run, tmp_path)
    settings = run.config.sampling
    more_steps = settings.replace(sampler=settings.sampler.replace(steps=5))
    facts = {**base.checkpoint, "weights_sha256": "0" * 64}
    others = [
        sample_set(run, tmp_path, Plan([1, 0] * 7, range(14))),
        sample_set(run, tmp_path, Plan([0, 1] * 7, range(1, 15))),
        sample_set(run, tmp_path, settings=more_steps),
        SampleSet(run, _PLAN, settings, facts, tmp_path),
    ]
    assert len({each.folder for each in (base, *others)}) == 5
    assert sample_set(run, tmp_path, settings=settings.replace(grid=3)).folder == base.folder


def test_rank_zero_waits_for_the_others_and_not_for_ever(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = sample_set(run, tmp_path)
    late.draw(Rank(0, 2), batch_size=64)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        late.draw(Rank(1, 2), batch_size=64)

    monkeypatch.setattr(samples.time, "sleep", wait)
    assert len(late.collect(Rank(0, 2)).pictures) == 14
    assert len(waits) == 1
    monkeypatch.setattr(samples, "_PATIENCE", -1.0)
    late.path(1).unlink()
    with pytest.raises(LeanDiTError, match="1 of 4 shards of other ranks did not come"):
        late.collect(Rank(0, 2))


def test_progress_counts_pictures(run: LoadedRun, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    sample_set(run, tmp_path).draw(Rank(), 64, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (14, 14)
    assert len(seen) > 4


@pytest.mark.parametrize("number", ["x", "3", "-1"])
def test_ranks_must_make_sense(number: str) -> None:
    assert Rank.from_environment({}) == Rank(0, 1)
    assert Rank.from_environment({"RANK": "2", "WORLD_SIZE": "3"}) == Rank(2, 3)
    with pytest.raises(LeanDiTError, match="RANK below WORLD_SIZE"):
        Rank.from_environment({"RANK": number, "WORLD_SIZE": "3"})


def test_any_damage_means_that_a_shard_is_missing(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sample_set(run, tmp_path)
    whole.draw(Rank(), batch_size=64)
    for error in (NotImplementedError, tokenize.TokenError, RuntimeError, TypeError):
        monkeypatch.setattr(samples.np, "load", raising(error))
        assert whole.read(1) is None


def raising(error: type[Exception]) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error("damaged")

    return fail


def test_the_folder_s_hash_is_computed_once(run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = sample_set(run, tmp_path)
    folder = one.folder
    monkeypatch.setattr(SampleSet, "_identity", lambda self: pytest.fail("hashed again"))
    assert one.path(0).parent == folder
