"""Drawings are never mixed or overwritten: a folder belongs to one drawing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leandit.cli import main
from leandit.errors import LeanDiTError
from leandit.sampling import claim_folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


OTHERS: dict[str, tuple[str, ...]] = {
    "seeds": ("--seeds", "1"),
    "choices": ("--labels", "1"),
    "sampling": ("--steps", "2"),
    "weights": ("--weights", "model"),
    "npz": ("--npz",),
    "size": ("--size", "16"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_drawing_does_not_go_into_the_folder_of_the_first(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    out = tmp_path / "out"
    command = ["sample", str(tiny_run), "--labels", "0", "--seeds", "0", "--steps", "1"]
    assert main([*command, "--out", str(out)]) == 0
    before = contents(out)
    assert main([*command, *OTHERS[what], "--out", str(out)]) == 2
    assert contents(out) == before
    message = capsys.readouterr().err
    assert "contains another drawing" in message
    assert what in message
    # The same drawing again is the same pictures.
    assert main([*command, "--out", str(out)]) == 0
    assert contents(out) == before


def test_a_folder_of_other_things_is_refused_and_by_default_the_next_one_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "samples"
    assert claim_folder(out, False, {"seeds": (1, 2)}) == out
    assert claim_folder(out, False, {"seeds": (1, 2)}) == out
    assert claim_folder(out, False, {"seeds": [3]}) == tmp_path / "samples-2"
    assert claim_folder(out, False, {"seeds": [3]}) == tmp_path / "samples-2"
    (out / "drawing.json").unlink()
    (out / "label-0000_seed-000001.png").write_bytes(b"")
    assert claim_folder(out, False, {"seeds": (1, 2)}) == tmp_path / "samples-3"
    with pytest.raises(LeanDiTError, match=r"--out .*samples: the folder is not empty \(it has label-0000"):
        claim_folder(out, True, {"seeds": (1, 2)})
    for damaged in ("", "[]", "{", json.dumps({"seeds": [4]})):
        (out / "drawing.json").write_text(damaged)
        with pytest.raises(LeanDiTError, match="so that nothing is mixed or overwritten"):
            claim_folder(out, True, {"seeds": (1, 2)})
