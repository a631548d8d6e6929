"""Judges of others: CLIPScore, PickScore, HPSv2 and LAION aesthetics, with weights that the user brings."""

from leandit.evaluation.judges.aesthetics import AestheticsHead, LaionAesthetics
from leandit.evaluation.judges.clip import Clip
from leandit.evaluation.judges.open_clip import clip_from_open_clip, read_state, to_transformers
from leandit.evaluation.judges.prompted import ClipScore, HpsV2, PickScore

__all__ = [
    "AestheticsHead",
    "Clip",
    "ClipScore",
    "HpsV2",
    "LaionAesthetics",
    "PickScore",
    "clip_from_open_clip",
    "read_state",
    "to_transformers",
]
