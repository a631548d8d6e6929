"""From a run's folder to pictures."""

from leandit.sampling.generate import draw, sample, to_pictures
from leandit.sampling.grid import draw_grid, rows_by_label, save_png, to_image
from leandit.sampling.load import LoadedRun, load

__all__ = [
    "LoadedRun",
    "draw",
    "draw_grid",
    "load",
    "rows_by_label",
    "sample",
    "save_png",
    "to_image",
    "to_pictures",
]
