"""The kinds of data source, by their `type`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from leandit.data.class_folder import ClassFolderConfig, ClassFolderSource
from leandit.data.emoji_pack import EmojiConfig, EmojiSource
from leandit.data.idx import IdxConfig, IdxSource
from leandit.data.latents import LatentsConfig, LatentsSource
from leandit.data.metadata_folder import MetadataFolderConfig, MetadataFolderSource
from leandit.data.parquet import ParquetConfig, ParquetSource
from leandit.data.scenes import ScenesConfig, ScenesSource
from leandit.data.source import Source
from leandit.data.webdataset import WebDatasetConfig, WebDatasetSource

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


def build_source(config: AnySourceConfig) -> Source:
    """Open the source. It checks paths, metadata and headers now, and pixels when they are read."""
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
