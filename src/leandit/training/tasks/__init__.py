"""The tasks: each is a file with a class; `RunConfig.task` names one."""

from leandit.run.config import DenoiseConfig
from leandit.training.task import Task, TaskContext
from leandit.training.tasks.denoise import DenoiseTask

__all__ = ["DenoiseTask", "build_task"]


def build_task(context: TaskContext) -> Task:
    """Return the task that the run's configuration names; one from outside the package has its own `build`."""
    if isinstance(context.config.task, DenoiseConfig):
        return DenoiseTask(context)
    return context.config.task.build(context)
