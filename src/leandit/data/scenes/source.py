"""Scenes as a source of training pictures. Nothing is stored: each picture is rendered on access."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from leandit.data.scenes.captions import captions_of
from leandit.data.scenes.render import render
from leandit.data.scenes.scene import Contents, Scene, Split, draw_scene
from leandit.data.source import SOURCES, Example, Source, SourceConfig, fingerprint

# Part of the fingerprint. Increase it if the same seed gives other scenes, pictures or captions than before.
VERSION = 1


@SOURCES.register
class ScenesConfig(SourceConfig):
    """Scenes of coloured shapes and a few of the bundled emoji, captioned in GenEval's six categories."""

    type: Literal["scenes"] = "scenes"
    length: int = Field(20_000, ge=1, le=2**31)
    """Number of scenes in an epoch."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the scenes; another seed gives other scenes."""
    size: int = Field(32, ge=16, le=1024)
    """Side of a scene in pixels. Give data.image_size the same value, or the pictures are resized."""
    split: Split = "train"
    """"train" never shows certain pairs of kind and colour, kind and kind, kind and number. Each scene of "held_out"
    has at least one such pair. "all" is both.
    """
    emoji: bool = True
    """Draw cats, trees, burgers, cars, strawberries and fish too, not only shapes: about a third of all things."""
    tinted: bool = False
    """Use light tints as backgrounds too, not only white."""

    def build(self) -> Source:
        """Open the source."""
        return ScenesSource(self)


class ScenesSource:
    """Scene `index` is a function of (seed, index). All its captions are true."""

    class_names: tuple[str, ...] = ()

    def __init__(self, config: ScenesConfig) -> None:
        self._config = config
        self._contents = Contents(config.seed, config.split, config.emoji, config.tinted)

    @property
    def fingerprint(self) -> str:
        """See `Source`."""
        return fingerprint([{"version": VERSION, **self._config.model_dump(mode="json")}])

    def __len__(self) -> int:
        """Return the number of scenes in an epoch."""
        return self._config.length

    def scene(self, index: int) -> Scene:
        """Return the scene of picture `index`."""
        return draw_scene(self._contents, index)

    def __getitem__(self, index: int) -> Example:
        """Render picture `index`."""
        scene = self.scene(index)
        return Example(render(scene, self._config.size), None, captions_of(scene), f"scene {index}")
