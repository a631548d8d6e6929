"""A path that the file system does not take ends in a message, whatever the command and the option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.training.dry_run import dry_run

LONG = "x" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", LONG],
        ["sample", "RUN", "--seeds", "0", "--out", LONG],
        ["train", "tiny", "--out", LONG],
        ["train", "tiny", "--dry-run", f"start.path={LONG}"],
        ["train", f"{LONG}.toml", "--dry-run"],
        ["resume", LONG],
        ["runs", LONG],
        ["probe", LONG],
        ["probe", "RUN", "--out", LONG],
        ["evaluate", LONG],
        ["evaluate", "RUN", "kid", "--reference", LONG],
        ["evaluate", "RUN", "fid", "--weights-from", f"inception={LONG}"],
        ["evaluate", "--compare", LONG, LONG],
        ["serve", LONG],
    ],
    ids=lambda arguments: " ".join(word[:12] for word in arguments),
)
def test_a_path_too_long_is_named(fails: Callable[..., str], tiny_run: Path, arguments: list[str]) -> None:
    message = fails(*(str(tiny_run) if word == "RUN" else word for word in arguments))
    assert "xxxx" in message
    assert "ame too long" in message


@pytest.mark.parametrize(
    "override", ["text.encoders.0.path=" + "9" * 5000, "model.moe.group_tokens=9223372036854775807"]
)
def test_values_that_the_fuzzer_found(override: str) -> None:
    with pytest.raises(LeanDiTError, match=r"too long|at most"):
        dry_run(run_config("emoji-ec-dit", [override]))
