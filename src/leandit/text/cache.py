"""A cache of text features: in memory, and on disk under the hash of encoder and text."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.text.features import RowEncoder, TextRow

_log = logging.getLogger(__name__)


class CachedEncoder:
    """An encoder that computes the features of a text only if the cache does not have them."""

    def __init__(self, encoder: RowEncoder, folder: Path | None, memory_bytes: int) -> None:
        self._encoder = encoder
        self._memory = _Memory(memory_bytes)
        self._disk = None if folder is None else DiskCache(folder, encoder)
        self.text_dim = encoder.text_dim
        self.pooled_dim = encoder.pooled_dim
        self.fingerprint = encoder.fingerprint

    def rows(self, texts: Sequence[str]) -> list[TextRow]:
        """Return the features of each text, on the CPU."""
        distinct = dict.fromkeys(texts)
        found = {text: self._find(text) for text in distinct}
        missing = [text for text, row in found.items() if row is None]
        computed = self._encoder.rows(missing) if missing else []
        for text, new in zip(missing, computed, strict=True):
            self._memory.put(text, new)
            if self._disk is not None:
                self._disk.put(text, new)
            found[text] = new
        return [row for text in texts if (row := found[text]) is not None]

    def _find(self, text: str) -> TextRow | None:
        row = self._memory.get(text)
        if row is None and self._disk is not None:
            row = self._disk.get(text)
            if row is not None:
                self._memory.put(text, row)
        return row


class _Memory:
    """The most recently used rows, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: OrderedDict[str, TextRow] = OrderedDict()
        self._held = 0

    def get(self, text: str) -> TextRow | None:
        if text not in self._rows:
            return None
        self._rows.move_to_end(text)
        return self._rows[text]

    def put(self, text: str, row: TextRow) -> None:
        self._rows[text] = row
        self._held += row.num_bytes
        while self._held > self._limit:
            self._held -= self._rows.popitem(last=False)[1].num_bytes


class DiskCache:
    """One safetensors file per text, named by the SHA-256 of the encoder's fingerprint and the text.

    A file also contains the fingerprint, the text and a checksum of its tensors. All three are checked on every read.
    The features of a damaged file are computed again, with a warning. An intact file of another encoder or text is a
    LeanDiTError, because this cache cannot have written it.
    """

    def __init__(self, folder: Path, encoder: RowEncoder) -> None:
        self._folder = folder.expanduser()
        self._fingerprint = encoder.fingerprint
        self._widths = (encoder.text_dim, encoder.pooled_dim)
        probe = self._folder / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise self._unwritable(error) from None

    def path(self, text: str) -> Path:
        """Return the file of a text."""
        key = hashlib.sha256(f"{self._fingerprint}\n{text}".encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.safetensors"

    def get(self, text: str) -> TextRow | None:
        """Return the features of a text, or None if they are missing or damaged."""
        path = self.path(text)
        try:
            with safe_open(path, framework="pt") as file:
                record, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            _warn(path, str(error))
            return None
        if not self._intact(record, tensors):
            _warn(path, "the checksum or the shapes do not match")
            return None
        if record.get("fingerprint") != self._fingerprint or record.get("text") != text:
            what = "another encoder or revision" if record.get("text") == text else "another text"
            raise LeanDiTError(
                f"{path}: contains the features of {what} under this name; delete the file, or the whole cache folder"
            )
        return TextRow(tensors["tokens"], tensors["pooled"])

    def put(self, text: str, row: TextRow) -> None:
        """Store the features of a text. The file appears complete or not at all."""
        tensors = {"tokens": row.tokens.contiguous(), "pooled": row.pooled.contiguous()}
        record = {"fingerprint": self._fingerprint, "text": text, "sha256": _checksum(tensors)}
        path = self.path(text)
        temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(save(tensors, record))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> LeanDiTError:
        return LeanDiTError(
            f"{self._folder}: text features cannot be stored here: {error.strerror or error}\n"
            "Free disk space, choose another folder in text.cache, or set text.cache=null to keep features in memory"
        )

    def _intact(self, record: dict[str, str], tensors: dict[str, Tensor]) -> bool:
        if set(tensors) != {"tokens", "pooled"} or record.get("sha256") != _checksum(tensors):
            return False
        tokens, pooled = tensors["tokens"], tensors["pooled"]
        shaped = tokens.ndim == 2 and len(tokens) > 0 and (tokens.shape[1], *pooled.shape) == self._widths
        return shaped and tokens.dtype == pooled.dtype == torch.float32


def _warn(path: Path, reason: str) -> None:
    _log.warning("%s: damaged (%s); the features of its text are computed again", path, reason)


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
