"""Does a text model draw the style that it is asked for? A classifier that never saw the model answers.

    python benchmarks/style_agreement.py RUN [RUN ...] [--concepts 64] [--out FILE]

For concepts that the emoji pack has in both styles, one of them held out from training, and for concepts shown in
training in both, the same seed is drawn with two prompts that differ in style alone: "NAME, noto emoji" and "NAME,
fluent emoji". A logistic regression on the pixels at half size, fitted on all real emoji but those of these concepts,
says which style each picture is in. For scale, its accuracy on the real pictures that it was not fitted on is
reported too.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import leandit
from label_agreement import features
from leandit.data import EmojiConfig, build_source
from leandit.sampling import LoadedRun, sample

STYLES = ("noto", "fluent")


def emoji(split: str) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return pictures, names and style numbers of a split of the pack."""
    source = build_source(EmojiConfig(split=split))
    examples = [source[index] for index in range(len(source))]
    pairs = [str(example.text).rsplit(", ", 1) for example in examples]
    styles = np.array([STYLES.index(style.removesuffix(" emoji")) for _, style in pairs])
    return np.stack([example.image for example in examples]), [name for name, _ in pairs], styles


def concepts(count: int) -> dict[str, list[str]]:
    """Return so many names of each kind, spread over the pack: with one style held out, and seen in both."""
    held_out = list(dict.fromkeys(emoji("held_out")[1]))
    names = emoji("train")[1]
    seen = [name for name in dict.fromkeys(names) if names.count(name) == len(STYLES)]
    kinds = {"seen in both styles": seen, "seen in one style": held_out}
    spread = {kind: np.linspace(0, len(names) - 1, count).astype(int) for kind, names in kinds.items()}
    return {kind: [names[index] for index in spread[kind]] for kind, names in kinds.items()}


def fit(without: set[str]) -> tuple[Pipeline, float]:
    """Fit on the real pictures of other concepts; return the classifier and its accuracy on these concepts."""
    pictures, names, styles = emoji("all")
    left_out = np.array([name in without for name in names])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    model.fit(features(pictures[~left_out]), styles[~left_out])
    return model, float(model.score(features(pictures[left_out]), styles[left_out]))


def told_apart(run: LoadedRun, names: list[str], model: Pipeline) -> str:
    """Return the shares of pictures that are in the style of their prompt, as a line."""
    right = []
    for style, word in enumerate(STYLES):
        prompts = [f"{name}, {word} emoji" for name in names]
        drawn = sample(run, prompts, range(len(prompts)))
        right.append(model.predict(features(drawn.numpy())) == style)
    shares = ", ".join(f"{word} {np.mean(hits):.0%}" for word, hits in zip(STYLES, right, strict=True))
    return f"{np.mean(right):.1%} ({shares}; both right for {np.mean(right[0] & right[1]):.0%} of the concepts)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--concepts", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    chosen = concepts(options.concepts)
    model, accuracy = fit({name for names in chosen.values() for name in names})
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {options.concepts} concepts of each kind, one seed each",
        f"real pictures: {accuracy:.1%}",
    ]
    for path in options.runs:
        run = leandit.load(path)
        lines += [
            f"{run.config.name}, step {run.step}, {kind}: {told_apart(run, names, model)}"
            for kind, names in chosen.items()
        ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
