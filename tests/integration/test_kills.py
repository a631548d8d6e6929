"""Trainings killed fifty times, half of them while they save."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

KILLS = 50


def test_fifty_kills_lose_no_published_checkpoint_and_change_no_bit(tmp_path: Path) -> None:
    script = Path(__file__).with_name("train_and_kill.py")
    command = [sys.executable, str(script), str(tmp_path), str(KILLS), "7"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    print(report)
    assert report["problems"] == [], result.stderr
    assert report["kills"] >= KILLS
    assert report["in_saves"] >= KILLS / 4
    # Kills really tore files in the making, and trainings really went on from different steps.
    assert report["half_written"] >= 5
    assert len(set(report["resumed_from"])) >= 4
    assert report["finished_runs"] >= 1
