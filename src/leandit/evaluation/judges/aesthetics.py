"""LAION's aesthetics predictor: a mark from about 1 to 10 for how a picture looks, whatever it shows."""

from __future__ import annotations

import itertools

from jaxtyping import Float
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.folder import folder_hash, named_path
from leandit.evaluation.judges.clip import Clip
from leandit.evaluation.judges.open_clip import read_state
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan
from leandit.evaluation.plans import drawn_sha256, plan_like_reference

_WIDTHS = (768, 1024, 128, 64, 16, 1)
# Places of the linear layers in the published weights, `layers.0.weight` and so on; dropout stands between them.
_PLACES = (0, 2, 4, 6, 7)


class AestheticsHead(nn.Module):
    """Five linear layers, 768-1024-128-64-16-1, with nothing between them: as published, it has no activations."""

    def __init__(self) -> None:
        super().__init__()
        pairs = itertools.pairwise(_WIDTHS)
        self.layers = nn.ModuleDict({str(p): nn.Linear(*pair) for p, pair in zip(_PLACES, pairs, strict=True)})

    def forward(self, embeddings: Float[Tensor, "samples 768"]) -> Float[Tensor, " samples"]:
        """Return the mark of each embedding, which must have length 1."""
        for layer in self.layers.values():
            embeddings = layer(embeddings)
        return embeddings[:, 0]


class LaionAesthetics(Metric):
    """The mean mark that a head gives the CLIP ViT-L/14 embeddings of the pictures, divided by their length.

    It was fitted on photographs, paintings and logos; small icons lie outside of what it knows.

    Reference: LAION-5B (arXiv 2210.08402), appendix on LAION-Aesthetics; head "sac+logos+ava1-l14-linearMSE".
    """

    name = "aesthetics"

    def plan(self, job: Job) -> Plan:
        """Return what the reference shows, after a look at the weights."""
        self._judges(job)
        return plan_like_reference(job)

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the mean mark."""
        assert drawn is not None
        clip, head, digest = self._judges(job)
        marks = head(clip.pictures(drawn.pictures, job.batch_size))
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
            raise LeanDiTError(f"{file}: no weights of the aesthetics head: {error}") from None
        return clip, head, folder_hash(file)
