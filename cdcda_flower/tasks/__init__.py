"""The six LaMP tasks as one table: wording, profile forms, labels, parser, metrics."""

from cdcda_flower.tasks.lamp import TASKS, task_named
from cdcda_flower.tasks.task import ProfileForm, Task

__all__ = ["TASKS", "ProfileForm", "Task", "task_named"]
