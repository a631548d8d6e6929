"""GenEval: six tasks, judged by a detector and, for colours, by CLIP."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks.colours import ClipColours
from leandit.evaluation.benchmarks.detectors import Colours, Detector, TransformersDetector
from leandit.evaluation.benchmarks.geneval_rules import TAGS, GenEvalConfig, Prompt, is_right, read_prompts
from leandit.evaluation.extractors.clip import Clip
from leandit.evaluation.extractors.weights import named_path
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan
from leandit.evaluation.plans import repeat_prompts


class GenEval(Metric):
    """The share of pictures that show what their prompt says, per task, and the mean over the tasks.

    The benchmark draws four pictures of each of its 553 prompts (--num-samples 2212). Detector and colours are those of
    --weights-from detector=FOLDER and clip=FOLDER unless given here.

    Reference: GenEval (arXiv 2310.11513).
    """

    name = "geneval"

    def __init__(
        self, detector: Detector | None = None, colours: Colours | None = None, config: GenEvalConfig | None = None
    ) -> None:
        self._detector = detector
        self._colours = colours
        self._config = config or GenEvalConfig()

    def plan(self, job: Job) -> Plan:
        """Check the prompts and the weights, and return every prompt equally often."""
        prompts = self._prompts(job)
        plan = repeat_prompts(job, self.name, [prompt.prompt for prompt in prompts])
        detector, _ = self._judges(job)
        _check_classes(detector, prompts)
        return plan

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the shares."""
        assert drawn is not None
        prompts = self._prompts(job)
        detector, colours = self._judges(job)
        each = len(drawn.pictures) // len(prompts)
        right: dict[str, list[bool]] = {}
        for place, picture in enumerate(drawn.pictures):
            prompt = prompts[place // each]
            verdict = is_right(prompt, picture, detector(picture), colours, self._config)
            right.setdefault(prompt.tag, []).append(verdict)
        shares = {tag: sum(right[tag]) / len(right[tag]) for tag in TAGS if tag in right}
        values = {f"GenEval ({tag})": share for tag, share in shares.items()}
        values["GenEval"] = sum(shares.values()) / len(shares)
        return Measurement(values, self._made_of(job, detector, colours, each))

    def _made_of(self, job: Job, detector: Detector, colours: Colours, each: int) -> dict[str, Any]:
        prompts = hashlib.sha256(self._file(job).read_bytes()).hexdigest()
        judges = {"objects": detector.about(), "colours": colours.about()}
        return {**judges, "rules": self._config.model_dump(), "prompts_sha256": prompts, "pictures_per_prompt": each}

    def _prompts(self, job: Job) -> list[Prompt]:
        return read_prompts(self._file(job))

    def _file(self, job: Job) -> Any:
        return named_path(job, "geneval", self.name, "its prompts, evaluation_metadata.jsonl of djghosh13/geneval")

    def _judges(self, job: Job) -> tuple[Detector, Colours]:
        return job.kept(
            "judge/geneval", lambda: (self._detector or self._load_detector(job), self._colours or self._load(job))
        )

    def _load_detector(self, job: Job) -> Detector:
        what = "a detector of COCO's classes, such as facebook/mask2former-swin-small-coco-instance"
        return TransformersDetector(named_path(job, "detector", self.name, what), job.run.device)

    def _load(self, job: Job) -> Colours:
        what = "a CLIP for colours, openai/clip-vit-large-patch14 in the benchmark"
        return ClipColours(Clip.from_folder(named_path(job, "clip", self.name, what), job.run.device))


def _check_classes(detector: Detector, prompts: Sequence[Prompt]) -> None:
    """Raise LeanDiTError for a prompt with a class that the detector cannot find: it would fail silently."""
    wanted = {wanted.class_ for prompt in prompts for wanted in (*prompt.include, *prompt.exclude)}
    unseen = sorted(wanted - detector.classes)
    if unseen:
        raise LeanDiTError(
            f"geneval: the detector knows no {unseen[0]!r} ({len(unseen)} classes of the prompts are missing); give a "
            "detector of COCO's 80 classes"
        )
