"""Judges with weights that the user brings: CLIPScore, PickScore, HPSv2 and LAION aesthetics.

The first three multiply the cosine of picture and prompt by a constant and differ in their CLIP. The last reads no
prompt.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.clip import Clip
from leandit.evaluation.extractors.open_clip import clip_from_open_clip, read_state
from leandit.evaluation.extractors.weights import folder_hash, named_path, need_model_folder
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan
from leandit.evaluation.plans import drawn_sha256, need_prompts, plan_like_reference
from leandit.text.loading import load_tokenizer


class PromptJudge(Metric):
    """Draws the captions of the reference and averages scores over the pictures."""

    title: ClassVar[str]
    """The name of the judge in the result."""
    scales: ClassVar[dict[str, str]]
    """The numbers in the result by name, and the formula of each; cos is that of picture and prompt."""

    def plan(self, job: Job) -> Plan:
        """Check the run and the weights, and return the captions of the reference."""
        need_prompts(job, self.name)
        self._judge(job)
        return plan_like_reference(job)

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the mean of each score."""
        assert drawn is not None
        prompts = [str(prompt) for prompt in drawn.plan.wanted or ()]
        judge = self._judge(job)
        scores = self.scores(judge, drawn.pictures, prompts, job.batch_size)
        made_of = {"judge": self.title, "scales": self.scales, **judge.about()}
        made_of["drawn_sha256"] = drawn_sha256(drawn.plan)
        return Measurement({name: float(values.double().mean()) for name, values in scores.items()}, made_of)

    @abstractmethod
    def scores(
        self, judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int
    ) -> dict[str, Float[Tensor, " samples"]]:
        """Return the scores of each picture with its prompt, by their names in `scales`."""

    @abstractmethod
    def load(self, job: Job) -> Clip:
        """Return the judge with the weights that the job names."""

    def _judge(self, job: Job) -> Clip:
        return job.kept(f"judge/{self.name}", lambda: self.load(job))


def cosines(judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int) -> Float[Tensor, " samples"]:
    """Return the cosine of each picture with its own prompt."""
    return (judge(pictures, batch_size) * judge.texts(prompts, batch_size)).sum(1)


class ClipScore(PromptJudge):
    """Two scales of one CLIP: 2.5 max(cos(picture, "A photo depicts " + prompt), 0), and 100 cos(picture, prompt).

    The first is the formula of CLIPScore's paper. The second is what papers on text to image print, about 20 to 35:
    they do not state a prefix, and it has none. CLIPScore's paper has ViT-B/32; any other CLIP works too, and the
    result has its hash.

    Reference: CLIPScore (arXiv 2104.08718), section 3, for the first; Expert Race, Table 1, and DiT-Air, Table 4, for
    numbers of the second kind.
    """

    name = "clip_score"
    title = "CLIPScore"
    prefix = "A photo depicts "
    scales: ClassVar = {
        "CLIPScore": "2.5 max(cos, 0), prompt after 'A photo depicts '",
        "CLIP-cos-x100": "100 cos, prompt alone",
    }

    def load(self, job: Job) -> Clip:
        """Return the CLIP of --weights-from clip=FOLDER."""
        folder = named_path(
            job, "clip", self.name, "a CLIP in transformers' form, such as openai/clip-vit-base-patch32"
        )
        return Clip.from_folder(folder, job.run.device)

    def scores(
        self, judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int
    ) -> dict[str, Float[Tensor, " samples"]]:
        """Return both scales of each picture."""
        seen = judge(pictures, batch_size)
        prefixed = judge.texts([self.prefix + prompt for prompt in prompts], batch_size)
        plain = judge.texts(prompts, batch_size)
        return {
            "CLIPScore": 2.5 * (seen * prefixed).sum(1).clamp(min=0),
            "CLIP-cos-x100": 100 * (seen * plain).sum(1),
        }


class PickScore(PromptJudge):
    """exp(logit_scale) cos(picture, prompt), with a CLIP ViT-H/14 trained on people's choices.

    Reference: Pick-a-Pic (arXiv 2305.01569), section 3.
    """

    name = "pick_score"
    title = "PickScore"
    scales: ClassVar = {"PickScore": "exp(logit_scale) cos"}

    def load(self, job: Job) -> Clip:
        """Return the CLIP of --weights-from pickscore=FOLDER."""
        folder = named_path(job, "pickscore", self.name, "the folder of yuvalkirstain/PickScore_v1, with tokenizer")
        return Clip.from_folder(folder, job.run.device)

    def scores(
        self, judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int
    ) -> dict[str, Float[Tensor, " samples"]]:
        """Return exp(logit_scale) cos of each picture."""
        return {"PickScore": judge.logit_scale * cosines(judge, pictures, prompts, batch_size)}


