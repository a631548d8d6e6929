"""The tasks, one file per task. `RunConfig.task` selects one."""

from leandit.run.config import DenoiseConfig
from leandit.training.task import Task, TaskContext
from leandit.training.tasks.denoise import DenoiseTask

__all__ = ["DenoiseTask", "build_task"]


def build_task(context: TaskContext) -> Task:
    """Return the task of the run's configuration. The config of a task from outside the package has a `build`."""
    if isinstance(context.config.task, DenoiseConfig):
        return DenoiseTask(context)
    return context.config.task.build(context)
