"""What a run's folder is: its configuration, checkpoints, metrics and identity. Reading one needs no training."""

from leandit.run.config import (
    TASKS,
    DenoiseConfig,
    LossWeights,
    RunConfig,
    SamplingConfig,
    StartConfig,
    TaskConfig,
    TrainConfig,
)
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
    "TASKS",
    "AdafactorConfig",
    "AdamWConfig",
    "DenoiseConfig",
    "LossWeights",
    "MuonConfig",
    "OptimizerConfig",
    "RMSPropConfig",
    "RunConfig",
    "RunFolder",
    "SamplingConfig",
    "ScheduleConfig",
    "StartConfig",
    "TaskConfig",
    "TrainConfig",
    "read_metrics",
]
