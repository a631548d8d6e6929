"""GenEval, T2I-CompBench and DSG, which ask detectors and models about a picture, and a benchmark of drawn scenes."""

from leandit.evaluation.benchmarks.colours import ClipColours
from leandit.evaluation.benchmarks.compbench import CompBench
from leandit.evaluation.benchmarks.detectors import Colours, Detected, Detector, TransformersDetector
from leandit.evaluation.benchmarks.dsg import Dsg, Generator, Graph, Question
from leandit.evaluation.benchmarks.geneval import GenEval
from leandit.evaluation.benchmarks.geneval_rules import GenEvalConfig
from leandit.evaluation.benchmarks.vqa import VQA, BlipVQA

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
