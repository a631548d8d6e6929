"""Training: a run is a folder, a step is a function of the seed and its number, a checkpoint is never half there."""

from leandit.train.callbacks import Callback, StepReport
from leandit.train.config import LossWeights, RunConfig, SamplingConfig, TrainConfig
from leandit.train.folder import RunFolder
from leandit.train.metrics import read_metrics
from leandit.train.optimizers import AdamWConfig, MuonConfig
from leandit.train.run import run_training
from leandit.train.schedule import ScheduleConfig
from leandit.train.start import StartConfig
from leandit.train.trainer import Trainer

__all__ = [
    "AdamWConfig",
    "Callback",
    "LossWeights",
    "MuonConfig",
    "RunConfig",
    "RunFolder",
    "SamplingConfig",
    "ScheduleConfig",
    "StartConfig",
    "StepReport",
    "TrainConfig",
    "Trainer",
    "read_metrics",
    "run_training",
]
