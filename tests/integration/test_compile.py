"""torch.compile: the layers of every backbone are one graph with every strategy, and compute what they do without."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from leandit.errors import LeanDiTError
from leandit.moe import STRATEGIES
from leandit.presets import run_config
from leandit.training import run_training

Check = Callable[[str], str | None]

# The backend "eager" traces the layers alone, "aot_eager" their backward pass as well, as code of torch's operators.
KINDS = ("dit", "pixart", "mmdit", "dit_air")
CELLS = [
    *(f"eager:dit:{strategy}:fp32" for strategy in STRATEGIES),
    *(f"aot_eager:layer:{strategy}:fp32" for strategy in (*STRATEGIES, "biased")),
    *(f"aot_eager:{kind}:expert_race+recompute:fp32" for kind in ("dit", "dit_air")),
    *(f"eager:{kind}:dense:fp32" for kind in KINDS[1:]),
    *(f"aot_eager:{kind}:expert_race:fp32" for kind in KINDS[1:]),
    *(f"{'aot_eager' if kind == 'dit' else 'eager'}:{kind}:expert_race:bf16" for kind in KINDS),
    "inductor:dit:expert_race:fp32",
]


@pytest.fixture(scope="module")
def check() -> Iterator[Check]:
    """Check cells in a program of their own, which all share, since starting it takes as long as a cell."""
    program = Path(__file__).with_name("compile_models.py")
    with subprocess.Popen([sys.executable, str(program)], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout

        def ask(cell: str) -> str | None:
            print(cell, file=process.stdin, flush=True)
            answer = process.stdout.readline()
            assert answer, f"{program.name} ended at {cell}"
            return json.loads(answer)

        yield ask
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.parametrize("cell", CELLS)
def test_layers_are_one_graph_and_compute_the_same(cell: str, check: Check) -> None:
    error = check(cell)
    assert error is None, error


def test_a_cell_that_is_wrong_is_told(check: Check) -> None:
    assert "KeyError: 'circle'" in (check("eager:circle:dense:fp32") or "")


def test_a_missing_compiler_is_told_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LeanDiTError, match="no C\\+\\+ compiler"):
        run_training(run_config("tiny", ["train.compile=true"]), tmp_path / "run")
