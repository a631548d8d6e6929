"""Named models and whole runs, as functions that return complete configs."""

from leandit.presets.models import MODELS, ModelCard, NamedModel, model_card, model_config
from leandit.presets.runs import PRESETS, run_config

__all__ = ["MODELS", "PRESETS", "ModelCard", "NamedModel", "model_card", "model_config", "run_config"]
