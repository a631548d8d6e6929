"""Scenes as a source of training pictures: nothing is stored, each is rendered when it is asked for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from leandit.config import Config
from leandit.data.scenes.captions import captions_of
from leandit.data.scenes.render import render
from leandit.data.scenes.scene import Contents, Scene, Split, draw_scene
from leandit.data.source import Example, fingerprint

# Part of the fingerprint: goes up when the same seed gives other scenes, pictures or captions.
VERSION = 1


class ScenesConfig(Config):
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
    """Draw cats, trees, burgers, cars, strawberries and fish beside the shapes: about a third of all things."""
    tinted: bool = False
    """Use light tints as backgrounds, and not white alone."""


class ScenesSource:
    """Scene `index` is a function of (seed, index); its captions are all true of it."""

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
        """Return what picture `index` shows."""
        return draw_scene(self._contents, index)

    def __getitem__(self, index: int) -> Example:
        """Render picture `index`."""
        scene = self.scene(index)
        return Example(render(scene, self._config.size), None, captions_of(scene), f"scene {index}")
