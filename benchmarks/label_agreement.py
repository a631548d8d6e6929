"""Do samples show what they were asked to show? Two classifiers that never saw the model answer.

    python benchmarks/label_agreement.py RUN [--samples 256] [--out FILE]

Both are fitted on the run's real pictures, mirrored and shifted by a pixel, at half size: a logistic regression and
three nearest neighbours. The agreement is the share of samples that they give the requested label. For scale, the
accuracy of the logistic regression on real pictures left out of its fit (five folds) is reported too, and so is how
far samples are from the nearest training picture compared with how far training pictures are from one another.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

import leandit
from leandit.data import Loader, build_source
from leandit.sampling import LoadedRun

_SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))


def features(pictures: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels and flatten: (N, H, W, C) uint8 to (N, F) in [0, 1]."""
    n, h, w, c = pictures.shape
    return pictures.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4)).reshape(n, -1) / 255


def augmented(pictures: np.ndarray) -> np.ndarray:
    """Every picture mirrored and shifted: ten of each."""
    shifted = [np.roll(pictures, shift, (1, 2)) for shift in _SHIFTS]
    return np.concatenate([*shifted, *(p[:, :, ::-1] for p in shifted)])


def fit(kind: type, pictures: np.ndarray, labels: np.ndarray, **options: object) -> object:
    """Fit a classifier on augmented pictures."""
    return kind(**options).fit(features(augmented(pictures)), np.tile(labels, 2 * len(_SHIFTS)))


def held_out_accuracy(pictures: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of the logistic regression on real pictures that it was not fitted on."""
    right = 0
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(pictures, labels):
        model = fit(LogisticRegression, pictures[train], labels[train], max_iter=500, C=0.1)
        right += int((model.predict(features(pictures[test])) == labels[test]).sum())
    return right / len(labels)


def nearest(a: np.ndarray, b: np.ndarray, skip: int) -> float:
    """Median root-mean-square distance from each of `a` to its nearest of `b`, skipping that many exact twins."""
    distance = torch.cdist(torch.from_numpy(features(a)), torch.from_numpy(features(b)))
    return float(distance.sort(1).values[:, skip].median()) / features(a).shape[1] ** 0.5


def agreement(run: LoadedRun, samples: int) -> dict[str, Any]:
    """Return the share of samples with the requested label for each classifier, by class too, and the distances."""
    source = build_source(run.config.data.source)
    loader = Loader(source, run.config.data.replace(flip=0.0), 1, 0)
    batches = [loader.batch(step) for step in range(len(source))]
    real = ((torch.cat([b.images for b in batches]) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    labels = np.array([int(b.labels[0]) for b in batches])
    count = run.model.config.num_classes
    wanted = np.arange(samples) % count
    per_class = [leandit.sample(run, [c], np.flatnonzero(wanted == c).tolist()).numpy() for c in range(count)]
    drawn = np.concatenate(per_class)
    wanted = np.sort(wanted, kind="stable")
    guesses = {
        "logistic regression": fit(LogisticRegression, real, labels, max_iter=500, C=0.1).predict(features(drawn)),
        "3 nearest neighbours": fit(KNeighborsClassifier, real, labels, n_neighbors=3).predict(features(drawn)),
    }
    return {
        "agree": {name: float(np.mean(guess == wanted)) for name, guess in guesses.items()},
        "by_class": {
            name: {run.class_names[c]: float(np.mean(guess[wanted == c] == c)) for c in range(count)}
            for name, guess in guesses.items()
        },
        "real": held_out_accuracy(real, labels),
        "distance": nearest(drawn, real, 0),
        "distance_real": nearest(real, real, 1),
        "drawn": drawn,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = leandit.load(options.run)
    found = agreement(run, options.samples)
    lines = [f"{options.samples} samples of {run.config.name}, step {run.step}, {datetime.now(UTC):%Y-%m-%d}"]
    for name, share in found["agree"].items():
        by_class = ", ".join(f"{label} {value:.0%}" for label, value in found["by_class"][name].items())
        lines.append(f"{name}: {share:.1%} agree ({by_class})")
    lines.append(f"logistic regression on real pictures it was not fitted on: {found['real']:.1%}")
    lines.append(f"distance to the nearest training picture: {found['distance']:.3f} for samples, ")
    lines[-1] += f"{found['distance_real']:.3f} between training pictures"
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
