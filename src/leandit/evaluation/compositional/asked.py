"""The two benchmarks that ask a model about pictures: T2I-CompBench's attributes, and DSG."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from leandit.evaluation.compositional.answers import VQA
from leandit.evaluation.compositional.blip import BlipVQA
from leandit.evaluation.compositional.compbench import NounPhrases, PhrasedPrompt, phrases_score, read_phrased
from leandit.evaluation.compositional.dsg import Generator, Graph, graph_score, read_graphs
from leandit.evaluation.extractors.weights import named_path
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan
from leandit.evaluation.plans import plan_like_reference
from leandit.evaluation.prompts import need_prompts, repeat_prompts


class AskedMetric(Metric):
    """Draws prompts equally often and averages what a model's answers make of each picture.

    The model is that of --weights-from vqa=FOLDER (BLIP) unless one is given.
    """

    title: ClassVar[str]

    def __init__(self, vqa: VQA | None = None) -> None:
        self._vqa = vqa

    def plan(self, job: Job) -> Plan:
        """Return every prompt equally often, after a look at the prompts and the weights."""
        plan = repeat_prompts(job, self.name, [item.prompt for item in self._items(job)])
        self._answers(job)
        return plan

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the mean score of the pictures."""
        assert drawn is not None
        items, vqa = self._items(job), self._answers(job)
        each = len(drawn.pictures) // len(items)
        scores = [self.score(picture, items[i // each], vqa) for i, picture in enumerate(drawn.pictures)]
        asked = hashlib.sha256(repr(items).encode()).hexdigest()
        made_of = {"answers": vqa.about(), "asked_sha256": asked, "pictures_per_prompt": each}
        return Measurement({self.title: float(torch.tensor(scores, dtype=torch.float64).mean())}, made_of)

    @abstractmethod
    def score(self, picture: UInt8[Tensor, "height width channels"], item: Any, vqa: VQA) -> float:
        """Return the score of one picture."""

    @abstractmethod
    def read(self, job: Job) -> Sequence[PhrasedPrompt] | Sequence[Graph]:
        """Return the prompts, each with what is asked about its pictures."""

    def _items(self, job: Job) -> Sequence[PhrasedPrompt] | Sequence[Graph]:
        def items() -> Sequence[PhrasedPrompt] | Sequence[Graph]:
            need_prompts(job, self.name)
            return self.read(job)

        return job.kept(f"asked/{self.name}", items)

    def _answers(self, job: Job) -> VQA:
        return self._vqa if self._vqa is not None else job.kept("judge/vqa", lambda: self._load(job))

    def _load(self, job: Job) -> VQA:
        what = "a model that answers questions, such as Salesforce/blip-vqa-capfilt-large"
        return BlipVQA(named_path(job, "vqa", self.name, what), job.run.device)


class CompBench(AskedMetric):
    """T2I-CompBench's BLIP-VQA, for its prompts on colour, shape and texture.

    Its spatial score (UniDet) and its CLIPScore for other relations are not here.

    Reference: T2I-CompBench (arXiv 2307.06350), section 4.1.
    """

    name = "t2i_compbench"
    title = "T2I-CompBench BLIP-VQA"

    def __init__(self, vqa: VQA | None = None, noun_phrases: NounPhrases | None = None) -> None:
        super().__init__(vqa)
        self._noun_phrases = noun_phrases

    def read(self, job: Job) -> Sequence[PhrasedPrompt]:
        """Return the prompts of --weights-from compbench=FILE and their noun phrases."""
        file = named_path(
            job, "compbench", self.name, "its prompts, such as color_val.txt of Karine-Huang/T2I-CompBench"
        )
        return read_phrased(file, self._noun_phrases)

    def score(self, picture: UInt8[Tensor, "height width channels"], item: Any, vqa: VQA) -> float:
        """Return the product over the noun phrases."""
        return phrases_score(picture, item.phrases, vqa)


class Dsg(AskedMetric):
    """DSG: the share of a prompt's questions that a picture answers with yes, where what they build on holds.

    The questions come from a file in the authors' form, or for the reference's captions from a generator.

    Reference: DSG (arXiv 2310.18235).
    """

    name = "dsg"
    title = "DSG"

    def __init__(self, vqa: VQA | None = None, generator: Generator | None = None) -> None:
        super().__init__(vqa)
        self._generator = generator

    def read(self, job: Job) -> Sequence[Graph]:
        """Return the graphs of --weights-from dsg=FILE, or what the generator makes of the reference's captions."""
        if self._generator is not None:
            return [self._generator(str(prompt)) for prompt in plan_like_reference(job).wanted or ()]
        return read_graphs(named_path(job, "dsg", self.name, "its questions, dsg-1k-anns.csv of j-min/DSG"))

    def score(self, picture: UInt8[Tensor, "height width channels"], item: Any, vqa: VQA) -> float:
        """Return the share of questions answered with yes, P(yes) > 1/2, that build on no "no"."""
        probable = vqa(picture, [question.text for question in item.questions.values()])
        return graph_score(item, dict(zip(item.questions, (probable > 0.5).tolist(), strict=True)))
