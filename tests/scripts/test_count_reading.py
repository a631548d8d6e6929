"""The counter of what a reader needs, on a package whose answer is plain, and on Race-DiT."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "count_reading.py"
spec = importlib.util.spec_from_file_location("count_reading", SCRIPT)
assert spec is not None
assert spec.loader is not None
count_reading = importlib.util.module_from_spec(spec)
spec.loader.exec_module(count_reading)


def test_names_are_followed_to_the_file_that_defines_them(tmp_path: Path) -> None:
    files = {
        "house/__init__.py": "",
        "house/room/__init__.py": "from house.room.chair import Chair\nfrom house.room.lamp import Lamp\n",
        "house/room/chair.py": "import os\nfrom house import wood\n\nclass Chair: ...\n",
        "house/room/lamp.py": "class Lamp: ...\n",
        "house/wood.py": "def saw():\n    from house.tools import Saw\n    return Saw\n",
        "house/tools.py": "class Saw: ...\n",
        "house/garden.py": "from house.room import Chair\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    expected = {"house.garden": 1, "house.room.chair": 4, "house.wood": 3, "house.tools": 1}
    assert count_reading.reading("house.garden", tmp_path) == expected


def test_race_dit_is_read_without_training_and_kernels() -> None:
    found = count_reading.reading("leandit.models.dit", SCRIPT.parents[1] / "src")
    assert {"leandit.models.backbone", "leandit.moe.layer", "leandit.ops.expert_ffn", "leandit.nn.layers"} <= set(found)
    assert not [name for name in found if name.startswith("leandit.training") or "triton" in name or "kernels" in name]
    # Loops of chains through small files, or a file that everything imports, would show here first.
    assert len(found) <= 30
