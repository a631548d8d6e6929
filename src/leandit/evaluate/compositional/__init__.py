"""GenEval, T2I-CompBench and DSG: what a picture shows of its prompt, by detectors and models that answer questions."""

from leandit.evaluate.compositional.answers import VQA
from leandit.evaluate.compositional.asked import CompBench, Dsg
from leandit.evaluate.compositional.blip import BlipVQA
from leandit.evaluate.compositional.colours import ClipColours
from leandit.evaluate.compositional.detections import Colours, Detected, Detector
from leandit.evaluate.compositional.detectors import TransformersDetector
from leandit.evaluate.compositional.dsg import Generator, Graph, Question
from leandit.evaluate.compositional.geneval import GenEval
from leandit.evaluate.compositional.geneval_rules import GenEvalConfig

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
