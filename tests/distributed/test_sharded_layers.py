"""fully_shard on every layer of every backbone, at every level of sharing, gives the gradients of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WORLD = 2


def test_sharded_layers_have_the_gradients_of_one_process(tmp_path: Path) -> None:
    program = Path(__file__).with_name("shard_layers.py")
    commands = [[sys.executable, str(program), str(rank), str(WORLD), str(tmp_path / "meet")] for rank in range(WORLD)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands
    ]
    outputs = [process.communicate(timeout=240)[0] for process in running]
    assert not any(process.returncode for process in running), "\n".join(outputs)[-4000:]
