"""Pictures or latents for training: sources with random access, and a loader that makes batches from them."""

from leandit.data.captions import Caption
from leandit.data.class_folder import ClassFolderConfig
from leandit.data.emoji_pack import EmojiConfig
from leandit.data.idx import IdxConfig
from leandit.data.latents import LatentsConfig
from leandit.data.loader import Batch, DataConfig, Loader
from leandit.data.metadata_folder import MetadataFolderConfig
from leandit.data.parquet import ParquetConfig
from leandit.data.scenes import ScenesConfig
from leandit.data.source import SOURCES, AnySource, Example, Source, SourceConfig
from leandit.data.sources import build_source, naming
from leandit.data.summary import summary
from leandit.data.webdataset import WebDatasetConfig

__all__ = [
    "SOURCES",
    "AnySource",
    "Batch",
    "Caption",
    "ClassFolderConfig",
    "DataConfig",
    "EmojiConfig",
    "Example",
    "IdxConfig",
    "LatentsConfig",
    "Loader",
    "MetadataFolderConfig",
    "ParquetConfig",
    "ScenesConfig",
    "Source",
    "SourceConfig",
    "WebDatasetConfig",
    "build_source",
    "naming",
    "summary",
]
