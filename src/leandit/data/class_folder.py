"""A folder of pictures: one sub-folder per class, or pictures alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from leandit.config import Fact
from leandit.config.paths import user_path
from leandit.data.pictures import PILLOW_MAX_PIXELS, SUFFIXES, read_picture
from leandit.data.source import SOURCES, Example, Source, SourceConfig, fingerprint
from leandit.data.summary import PassedOver
from leandit.errors import LeanDiTError, NotFoundError


@SOURCES.register
class ClassFolderConfig(SourceConfig):
    """A folder of pictures. Its sub-folders, sorted by name, are the classes; without them there are no labels."""

    type: Literal["class_folder"] = "class_folder"
    path: Annotated[str, Fact.PATH]
    """The folder. A relative path starts at the current directory; ~ is the home directory."""
    max_pixels: Annotated[int, Fact.MAY_CHANGE] = Field(PILLOW_MAX_PIXELS, ge=1, le=PILLOW_MAX_PIXELS)
    """Largest number of pixels of a picture. A larger one is an error, because a small file can unpack to gigabytes."""

    def build(self) -> Source:
        """Open the source."""
        return ClassFolderSource(self)


class ClassFolderSource:
    """Pictures ordered by path, each read on access. Hidden files and files with other suffixes are ignored."""

    def __init__(self, config: ClassFolderConfig) -> None:
        self._root = open_folder(config.path)
        self._max_pixels = config.max_pixels
        self.passed_over = PassedOver()
        files = [Path(relative) for relative in sorted(list_pictures(self._root, self.passed_over))]
        classes = [file.parts[0] for file in files if len(file.parts) > 1]
        if 0 < len(classes) < len(files):
            stray = next(file for file in files if len(file.parts) == 1)
            raise LeanDiTError(
                f"{self._root}: has pictures in class folders ({classes[0]}) and outside of them ({stray}); "
                "move all pictures into class folders, or all of them out"
            )
        if not files:
            raise LeanDiTError(
                f"{self._root}: no pictures here ({' '.join(sorted(SUFFIXES))}); point data.source.path at a "
                "folder of pictures, or at a folder with one sub-folder per class"
            )
        with os.scandir(self._root) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        self.class_names = tuple(folders) if classes else ()
        empty = [name for name in self.class_names if name not in set(classes)]
        if empty:
            raise LeanDiTError(f"{self._root / empty[0]}: class folder without pictures; fill it or remove it")
        self._files = files

    @property
    def fingerprint(self) -> str:
        """See `Source`."""
        return fingerprint(file.as_posix() for file in self._files)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        """Read picture `index`."""
        file = self._files[index]
        label = self.class_names.index(file.parts[0]) if self.class_names else None
        return Example(read_picture(self._root / file, self._max_pixels), label, (), file.as_posix())


def open_folder(path: str) -> Path:
    """Return the resolved folder. Raises LeanDiTError if it does not exist."""
    folder = user_path(path, "data.source.path")
    if not folder.is_dir():
        absent = not folder.exists()
        error = NotFoundError if absent else LeanDiTError
        kind = "no such folder" if absent else "a file, not a folder"
        raise error(f"{folder}: {kind}; correct data.source.path (now in {Path.cwd()})")
    return folder.resolve()


def list_pictures(root: Path, passed_over: PassedOver, folder: Path | None = None) -> Iterator[str]:
    """Yield the paths of all pictures below `folder`, by default `root`, relative to `root`; count the other files."""
    folder = folder or root
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield from _visit(root, entry, passed_over)
    except OSError as error:
        raise LeanDiTError(f"{folder}: cannot be listed: {error}") from None


def _visit(root: Path, entry: os.DirEntry[str], passed_over: PassedOver) -> Iterator[str]:
    path = Path(entry.path)
    is_picture = path.suffix.lower() in SUFFIXES
    if entry.is_symlink() and (is_picture or entry.is_dir()):
        _check_link(root, path)
    if entry.is_dir():
        yield from list_pictures(root, passed_over, path)
    elif is_picture:
        if entry.stat().st_size == 0:
            raise LeanDiTError(f"{path}: empty file; replace or remove it")
        yield str(path.relative_to(root))
    else:
        passed_over.add([entry.name])


def _check_link(root: Path, path: Path) -> None:
    if path.is_dir():
        raise LeanDiTError(f"{path}: links to folders are not followed; move the folder itself here")
    if not path.exists():
        raise LeanDiTError(f"{path}: a link to a file that does not exist; restore the file or remove the link")
    if not path.resolve().is_relative_to(root):
        raise LeanDiTError(f"{path}: a link to a file outside {root}; copy the picture into the folder")
