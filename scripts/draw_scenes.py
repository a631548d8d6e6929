"""Draw docs/images/scenes.png: scenes as training sees them, at 32 pixels, with a caption of each category.

python scripts/draw_scenes.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib

from leandit.data import ScenesConfig
from leandit.data.scenes import Category, ScenesSource
from leandit.evaluation.benchmarks.scenes import Claims, parse_claims

matplotlib.use("agg")
import matplotlib.pyplot as plt

COLUMNS = 5
DESTINATION = Path(__file__).parents[1] / "docs/images/scenes.png"


def category_of(claims: Claims) -> Category:
    """Return the category of a caption by its claims."""
    coloured = all(claim.colour for claim in claims.things)
    if claims.relation:
        return Category.POSITION
    if len(claims.things) == 2:
        return Category.ATTRIBUTION if coloured else Category.TWO_OBJECTS
    if claims.things[0].count > 1:
        return Category.COUNTING
    return Category.COLOURS if coloured else Category.SINGLE_OBJECT


def main() -> None:
    source = ScenesSource(ScenesConfig())
    wanted = [category for category in Category for _ in range(COLUMNS)]
    figure, axes = plt.subplots(len(Category), COLUMNS, figsize=(11, 13.4), layout="constrained")
    index = 0
    for category, place in zip(wanted, axes.flat, strict=True):
        while True:
            example = source[index]
            index += 1
            texts = [
                caption.text for caption in example.captions if category_of(parse_claims(caption.text)) == category
            ]
            if texts:
                break
        # Of several true captions another one each time.
        text = texts[index % len(texts)]
        place.imshow(example.image, interpolation="nearest")
        place.set(xticks=[], yticks=[])
        place.set_title(textwrap.fill(text, 24), fontsize=9)
        if place.get_subplotspec().is_first_col():
            place.set_ylabel(category.value.replace("_", " "), fontsize=11)
    figure.savefig(DESTINATION, dpi=80)
    print(DESTINATION)


if __name__ == "__main__":
    main()
