"""CLIPScore, PickScore and HPSv2: how well a picture fits its prompt, by a CLIP of one training or another.

All three multiply the cosine of picture and prompt by a constant; they differ in the weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from leandit.evaluation.extractors.folder import folder_hash, named_path, need_model_folder
from leandit.evaluation.judges.clip import Clip
from leandit.evaluation.judges.open_clip import clip_from_open_clip, read_state
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan
from leandit.evaluation.plans import drawn_sha256, plan_like_reference
from leandit.evaluation.prompts import need_prompts
from leandit.text.loading import load_tokenizer


class PromptJudge(Metric):
    """Draws the captions of the reference and averages a score over the pictures."""

    # As it stands in the result.
    title: ClassVar[str]

    def plan(self, job: Job) -> Plan:
        """Return the captions of the reference, after a look at the run and at the weights."""
        need_prompts(job, self.name)
        self._judge(job)
        return plan_like_reference(job)

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the mean score."""
        assert drawn is not None
        prompts = [str(prompt) for prompt in drawn.plan.wanted or ()]
        judge = self._judge(job)
        values = self.scores(judge, drawn.pictures, prompts, job.batch_size)
        made_of = {"judge": self.title, **judge.about(), "drawn_sha256": drawn_sha256(drawn.plan)}
        return Measurement({self.title: float(values.double().mean())}, made_of)

    @abstractmethod
    def scores(
        self, judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int
    ) -> Float[Tensor, " samples"]:
        """Return the score of each picture with its prompt."""

    @abstractmethod
    def load(self, job: Job) -> Clip:
        """Return the judge from where the job says that its weights lie."""

    def _judge(self, job: Job) -> Clip:
        return job.kept(f"judge/{self.name}", lambda: self.load(job))


def cosines(judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int) -> Float[Tensor, " samples"]:
    """Return the cosine of each picture with its own prompt."""
    return (judge.pictures(pictures, batch_size) * judge.texts(prompts, batch_size)).sum(1)


class ClipScore(PromptJudge):
    """2.5 max(cos(picture, "A photo depicts " + prompt), 0).

    The prefix is the paper's own; many papers on text to image leave it, or the 2.5, out. The paper's CLIP is
    ViT-B/32; any is taken, and the result says by its hash which.

    Reference: CLIPScore (arXiv 2104.08718), section 3.
    """

    name = "clip_score"
    title = "CLIPScore"
    prefix = "A photo depicts "

    def load(self, job: Job) -> Clip:
        """Return the CLIP of --weights-from clip=FOLDER."""
        folder = named_path(
            job, "clip", self.name, "a CLIP in transformers' form, such as openai/clip-vit-base-patch32"
        )
        return Clip.from_folder(folder, job.run.device)

    def scores(
        self, judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int
    ) -> Float[Tensor, " samples"]:
        """Return 2.5 max(cos, 0) of each picture."""
        return 2.5 * cosines(judge, pictures, [self.prefix + prompt for prompt in prompts], batch_size).clamp(min=0)


class PickScore(PromptJudge):
    """exp(logit_scale) cos(picture, prompt), with a CLIP ViT-H/14 that was trained on people's choices.

    Reference: Pick-a-Pic (arXiv 2305.01569), section 3.
    """

    name = "pick_score"
    title = "PickScore"

    def load(self, job: Job) -> Clip:
        """Return the CLIP of --weights-from pickscore=FOLDER."""
        folder = named_path(job, "pickscore", self.name, "the folder of yuvalkirstain/PickScore_v1, with tokenizer")
        return Clip.from_folder(folder, job.run.device)

    def scores(
        self, judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int
    ) -> Float[Tensor, " samples"]:
        """Return exp(logit_scale) cos of each picture."""
        return judge.logit_scale * cosines(judge, pictures, prompts, batch_size)


class HpsV2(PromptJudge):
    """100 cos(picture, prompt), with a CLIP ViT-H/14 that was trained on people's choices.

    Its weights are published under open_clip's names, as a .pt file; a converted .safetensors is better.

    Reference: HPSv2 (arXiv 2306.09341), section 4; times 100 as in its tables.
    """

    name = "hps_v2"
    title = "HPSv2"

    def load(self, job: Job) -> Clip:
        """Return the CLIP of --weights-from hps=PATH: a folder of transformers, or open_clip's weights as a file.

        A file brings no tokenizer, which then comes from --weights-from hps_tokenizer=FOLDER.
        """
        path = named_path(job, "hps", self.name, "HPS_v2_compressed.pt or HPS_v2.1_compressed.pt of xswu/HPSv2")
        if path.is_dir():
            return Clip.from_folder(path, job.run.device)
        words = named_path(job, "hps_tokenizer", self.name, "a CLIP folder for its tokenizer, besides the weights")
        need_model_folder(words)
        about: dict[str, Any] = {"weights_sha256": folder_hash(path), "tokenizer_sha256": folder_hash(words)}
        return Clip(clip_from_open_clip(read_state(path)), load_tokenizer(words), about, job.run.device)

    def scores(
        self, judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int
    ) -> Float[Tensor, " samples"]:
        """Return 100 cos of each picture."""
        return 100 * cosines(judge, pictures, prompts, batch_size)
