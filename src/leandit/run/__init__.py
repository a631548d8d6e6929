"""What a run's folder is: its configuration, checkpoints, metrics and identity. Reading one needs no training."""

from leandit.run.config import LossWeights, RunConfig, SamplingConfig, StartConfig, TrainConfig
from leandit.run.folder import RunFolder
from leandit.run.metrics import read_metrics
from leandit.run.recipe import (
    AdafactorConfig,
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    RMSPropConfig,
    ScheduleConfig,
)

__all__ = [
    "AdafactorConfig",
    "AdamWConfig",
    "LossWeights",
    "MuonConfig",
    "OptimizerConfig",
    "RMSPropConfig",
    "RunConfig",
    "RunFolder",
    "SamplingConfig",
    "ScheduleConfig",
    "StartConfig",
    "TrainConfig",
    "read_metrics",
]
