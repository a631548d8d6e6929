"""torch.compile: the layers of every backbone are one graph with every strategy, and compute what they do without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from leandit.errors import LeanDiTError
from leandit.moe import STRATEGIES
from leandit.presets import run_config
from leandit.training import run_training

CELLS = {
    "dit": [f"dit:{strategy}:fp32" for strategy in STRATEGIES],
    "low precision": [f"{kind}:expert_race:bf16" for kind in ("dit", "pixart", "mmdit", "dit_air")],
    "batch sizes": [f"layer:{strategy}:fp32" for strategy in (*STRATEGIES, "biased")],
    "recomputed": ["dit:expert_race+recompute:fp32", "dit_air:expert_race+recompute:fp32"],
    "text": [f"{kind}:{how}:fp32" for kind in ("pixart", "mmdit", "dit_air") for how in ("dense", "expert_race")],
}


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_layers_are_one_graph_and_compute_the_same(cells: list[str]) -> None:
    run_program("aot_eager", cells)


def test_generated_code_computes_the_same() -> None:
    run_program("inductor", ["dit:expert_race:fp32"])


def run_program(backend: str, cells: list[str]) -> None:
    program = Path(__file__).with_name("compile_models.py")
    done = subprocess.run([sys.executable, str(program), backend, *cells], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_missing_compiler_is_told_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LeanDiTError, match="no C\\+\\+ compiler"):
        run_training(run_config("tiny", ["train.compile=true"]), tmp_path / "run")
