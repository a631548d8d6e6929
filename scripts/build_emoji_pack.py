"""Build the embedded emoji pack, src/leandit/data/emoji/, from two npm packages.

    npm i --ignore-scripts emoji-datasource-google@16.0.0 @lobehub/fluent-emoji-3d@1.1.0
    python scripts/build_emoji_pack.py node_modules

Needs Pillow and numpy. The same packages give the same bytes. Flags, symbols, components and skin-tone
variants are left out; pictures are composited on white and resized to 32x32. About a tenth of the concepts
that both styles draw are held out in exactly one style, so that a model can be asked for a known concept in a
known style whose combination it never saw.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 32
HELD_OUT_ONE_IN = 10
SKIPPED_CATEGORIES = {"Flags", "Symbols", "Component"}
STYLES = ("noto", "fluent")
DESTINATION = Path(__file__).parents[1] / "src/leandit/data/emoji"


def read_concepts(node_modules: Path) -> list[dict[str, Any]]:
    """Return the kept records of emoji.json in the order of their code points."""
    records = json.loads((node_modules / "emoji-datasource-google/emoji.json").read_text(encoding="utf-8"))
    kept = [record for record in records if record["category"] not in SKIPPED_CATEGORIES]
    return sorted(kept, key=lambda record: record["unified"])


def find_pictures(node_modules: Path, concept: dict[str, Any]) -> dict[str, Path]:
    """Return style -> picture for the styles that draw the concept."""
    codes = (concept["image"].removesuffix(".png"), concept["unified"], concept["non_qualified"])
    fluent_folder = node_modules / "@lobehub/fluent-emoji-3d/assets"
    noto = node_modules / "emoji-datasource-google/img/google/64" / concept["image"]
    fluent = [fluent_folder / f"{code.lower()}.webp" for code in codes if code]
    found = {"noto": [noto], "fluent": fluent}
    return {style: next(filter(Path.is_file, found[style])) for style in STYLES if any(map(Path.is_file, found[style]))}


def shrink(path: Path) -> np.ndarray:
    """Return the picture on white at SIZE x SIZE; Pillow resizes RGBA with premultiplied alpha."""
    with Image.open(path) as picture:
        small = picture.convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", small.size, "white")
    return np.asarray(Image.alpha_composite(white, small).convert("RGB"))


def held_out_style(code: str) -> str | None:
    """Return the one style in which a concept is held out, or None: a pure function of the code."""

    def digest(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    if digest(code) % HELD_OUT_ONE_IN:
        return None
    return min(STYLES, key=lambda style: digest(f"{code} {style}"))


def readable_names(concepts: list[dict[str, Any]]) -> list[str]:
    """Return a name per concept; where two share one, the short names tell them apart."""
    counts = Counter(concept["name"] for concept in concepts)
    return [
        (concept["name"] if counts[concept["name"]] == 1 else concept["short_name"].replace("_", " ")).lower()
        for concept in concepts
    ]


def build(node_modules: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return the pictures, uint8 [N, SIZE, SIZE, 3], and one record for each."""
    images, records = [], []
    concepts = read_concepts(node_modules)
    for concept, name in zip(concepts, readable_names(concepts), strict=True):
        pictures = find_pictures(node_modules, concept)
        held_out = held_out_style(concept["unified"]) if len(pictures) == len(STYLES) else None
        for style, path in pictures.items():
            images.append(shrink(path))
            records.append(
                {
                    "name": name,
                    "category": concept["category"],
                    "subcategory": concept["subcategory"],
                    "style": style,
                    "unified": concept["unified"].lower(),
                    "held_out": style == held_out,
                }
            )
    return np.stack(images), records


def main() -> None:
    """Write images.npz and index.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("node_modules", type=Path, help="the folder that npm installed the two packages in")
    parser.add_argument("--to", type=Path, default=DESTINATION, help="folder to write (default: the package's own)")
    arguments = parser.parse_args()
    images, records = build(arguments.node_modules)
    arguments.to.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.to / "images.npz", images=images)
    lines = ",\n".join(json.dumps(record) for record in records)
    (arguments.to / "index.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(images)} pictures, {sum(record['held_out'] for record in records)} held out")


if __name__ == "__main__":
    main()
