"""Networks that turn pictures into features, each with the hash of its weights."""

from leandit.evaluation.extractors.base import Extractor, Outputs
from leandit.evaluation.extractors.efficientnet import EffNetLite0

__all__ = ["EffNetLite0", "Extractor", "Outputs"]
