"""Scenes of coloured shapes with known contents: drawn, rendered and captioned as pure functions of (seed, index)."""

from leandit.data.scenes.captions import Category, captions_of
from leandit.data.scenes.render import render
from leandit.data.scenes.scene import Contents, Scene, Thing, draw_scene
from leandit.data.scenes.source import VERSION, ScenesConfig, ScenesSource

__all__ = [
    "VERSION",
    "Category",
    "Contents",
    "Scene",
    "ScenesConfig",
    "ScenesSource",
    "Thing",
    "captions_of",
    "draw_scene",
    "render",
]
