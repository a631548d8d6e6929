"""From a run's folder to pictures."""

from leandit.sampling.bundled import bundled_name, find_run
from leandit.sampling.compute import at_compute, calibrate
from leandit.sampling.drawing_record import claim_folder, weights_hash
from leandit.sampling.generate import check_size, draw, draw_batches, picture_shape, sample, sample_batches, to_pictures
from leandit.sampling.grid import (
    class_name,
    data_uri,
    draw_grid,
    fits_grid,
    read_made_by,
    rows_by_label,
    save_png,
    to_image,
)
from leandit.sampling.load import LoadedRun, load
from leandit.sampling.output_folder import output_folder
from leandit.sampling.request import choose, every_pair, picture_size, sampling_settings

__all__ = [
    "LoadedRun",
    "at_compute",
    "bundled_name",
    "calibrate",
    "check_size",
    "choose",
    "claim_folder",
    "class_name",
    "data_uri",
    "draw",
    "draw_batches",
    "draw_grid",
    "every_pair",
    "find_run",
    "fits_grid",
    "load",
    "output_folder",
    "picture_shape",
    "picture_size",
    "read_made_by",
    "rows_by_label",
    "sample",
    "sample_batches",
    "sampling_settings",
    "save_png",
    "to_image",
    "to_pictures",
    "weights_hash",
]
