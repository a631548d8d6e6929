"""The kinds of data source, by their `type`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from leandit.data.class_folder import ClassFolderConfig, ClassFolderSource
from leandit.data.classes import check_class_names
from leandit.data.emoji_pack import EmojiConfig, EmojiSource
from leandit.data.idx import IdxConfig, IdxSource
from leandit.data.latents import LatentsConfig, LatentsSource
from leandit.data.metadata_folder import MetadataFolderConfig, MetadataFolderSource
from leandit.data.parquet import ParquetConfig, ParquetSource
from leandit.data.scenes import ScenesConfig, ScenesSource
from leandit.data.source import Source
from leandit.data.splits import choose_split
from leandit.data.webdataset import WebDatasetConfig, WebDatasetSource
from leandit.errors import LeanDiTError

AnySourceConfig = (
    EmojiConfig
    | ScenesConfig
    | ClassFolderConfig
    | MetadataFolderConfig
    | IdxConfig
    | WebDatasetConfig
    | ParquetConfig
    | LatentsConfig
)
SourceConfig = Annotated[AnySourceConfig, Field(discriminator="type")]


def build_source(config: AnySourceConfig, key: str = "data.source") -> Source:
    """Open the source. It checks paths, metadata, class names and headers now, and pixels when they are read.

    Messages name `key`, the setting that the source belongs to.
    """
    with naming(key):
        if isinstance(config, ClassFolderConfig | MetadataFolderConfig):
            config = config.replace(path=choose_split(config.path, key))
        source = _open(config)
        check_class_names(source.class_names, key)
        if getattr(config, "class_names", None) and not source.class_names:
            raise LeanDiTError(f"{key}.class_names: the data have no labels; set it to null, or give labels")
    return source


@contextlib.contextmanager
def naming(key: str) -> Iterator[None]:
    """Let the messages of sources name the setting that is theirs, if it is not data.source."""
    try:
        yield
    except LeanDiTError as error:
        raise type(error)(str(error).replace("data.source", key)) from None


def _open(config: AnySourceConfig) -> Source:
    match config:
        case EmojiConfig():
            return EmojiSource(config)
        case ScenesConfig():
            return ScenesSource(config)
        case ClassFolderConfig():
            return ClassFolderSource(config)
        case MetadataFolderConfig():
            return MetadataFolderSource(config)
        case IdxConfig():
            return IdxSource(config)
        case WebDatasetConfig():
            return WebDatasetSource(config)
        case ParquetConfig():
            return ParquetSource(config)
        case LatentsConfig():
            return LatentsSource(config)
