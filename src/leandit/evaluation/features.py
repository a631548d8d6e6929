"""Features of a run's pictures and of the reference, computed once for all metrics."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import UInt8
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.base import Extractor, Outputs
from leandit.evaluation.extractors.clip import REPOSITORY, Clip
from leandit.evaluation.extractors.efficientnet import EffNetLite0
from leandit.evaluation.extractors.inception import FILE_NAME, SHA256_PREFIX, URL, Inception
from leandit.evaluation.extractors.weights import fetch
from leandit.evaluation.metric import Drawn, Job
from leandit.evaluation.reference import PixelHash, read_batches

# Pictures up to this side are enlarged to 96 pixels: it shows everything and costs a fifth of 224.
_SMALL = 64


def main_extractor(job: Job) -> Extractor:
    """Return Inception if its weights are given or may be downloaded, else EffNetLite0, which needs no download."""
    if "inception" in job.paths or job.download:
        return job.kept("extractor/inception", lambda: Inception(_inception_file(job), job.run.device))
    size = job.run.model.config.size
    resolution = 96 if max(size.height, size.width) <= _SMALL else 224
    return job.kept("extractor/lite0", lambda: EffNetLite0(resolution, job.run.device, job.paths.get("effnet_lite0")))


def clip_extractor(job: Job) -> Extractor:
    """Return CLIP from `--weights-from clip=FOLDER`; without it raise LeanDiTError, which says how to get one."""
    if "clip" not in job.paths:
        raise LeanDiTError(
            "CLIP's weights come with no package. Save them once, with a network:\n"
            '  python -c "from transformers import CLIPVisionModelWithProjection as Clip; '
            f"Clip.from_pretrained('{REPOSITORY}').save_pretrained('clip')\"\n"
            "and name the folder with --weights-from clip=clip"
        )
    return job.kept("extractor/clip", lambda: Clip.of_pictures(job.paths["clip"], job.run.device))


def drawn_outputs(job: Job, drawn: Drawn, extractor: Extractor) -> Outputs:
    """Return the extractor's outputs for the drawn pictures."""
    # By identity: metrics with equal plans get the same set.
    key = f"drawn/{extractor.name}/{id(drawn.pictures)}"
    return job.kept(key, lambda: _outputs(extractor, drawn.pictures.split(job.batch_size)))


def reference_outputs(job: Job, extractor: Extractor) -> Outputs:
    """Return the extractor's outputs for all reference pictures."""
    return job.kept(f"reference/{extractor.name}", lambda: _read_reference(job, extractor))


def made_of(job: Job, extractor: Extractor) -> dict[str, Any]:
    """Return what every number from these features depends on: the extractor and the pixels of the reference."""
    reference_outputs(job, extractor)
    pixels = job.cache["reference/pixels"]
    return {**extractor.about(), "reference": {"pictures": len(job.reference), "pixels_sha256": pixels}}


def _read_reference(job: Job, extractor: Extractor) -> Outputs:
    pixels = PixelHash()

    def batches() -> Iterable[Tensor]:
        for batch in read_batches(job.reference, job.batch_size):
            pixels.update(batch)
            yield batch

    outputs = _outputs(extractor, batches())
    job.cache["reference/pixels"] = pixels.value()
    return outputs


def _outputs(extractor: Extractor, batches: Iterable[UInt8[Tensor, "samples height width channels"]]) -> Outputs:
    parts = [extractor.outputs(batch) for batch in batches]
    columns = ([part.features for part in parts], [part.spatial for part in parts], [part.logits for part in parts])
    features, spatial, logits = (
        None if column[0] is None else torch.cat(cast(list[Tensor], column)) for column in columns
    )
    assert features is not None
    return Outputs(features, spatial, logits)


def _inception_file(job: Job) -> Path:
    given = job.paths.get("inception")
    return given if given is not None else fetch(URL, FILE_NAME, SHA256_PREFIX)
