"""Open a data source of any kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from leandit.data.class_folder import ClassFolderConfig
from leandit.data.classes import check_class_names
from leandit.data.metadata_folder import MetadataFolderConfig
from leandit.data.source import Source, SourceConfig
from leandit.data.splits import choose_split
from leandit.errors import LeanDiTError


def build_source(config: SourceConfig, key: str = "data.source") -> Source:
    """Open the source. It checks paths, metadata, class names and headers now, and pixels when they are read.

    Messages name `key`, the setting that the source belongs to.
    """
    with naming(key):
        if isinstance(config, ClassFolderConfig | MetadataFolderConfig):
            config = config.replace(path=choose_split(config.path, key))
        source = config.build()
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
