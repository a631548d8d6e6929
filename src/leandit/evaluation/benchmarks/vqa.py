"""Benchmarks that ask a model about pictures: the interface of such a model, BLIP, and the metric that asks."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.base import RESAMPLING, clip_planes
from leandit.evaluation.extractors.weights import folder_hash, named_path, need_model_folder
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan
from leandit.evaluation.plans import need_prompts, repeat_prompts
from leandit.text.loading import load_pretrained, load_tokenizer


@runtime_checkable
class VQA(Protocol):
    """Answers questions on a picture with yes or no."""

    def __call__(
        self, picture: UInt8[Tensor, "height width channels"], questions: Sequence[str]
    ) -> Float[Tensor, " questions"]:
        """Return the probability of "yes" for each question, as against "no"."""

    def about(self) -> dict[str, Any]:
        """Return what its answers depend on, as JSON."""


_MOST_TOKENS = 35
_MOST_WORDS = 50


class BlipVQA:
    """P(yes) / (P(yes) + P(no)) of the first word of BLIP's answer.

    `folder` is a model as transformers saves it, such as Salesforce/blip-vqa-capfilt-large, safetensors only.

    Reference: T2I-CompBench (arXiv 2307.06350), section 4.1, and its release for how P(yes) is read.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        need_model_folder(folder, ("blip",))
        self._device = torch.device(device)
        model: Any = load_pretrained("BlipForQuestionAnswering", folder)
        self._model = model.to(self._device).eval().requires_grad_(False)
        self._tokenizer = load_tokenizer(folder)
        self._yes, self._no = (self._token(folder, word) for word in ("yes", "no"))
        self._resolution = int(model.config.vision_config.image_size)
        self._sha256 = folder_hash(folder)

    @torch.inference_mode()
    def __call__(
        self, picture: UInt8[Tensor, "height width channels"], questions: Sequence[str]
    ) -> Float[Tensor, " questions"]:
        """Return the probability of "yes" for each question, as against "no"."""
        x = clip_planes(picture[None], self._resolution, self._device)
        seen = self._model.vision_model(pixel_values=x).last_hidden_state
        return torch.cat([self._answer(seen, question) for question in questions]).cpu().clone()

    def about(self) -> dict[str, Any]:
        """Return what the answers depend on."""
        return {
            "vqa": "BLIP, P(yes) as against no",
            "weights_sha256": self._sha256,
            "resolution": self._resolution,
            "resampling": RESAMPLING,
        }

    def _answer(self, seen: Tensor, question: str) -> Float[Tensor, " one"]:
        asked = self._tokenizer(plain(question), truncation=True, max_length=_MOST_TOKENS, return_tensors="pt")
        asked = asked.to(self._device)
        states = self._model.text_encoder(
            input_ids=asked.input_ids, attention_mask=asked.attention_mask, encoder_hidden_states=seen
        )[0]
        start = torch.full((1, 1), self._model.decoder_start_token_id, device=self._device)
        logits = self._model.text_decoder(input_ids=start, encoder_hidden_states=states).logits[:, 0]
        # The softmax over two words is their share of the softmax over all words.
        return logits[:, [self._yes, self._no]].float().softmax(-1)[:, 0]

    def _token(self, folder: Path, word: str) -> int:
        ids: list[int] = self._tokenizer(word, add_special_tokens=False).input_ids
        if len(ids) != 1 or ids[0] == self._tokenizer.unk_token_id:
            raise LeanDiTError(f"{folder}: {word!r} is not a word of its tokenizer; give the folder of BLIP for VQA")
        return ids[0]


def plain(question: str) -> str:
    """Return a question in BLIP's form: lower case, no marks except "?" and commas, 50 words at most."""
    return " ".join(re.sub(r'[.!"()*#:;~]', "", question.lower()).rstrip(" ").split(" ")[:_MOST_WORDS])


class AskedMetric(Metric):
    """Draws prompts equally often and averages a score of each picture from a model's answers.

    The model is that of --weights-from vqa=FOLDER (BLIP) unless one is given.
    """

    title: ClassVar[str]

    def __init__(self, vqa: VQA | None = None) -> None:
        self._vqa = vqa

    def plan(self, job: Job) -> Plan:
        """Check the prompts and the weights, and return every prompt equally often."""
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
        """Return the prompts, each with the questions about its pictures."""

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