class HpsV2(PromptJudge):
    """100 cos(picture, prompt), with a CLIP ViT-H/14 trained on people's choices.

    Its weights are published under open_clip's names as a .pt file; a converted .safetensors is better.

    Reference: HPSv2 (arXiv 2306.09341), section 4; times 100 as in its tables.
    """

    name = "hps_v2"
    title = "HPSv2"
    scales: ClassVar = {"HPSv2": "100 cos"}

    def load(self, job: Job) -> Clip:
        """Return the CLIP of --weights-from hps=PATH: a folder of transformers, or open_clip's weights as a file.

        A file has no tokenizer, which then comes from --weights-from hps_tokenizer=FOLDER.
        """
        path = named_path(job, "hps", self.name, "HPS_v2_compressed.pt or HPS_v2.1_compressed.pt of xswu/HPSv2")
        if path.is_dir():
            return Clip.from_folder(path, job.run.device)
        words = named_path(
            job, "hps_tokenizer", self.name, "a CLIP folder for its tokenizer, in addition to the weights"
        )
        need_model_folder(words)
        about: dict[str, Any] = {"weights_sha256": folder_hash(path), "tokenizer_sha256": folder_hash(words)}
        return Clip(clip_from_open_clip(read_state(path)), load_tokenizer(words), about, job.run.device)

    def scores(
        self, judge: Clip, pictures: Tensor, prompts: Sequence[str], batch_size: int
    ) -> dict[str, Float[Tensor, " samples"]]:
        """Return 100 cos of each picture."""
        return {"HPSv2": 100 * cosines(judge, pictures, prompts, batch_size)}


_WIDTHS = (768, 1024, 128, 64, 16, 1)
# Places of the linear layers in the published weights, `layers.0.weight` and so on; dropout is between them.
_PLACES = (0, 2, 4, 6, 7)


class AestheticsHead(nn.Module):
    """Five linear layers, 768-1024-128-64-16-1, with no activations between them, as published."""

    def __init__(self) -> None:
        super().__init__()
        pairs = itertools.pairwise(_WIDTHS)
        self.layers = nn.ModuleDict({str(p): nn.Linear(*pair) for p, pair in zip(_PLACES, pairs, strict=True)})

    def forward(self, embeddings: Float[Tensor, "samples 768"]) -> Float[Tensor, " samples"]:
        """Return the mark of each embedding; embeddings have length 1."""
        for layer in self.layers.values():
            embeddings = layer(embeddings)
        return embeddings[:, 0]


class LaionAesthetics(Metric):
    """The mean mark that a head gives the CLIP ViT-L/14 embeddings of the pictures, divided by their length.

    It was fitted on photographs, paintings and logos, not on small icons.

    Reference: LAION-5B (arXiv 2210.08402), appendix on LAION-Aesthetics; head "sac+logos+ava1-l14-linearMSE".
    """

    name = "aesthetics"

    def plan(self, job: Job) -> Plan:
        """Check the weights, and return what the reference shows."""
        self._judges(job)
        return plan_like_reference(job)

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the mean mark."""
        assert drawn is not None
        clip, head, digest = self._judges(job)
        marks = head(clip(drawn.pictures, job.batch_size))
        made_of = {"judge": "LAION aesthetics", "head_sha256": digest, **clip.about()}
        made_of["drawn_sha256"] = drawn_sha256(drawn.plan)
        return Measurement({"LAION aesthetics": float(marks.double().mean())}, made_of)

    def _judges(self, job: Job) -> tuple[Clip, AestheticsHead, str]:
        return job.kept(f"judge/{self.name}", lambda: self._load(job))

    def _load(self, job: Job) -> tuple[Clip, AestheticsHead, str]:
        file = named_path(job, "aesthetics", self.name, "sac+logos+ava1-l14-linearMSE (.pth or .safetensors)")
        folder = named_path(job, "clip_l14", self.name, "openai/clip-vit-large-patch14 in transformers' form")
        clip = Clip.from_folder(folder, job.run.device)
        if clip.dim != _WIDTHS[0]:
            raise LeanDiTError(
                f"{folder}: its embeddings are {clip.dim} wide; the aesthetics head reads the {_WIDTHS[0]} of CLIP "
                "ViT-L/14, so give openai/clip-vit-large-patch14"
            )
        head = AestheticsHead().eval().requires_grad_(False)
        try:
            head.load_state_dict(read_state(file))
        except RuntimeError as error:
            raise LeanDiTError(f"{file}: not the weights of the aesthetics head: {error}") from None
        return clip, head, folder_hash(file)
