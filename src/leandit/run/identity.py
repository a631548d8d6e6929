"""What a run is trained on, pictures and text encoder: kept in its checkpoints, compared on resuming and on loading."""

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
    """Return what a checkpoint keeps of the source and of the text encoder, as JSON has it."""
    encoder = {} if text is None else {TEXT_ENCODER: text.fingerprint}
    return {
        **encoder,
        "class_names": list(source.class_names),
        "pictures": len(source),
        "fingerprint": source.fingerprint,
    }


def check_same_data(run: Path, state: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise LeanDiTError unless the state of a checkpoint was saved with the source of `now`."""
    # A checkpoint from before fingerprints were kept is compared by the rest.
    if all(state.get(name, value) == value for name, value in now.items() if name != TEXT_ENCODER):
        return
    before, after = (f"{kept['pictures']} pictures in {len(kept['class_names'])} classes" for kept in (state, now))
    change = "as many, but others, now" if before == after else f"{after} now"
    raise LeanDiTError(
        f"{run}: the data has changed: {before} when the run was stopped, {change}.\n"
        "Put the pictures back as they were, correct the path if they have moved, or start a new run in another --out"
    )


def check_encoder_of_run(run: Path, config: TextConfig | None, text: TextEncoder | None) -> None:
    """Raise LeanDiTError as `check_same_encoder` does, for a run whose config still names the encoder.

    An encoder of another width changes the resolved config; this says so before that is found to differ.
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
    """Raise LeanDiTError unless the state of a checkpoint was saved with this text encoder, whose config is given."""
    if config is None or text is None or state.get(TEXT_ENCODER, text.fingerprint) == text.fingerprint:
        return
    paths = ", ".join(encoder.path for encoder in config.encoders)
    raise LeanDiTError(
        f"{run}: the text encoder is not the one that the run was trained with: other weights, another tokenizer or "
        f"another model lie under {paths} now.\nPut back what was there, or train a new run with the new encoder"
    )
