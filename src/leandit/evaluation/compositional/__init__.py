"""GenEval, T2I-CompBench and DSG: what a picture shows of its prompt, by detectors and models that answer questions."""

from leandit.evaluation.compositional.answers import VQA
from leandit.evaluation.compositional.asked import CompBench, Dsg
from leandit.evaluation.compositional.blip import BlipVQA
from leandit.evaluation.compositional.colours import ClipColours
from leandit.evaluation.compositional.detections import Colours, Detected, Detector
from leandit.evaluation.compositional.detectors import TransformersDetector
from leandit.evaluation.compositional.dsg import Generator, Graph, Question
from leandit.evaluation.compositional.geneval import GenEval
from leandit.evaluation.compositional.geneval_rules import GenEvalConfig

__all__ = [
    "VQA",
    "BlipVQA",
    "ClipColours",
    "Colours",
    "CompBench",
    "Detected",
    "Detector",
    "Dsg",
    "GenEval",
    "GenEvalConfig",
    "Generator",
    "Graph",
    "Question",
    "TransformersDetector",
]
