"""Training: a step is a function of the weights, the seed and its number, and a resumed run repeats it to the bit."""

from leandit.training.callbacks import Callback, RunView, StepReport
from leandit.training.runner import run_training
from leandit.training.task import Step, Task, TaskContext
from leandit.training.trainer import Trainer

__all__ = ["Callback", "RunView", "Step", "StepReport", "Task", "TaskContext", "Trainer", "run_training"]
