"""Pictures as PIL images: the same values as in the tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import leandit


def test_the_same_pictures(tiny_run: Path) -> None:
    run = leandit.load(tiny_run)
    tensor = leandit.sample(run, ["heart"], range(2), steps=2)
    pictures = leandit.sample(run, ["heart"], range(2), steps=2, output="pil")
    assert [type(picture) for picture in pictures] == [Image.Image] * 2
    np.testing.assert_array_equal(np.stack([np.asarray(picture) for picture in pictures]), tensor.numpy())


def test_an_unknown_form_is_refused(tiny_run: Path) -> None:
    with pytest.raises(leandit.LeanDiTError, match="output = 'jpg' is not one of tensor, pil"):
        leandit.sample(tiny_run, output="jpg")  # type: ignore[arg-type]
