"""What makes a run the same run: pictures, text encoder, codec and task. Checkpoints store it, and it is compared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leandit.autoencoder import Codec
from leandit.config import validate
from leandit.data import Source
from leandit.errors import LeanDiTError
from leandit.run.checkpoint import STATE, TEXT_ENCODER, find_newest
from leandit.run.folder import RunFolder
from leandit.run.resume import identity_changes
from leandit.text import TextConfig, TextEncoder

CONTENTS, CODEC, TASK = "contents", "codec", "task"
DENOISING = "leandit.training.tasks.denoise.DenoiseTask"
_EXAMPLES = 16
_log = logging.getLogger("leandit")


def identity(source: Source, text: TextEncoder | None) -> dict[str, Any]:
    """Return the facts about the source and the text encoder that a checkpoint stores, as JSON values."""
    encoder = {} if text is None else {TEXT_ENCODER: text.fingerprint}
    return {
        **encoder,
        "class_names": list(source.class_names),
        "pictures": len(source),
        "fingerprint": source.fingerprint,
        CONTENTS: _contents(source),
    }


def _contents(source: Source) -> str:
    """Return a hash of a few examples, spread over the source; unreadable ones do not count."""
    digest = hashlib.sha256()
    for place in range(_EXAMPLES):
        with contextlib.suppress(LeanDiTError):
            digest.update(source[place * (len(source) - 1) // (_EXAMPLES - 1)].image.tobytes())
    return digest.hexdigest()


def check_same_data(run: Path, state: Mapping[str, Any], now: Mapping[str, Any], moved: bool) -> None:
    """Raise LeanDiTError unless the state of a checkpoint was saved with the same source as `now`.

    A fingerprint knows files by their names, so that a picture can be corrected between two starts. If the data have
    `moved`, the contents of a few examples must be the same as well.
    """
    # Old checkpoints have no fingerprint, or no contents; for them the other facts are compared.
    compared = now.keys() - {TEXT_ENCODER} - (set() if moved else {CONTENTS})
    if all(state.get(name, now[name]) == now[name] for name in compared):
        if state.get(CONTENTS, now[CONTENTS]) != now[CONTENTS]:
            _log.warning("%s: some pictures are not the same as when the run was stopped, under the same names", run)
        return
    before, after = (f"{kept['pictures']} pictures in {len(kept['class_names'])} classes" for kept in (state, now))
    change = "the same numbers, but other pictures or labels now" if before == after else f"{after} now"
    raise LeanDiTError(
        f"{run}: the data has changed: {before} when the run was stopped, {change}.\n"
        "Put the pictures back as they were, correct the path if they have moved, or start a new run in another --out"
    )


def task_record(task: object, identity: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint stores of a task, as JSON values: its class, its identity and its state."""
    name = f"{type(task).__module__}.{type(task).__qualname__}"
    return json.loads(json.dumps({"class": name, "identity": identity, "state": state}))


def check_same_task(run: Path, state: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise LeanDiTError unless a checkpoint was saved by the task of which `now` is the record."""
    # Checkpoints from before there were tasks are of denoising.
    before = state.get(TASK, {"class": DENOISING, "identity": {}})
    if before["class"] != now["class"]:
        raise LeanDiTError(
            f"{run}: the run learns by the task {before['class']}, and this is {now['class']}.\n"
            "Hand over the same task, or start a new run in another --out"
        )
    if before["identity"] != now["identity"]:
        raise LeanDiTError(
            f"{run}: the task {now['class']} is not the same as before: {before['identity']} in the run, "
            f"{now['identity']} now.\nRestore it, or start a new run in another --out"
        )


def check_same_codec(run: Path, state: Mapping[str, Any], codec: Codec) -> None:
    """Raise LeanDiTError unless the state of a checkpoint was saved with this codec."""
    now = json.loads(json.dumps(dict(codec.identity)))
    if state.get(CODEC, {}) != now:
        raise LeanDiTError(
            f"{run}: the codec is not the one that the run was trained with: {state.get(CODEC, {})} then, {now} now.\n"
            "Restore the codec, or train a new run with the new one"
        )


def check_encoder_of_run(run: Path, config: TextConfig | None, text: TextEncoder | None) -> None:
    """Raise LeanDiTError like `check_same_encoder`, if the text config of the run has not changed.

    An encoder of another width changes the resolved config. This check comes first, so that the error names the
    encoder and not the config.
    """
    newest = find_newest(RunFolder(run).checkpoints) if config is not None else None
    if newest is None or config is None or not newest.config.get("text"):
        return
    try:
        before = validate(TextConfig, newest.config["text"], f"{newest.path}: text")
    except LeanDiTError:
        return  # Resuming checks the whole config and says what is wrong with it.
    if not identity_changes(before, config):
        check_same_encoder(newest.path / STATE, newest.state, config, text)


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
