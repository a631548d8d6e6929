"""Drawing with a compiled network and in low precision: almost the same pictures, or a plain error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from leandit import load, sample
from leandit.api import sampling_settings
from leandit.errors import LeanDiTError
from leandit.probing import draw_recorded

# Its own program: type checks of tests break torch's graphs. Two sizes of a batch, and guidance, which doubles it.
COMPARE = """
import sys, torch
from leandit import load, sample
runs = (load(sys.argv[1], compile=compile) for compile in (False, True))
plain, compiled = (sample(run, [0, 1], range(3), steps=2, batch_size=4).float() for run in runs)
assert plain.std() > 5, plain.std()
assert (plain - compiled).abs().max() <= 1, (plain - compiled).abs().max()
"""


def test_a_compiled_network_draws_the_same_pictures(tiny_run: Path) -> None:
    done = subprocess.run([sys.executable, "-c", COMPARE, str(tiny_run)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_low_precision_draws_almost_the_same_pictures(tiny_run: Path) -> None:
    high, low = (
        sample(load(tiny_run, precision=precision), [0, 1], range(2), steps=2).float() for precision in ("fp32", "bf16")
    )
    # Noise is in the pictures of so small a model, so that other ones would be tens of levels away.
    assert 0 < (high - low).abs().mean() < 3
    assert load(tiny_run, precision="bf16").model.device == torch.device("cpu")


def test_an_autocast_of_the_caller_holds(tiny_run: Path) -> None:
    run, seen = load(tiny_run), list[torch.dtype]()
    qkv = next(module for name, module in run.model.named_modules() if name.endswith("qkv"))
    qkv.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        sample(run, [0], [0], steps=1)
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    sample(run, [0], [0], steps=1)
    assert set(seen) == {torch.float32}


def test_a_run_that_would_be_compiled_is_recorded_as_it_is(tiny_run: Path) -> None:
    settings = sampling_settings(load(tiny_run).config.sampling, steps=1, guidance=None)
    runs = (load(tiny_run, compile=compile) for compile in (False, True))
    plain, compiled = (draw_recorded(run, [0, 1], [3, 4], settings) for run in runs)
    assert np.array_equal(plain.trace.packed, compiled.trace.packed)


def test_mistakes_are_told_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LeanDiTError, match="no C\\+\\+ compiler"):
        load("emoji", compile=True)
    with pytest.raises(LeanDiTError, match="choose fp32 or bf16"):
        load("emoji", precision="fp16")
