"""The metrics that compare a run's pictures with real ones by the features of an extractor."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.base import Extractor, Outputs
from leandit.evaluation.features import clip_extractor, drawn_outputs, made_of, main_extractor, reference_outputs
from leandit.evaluation.frechet import frechet_distance, gaussian_of
from leandit.evaluation.inception_score import inception_score
from leandit.evaluation.kernel import CMMD_SCALE, CMMD_SIGMA, cmmd, kid
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan
from leandit.evaluation.plans import drawn_sha256, plan_like_reference
from leandit.evaluation.precision_recall import precision_recall

_CANONICAL = "Inception"
_CANONICAL_CLIP = "CLIP-ViT-L/14@336"
_NEIGHBOURS = 3
_SPLITS = 10
_SUBSETS = 100
_SUBSET_SIZE = 1000


class _FeatureMetric(Metric):
    """Draws pictures like the reference, as many as asked for, and compares the features of both sets."""

    at_least: ClassVar[int]
    """The least number of pictures, drawn and real each; with fewer the result would mean nothing."""
    needs_reference: ClassVar[bool] = True

    def plan(self, job: Job) -> Plan:
        self._check(job.num_samples, "samples; raise --num-samples")
        if self.needs_reference:
            self._check(len(job.reference), "reference pictures; name a larger --reference")
        self._extractor(job)  # missing weights are an error before anything is drawn
        return plan_like_reference(job)

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        assert drawn is not None
        extractor = self._extractor(job)
        outputs = drawn_outputs(job, drawn, extractor)
        if not self.needs_reference:
            # Without real pictures the labels or captions that the drawn ones show say what was measured.
            facts = {**extractor.about(), "drawn_sha256": drawn_sha256(drawn.plan)}
            return self._compare(extractor, outputs, outputs, facts)
        real = reference_outputs(job, extractor)
        return self._compare(extractor, real, outputs, made_of(job, extractor))

    def _extractor(self, job: Job) -> Extractor:
        return main_extractor(job)

    def _check(self, count: int, what: str) -> None:
        if count < self.at_least:
            raise LeanDiTError(f"{self.name} needs at least {self.at_least} pictures and has {count} {what}")

    @abstractmethod
    def _compare(self, extractor: Extractor, real: Outputs, drawn: Outputs, facts: dict[str, Any]) -> Measurement:
        """Return the numbers of this metric."""


class FrechetMetric(_FeatureMetric):
    """FID with Inception, else FD-NAME: the Fréchet distance of pooled features."""

    name = "fd"
    at_least = 50

    def _compare(self, extractor: Extractor, real: Outputs, drawn: Outputs, facts: dict[str, Any]) -> Measurement:
        value = frechet_distance(gaussian_of(real.features), gaussian_of(drawn.features))
        return Measurement({_named("FID", "FD", extractor): value}, facts)


class SpatialFrechetMetric(_FeatureMetric):
    """sFID with Inception, else sFD-NAME: the Fréchet distance of a map that keeps the positions of things.

    Reference: Nash et al. (arXiv 2103.03841), section 4; the first 7 channels of the map.
    """

    name = "sfid"
    at_least = 50

    def _compare(self, extractor: Extractor, real: Outputs, drawn: Outputs, facts: dict[str, Any]) -> Measurement:
        assert real.spatial is not None
        assert drawn.spatial is not None
        value = frechet_distance(gaussian_of(real.spatial), gaussian_of(drawn.spatial))
        return Measurement({_named("sFID", "sFD", extractor): value}, {**facts, "spatial_dim": real.spatial.shape[1]})


class KernelMetric(_FeatureMetric):
    """KID: it is unbiased, so read it if there are fewer than 5,000 pictures."""

    name = "kid"
    at_least = 20

    def _compare(self, extractor: Extractor, real: Outputs, drawn: Outputs, facts: dict[str, Any]) -> Measurement:
        # For small sets it is half of the smaller one, since otherwise all subsets would be the same.
        size = min(_SUBSET_SIZE, len(real.features) // 2, len(drawn.features) // 2)
        mean, deviation = kid(real.features, drawn.features, _SUBSETS, size)
        name = _named("KID", "KID", extractor)
        return Measurement(
            {name: mean, f"{name} (std)": deviation}, {**facts, "subsets": _SUBSETS, "subset_size": size}
        )


class PrecisionRecallMetric(_FeatureMetric):
    """Improved precision and recall, k = 3; the paper's features are VGG's, so the name always has the extractor."""

    name = "precision_recall"
    at_least = 20

    def _compare(self, extractor: Extractor, real: Outputs, drawn: Outputs, facts: dict[str, Any]) -> Measurement:
        precision, recall = precision_recall(real.features, drawn.features, _NEIGHBOURS)
        values = {f"precision-{extractor.name}": precision, f"recall-{extractor.name}": recall}
        return Measurement(values, {**facts, "neighbours": _NEIGHBOURS})


class InceptionScoreMetric(_FeatureMetric):
    """IS with Inception, else IS-NAME; it needs no reference."""

    name = "inception_score"
    at_least = 100
    needs_reference = False

    def _compare(self, extractor: Extractor, real: Outputs, drawn: Outputs, facts: dict[str, Any]) -> Measurement:
        assert drawn.logits is not None
        mean, deviation = inception_score(drawn.logits, _SPLITS)
        name = _named("IS", "IS", extractor)
        return Measurement({name: mean, f"{name} (std)": deviation}, {**facts, "splits": _SPLITS})


class ClipMmdMetric(_FeatureMetric):
    """CMMD with the CLIP of its paper, else MMD-NAME."""

    name = "cmmd"
    at_least = 20

    def _extractor(self, job: Job) -> Extractor:
        return clip_extractor(job)

    def _compare(self, extractor: Extractor, real: Outputs, drawn: Outputs, facts: dict[str, Any]) -> Measurement:
        name = "CMMD" if extractor.name == _CANONICAL_CLIP else f"MMD-{extractor.name}"
        value = cmmd(real.features, drawn.features)
        return Measurement({name: value}, {**facts, "sigma": CMMD_SIGMA, "scale": CMMD_SCALE})


def _named(canonical: str, other: str, extractor: Extractor) -> str:
    """Return the published name only for the published weights."""
    return canonical if extractor.name == _CANONICAL else f"{other}-{extractor.name}"
