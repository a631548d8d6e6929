"""Is the scorer of scenes right? Rendered scenes with known answers, under noise and blur, and wrong prompts for them.

    python benchmarks/scene_scorer.py [--scenes 2000] [--out FILE]

For each size, blur (standard deviation of a Gaussian, in pixels of a picture of 32) and noise (standard deviation in
levels of 255), half of the scenes on white and half on light tints: the share of scenes for which every true caption
is judged right, and the share of wrong prompts that are judged wrong. A wrong prompt is a true caption with one word
changed (a colour, a kind, a number, the relation), or with the two colours swapped.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from leandit.data.scenes import Contents, Scene, captions_of, draw_scene, render
from leandit.data.scenes.captions import NUMBERS, RELATIONS, plural
from leandit.data.scenes.vocabulary import COLOURS, KINDS
from leandit.evaluation.benchmarks.scenes import SCORER_VERSION, judge, parse_claims, read_pictures

SIZES = (32, 64)
# (blur, noise); the last two are beyond what is promised.
SETTINGS = ((0, 0), (0, 10), (0.5, 0), (0.7, 0), (0.7, 10), (1.0, 10), (1.3, 15))
WORDS = {
    "colour": tuple(COLOURS),
    "kind": KINDS,
    "kind ": tuple(plural(kind) for kind in KINDS),
    "number": tuple(NUMBERS.values()),
    "relation": RELATIONS,
}


def wrong_prompts(caption: str, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Yield (what was changed, prompt) for a true caption."""
    for what, words in WORDS.items():
        for found in re.finditer(rf"\b({'|'.join(words)})\b", caption):
            others = [word for word in words if word not in caption]
            # "fish" is its own plural; after a number it is one.
            if what.startswith("kind") and (caption.split()[0] in NUMBERS.values()) != (what == "kind "):
                continue
            other = others[int(rng.integers(len(others)))]
            yield what.strip(), with_articles(caption[: found.start()] + other + caption[found.end() :])
    colours = re.findall(rf"\b({'|'.join(COLOURS)})\b", caption)
    if len(colours) == 2 and colours[0] != colours[1]:
        swapped = caption.replace(colours[0], "*").replace(colours[1], colours[0]).replace("*", colours[1])
        yield "swapped colours", with_articles(swapped)


def with_articles(text: str) -> str:
    """Put "a" and "an" right."""
    return re.sub(r"\ban? (?=(\w))", lambda m: "an " if m[1] in "aeiou" else "a ", text)


def disturbed(pictures: np.ndarray, blur: float, noise: float) -> np.ndarray:
    """Blur, then add noise."""
    if blur:
        soft = ImageFilter.GaussianBlur(blur * pictures.shape[1] / 32)
        pictures = np.stack([np.asarray(Image.fromarray(picture).filter(soft)) for picture in pictures])
    grain = noise * np.random.default_rng(0).standard_normal(pictures.shape, dtype=np.float32)
    return (pictures + grain).round().clip(0, 255).astype(np.uint8)


def measure(scenes: list[Scene], size: int, blur: float, noise: float) -> str:
    """Return a row of the table."""
    pictures = disturbed(np.stack([render(scene, size) for scene in scenes]), blur, noise)
    start = time.process_time()
    found = read_pictures(torch.from_numpy(pictures))
    spent = (time.process_time() - start) / len(scenes) * 1e3
    rng = np.random.default_rng(1)
    right, told = 0, defaultdict(list)
    for scene, seen in zip(scenes, found, strict=True):
        captions = [caption.text for caption in captions_of(scene)]
        right += all(judge(parse_claims(caption), seen) for caption in captions)
        for what, prompt in (wrong for caption in captions for wrong in wrong_prompts(caption, rng)):
            told[what].append(not judge(parse_claims(prompt), seen))
    every = [verdict for verdicts in told.values() for verdict in verdicts]
    least = min(told, key=lambda what: np.mean(told[what]))
    return (
        f"| {size} | {blur} | {noise} | {right / len(scenes):.2%} | {np.mean(every):.2%} of {len(every):,} "
        f"| {np.mean(told[least]):.2%} ({least}) | {spent:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenes = [draw_scene(Contents(seed=11, split="all", tinted=i % 2 == 1), i) for i in range(options.scenes)]
    read_pictures(torch.from_numpy(render(scenes[0], 32))[None])
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {options.scenes} scenes, scorer {SCORER_VERSION}",
        "",
        "| size | blur | noise | scenes right | wrong prompts told | least, by what is wrong | CPU ms a picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in SIZES:
        for blur, noise in SETTINGS:
            lines.append(measure(scenes, size, blur, noise))
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
