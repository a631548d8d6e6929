"""Networks that turn pictures into features, each with the hash of its weights."""

from leandit.evaluate.extractors.base import Extractor, Outputs
from leandit.evaluate.extractors.efficientnet import EffNetLite0

__all__ = ["EffNetLite0", "Extractor", "Outputs"]
