"""The identity of a run's pictures and text encoder. Checkpoints store it; resuming and loading compare it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leandit.config import validate
from leandit.data import Source
from leandit.errors import LeanDiTError
from leandit.run.checkpoint import TEXT_ENCODER, find_newest
from leandit.run.folder import RunFolder
from leandit.run.resume import identity_changes
from leandit.text import TextConfig, TextEncoder


def identity(source: Source, text: TextEncoder | None) -> dict[str, Any]:
    """Return the facts about the source and the text encoder that a checkpoint stores, as JSON values."""
    encoder = {} if text is None else {TEXT_ENCODER: text.fingerprint}
    return {
        **encoder,
        "class_names": list(source.class_names),
        "pictures": len(source),
        "fingerprint": source.fingerprint,
    }


def check_same_data(run: Path, state: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise LeanDiTError unless the state of a checkpoint was saved with the same source as `now`."""
    # Old checkpoints have no fingerprint; for them the other facts are compared.
    if all(state.get(name, value) == value for name, value in now.items() if name != TEXT_ENCODER):
        return
    before, after = (f"{kept['pictures']} pictures in {len(kept['class_names'])} classes" for kept in (state, now))
    change = "the same numbers, but other pictures or labels now" if before == after else f"{after} now"
    raise LeanDiTError(
        f"{run}: the data has changed: {before} when the run was stopped, {change}.\n"
        "Put the pictures back as they were, correct the path if they have moved, or start a new run in another --out"
    )


def check_encoder_of_run(run: Path, config: TextConfig | None, text: TextEncoder | None) -> None:
    """Raise LeanDiTError like `check_same_encoder`, if the text config of the run has not changed.

    An encoder of another width changes the resolved config. This check comes first, so that the error names the
    encoder and not the config.
    """
    newest = find_newest(RunFolder(run).checkpoints) if config is not None else None
    if newest is None or config is None or not newest.config["text"]:
        return
    before = validate(TextConfig, newest.config["text"], f"{newest.path}: text")
    if not identity_changes(before, config):
        check_same_encoder(run, newest.state, config, text)


def check_same_encoder(
    run: Path, state: Mapping[str, Any], config: TextConfig | None, text: TextEncoder | None
) -> None:
    """Raise LeanDiTError unless the state of a checkpoint was saved with this text encoder. `config` is its config."""
    if config is None or text is None or state.get(TEXT_ENCODER, text.fingerprint) == text.fingerprint:
        return
    paths = ", ".join(encoder.path for encoder in config.encoders)
    raise LeanDiTError(
        f"{run}: the text encoder is not the one that the run was trained with: other weights, another tokenizer or "
        f"another model are under {paths} now.\nRestore the old files, or train a new run with the new encoder"
    )
