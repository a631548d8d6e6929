"""`leandit evaluate RUN scenes`: how often a text model draws what the benchmark's prompts say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from leandit.data.scenes import VERSION, Category
from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks.scenes.prompts import Prompt, benchmark_prompts, prompts_hash
from leandit.evaluation.benchmarks.scenes.reader import SMALLEST
from leandit.evaluation.benchmarks.scenes.scorer import SCORER_VERSION, score
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan
from leandit.sampling import LoadedRun

# Ten pictures for each category; fewer mean nothing.
MIN_SAMPLES = 10 * len(Category)


class ScenesMetric(Metric):
    """Share of right pictures for each category, and over all: the mean of the categories, as in GenEval.

    `--num-samples` picks the prompts: an equal number from each category, or as many full rounds of all prompts as
    fit, each round with other seeds. `scenes/seen` and `scenes/held_out` are means of categories over the prompts
    that training on the scenes shows, and over those whose combination it never shows.
    """

    name: ClassVar[str] = "scenes"

    def plan(self, job: Job) -> Plan:
        """Return the prompts; raise LeanDiTError for models without text, and for small or grey pictures."""
        _check(job.run)
        if job.num_samples < MIN_SAMPLES:
            raise LeanDiTError(
                f"scenes: {job.num_samples} samples are too few for {len(Category)} categories; "
                f"give --num-samples {MIN_SAMPLES} or more"
            )
        chosen = _chosen(job.num_samples)
        return Plan([prompt.text for prompt, _ in chosen], [seed for _, seed in chosen])

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Read the pictures and judge each by its prompt."""
        assert drawn is not None
        prompts = [prompt for prompt, _ in _chosen(job.num_samples)]
        right = score(drawn.pictures, [prompt.claims for prompt in prompts])
        made_of = {
            "prompts": prompts_hash(),
            "prompts_used": len({prompt.text for prompt in prompts}),
            "pictures": len(prompts),
            "resolution": drawn.pictures.shape[1],
            "scorer": SCORER_VERSION,
            "scenes": VERSION,
        }
        return Measurement(_values(prompts, right), made_of)


def _check(run: LoadedRun) -> None:
    data = run.config.data
    if not run.config.model.conditions_on_text:
        raise LeanDiTError(
            f"{run.path}: scenes needs prompts, and the model reads none; train a text model, such as "
            "`leandit train scenes-race-air`"
        )
    if data.holds_latents or data.channels != 3:
        raise LeanDiTError(f"{run.path}: scenes reads pictures in colour; the run draws latents or grey pictures")
    if data.size.height != data.size.width or data.size.height < SMALLEST:
        raise LeanDiTError(
            f"{run.path}: scenes reads square pictures of at least {SMALLEST} x {SMALLEST}; the run draws "
            f"{data.size.height} x {data.size.width}"
        )


def _chosen(num_samples: int) -> list[tuple[Prompt, int]]:
    """Return the prompts to draw with their seeds; a prompt's seed does not depend on the number of samples."""
    every = benchmark_prompts().values()
    count = sum(map(len, every))
    numbered = list(zip((prompt for some in every for prompt in some), range(count), strict=True))
    if num_samples >= count:
        return [(prompt, turn * count + seed) for turn in range(num_samples // count) for prompt, seed in numbered]
    share = num_samples // len(Category)
    first = {prompt for some in every for prompt in some[:share]}
    return [(prompt, seed) for prompt, seed in numbered if prompt in first]


def _values(prompts: Sequence[Prompt], right: Sequence[bool]) -> dict[str, float]:
    judged = list(zip(prompts, right, strict=True))
    shares = {c.value: _share(hit for prompt, hit in judged if prompt.category == c) for c in Category}
    values = {"scenes": _mean(shares.values())}
    values |= {f"scenes/{name}": share for name, share in shares.items() if share is not None}
    for name, held_out in (("seen", False), ("held_out", True)):
        values[f"scenes/{name}"] = _mean(
            _share(hit for prompt, hit in judged if prompt.category == c and prompt.held_out == held_out)
            for c in Category
        )
    return values


def _share(hits: Iterable[bool]) -> float | None:
    """Return the share of hits, or None if there is nothing to count."""
    listed = list(hits)
    return sum(listed) / len(listed) if listed else None


def _mean(shares: Iterable[float | None]) -> float:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known)
