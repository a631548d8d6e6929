"""Hundreds of corruptions of a run's folder: no crash, no hang, nothing wrong in silence, the right file named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
from attacks import Attacker
from corruptions import Corruption, sign

FAULTS = ("silent", "crash", "hang")
PARTS, EACH = 4, 40


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Attacker:
    return Attacker(tmp_path_factory.mktemp("attacked"))


@pytest.mark.parametrize("part", range(PARTS))
def test_no_corruption_is_loaded_in_silence(attacker: Attacker, part: int) -> None:
    verdicts: Counter[str] = Counter()
    for seed in range(part * EACH, (part + 1) * EACH):
        for outcome in attacker.attack(seed):
            assert outcome.verdict not in FAULTS, f"seed {seed}: {outcome}"
            if outcome.verdict != "as before":
                assert outcome.named, f"seed {seed}: {outcome}"
            verdicts[f"{outcome.what} {outcome.verdict}"] += 1
    # Most are noticed, and the checkpoint before takes over; what is as before was really harmless.
    assert verdicts["resume noticed"] >= EACH / 2
    assert verdicts["resume refused"] >= 1
    assert verdicts["resume as before"] <= EACH / 4


def test_an_untouched_run_is_loaded_without_a_word(attacker: Attacker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attacks.corrupt", lambda *_: Corruption("none", ()))
    assert [(outcome.verdict, outcome.text) for outcome in attacker.attack(0)] == [("as before", "")] * 2


def test_no_part_of_the_state_may_be_null_or_a_list(attacker: Attacker, monkeypatch: pytest.MonkeyPatch) -> None:
    state = json.loads((max((attacker.pristine / "checkpoints").iterdir()) / "state.json").read_text())
    assert {"task", "metrics", "class_names", "idle_parameters"} < state.keys()
    for name in state:
        for value in (None, [[]]):

            def damage(run: Path, *_: object, name: str = name, value: object = value) -> Corruption:
                folder = max((run / "checkpoints").iterdir())
                (folder / "state.json").write_text(json.dumps(state | {name: value}))
                sign(folder)
                return Corruption(name, ("state.json",))

            monkeypatch.setattr("attacks.corrupt", damage)
            outcomes = attacker.attack(0)
            assert {outcome.verdict for outcome in outcomes} == {"noticed"}, outcomes
            assert all(f"state.json: '{name}" in outcome.text for outcome in outcomes), outcomes


def test_a_wrong_number_would_be_seen(attacker: Attacker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attacker's own eyes: another valid number, which no check can tell, is "silent" to it."""

    def forge(run: Path, *_: object) -> Corruption:
        folder = max((run / "checkpoints").iterdir())
        for group in ("ema", "optimizer"):
            tensors = safetensors.torch.load((folder / f"{group}.safetensors").read_bytes())
            tensors[min(tensors)] += 0.25
            (folder / f"{group}.safetensors").write_bytes(safetensors.torch.save(tensors))
        sign(folder)
        return Corruption("another number", ())

    monkeypatch.setattr("attacks.corrupt", forge)
    assert [outcome.verdict for outcome in attacker.attack(0)] == ["silent"] * 2
