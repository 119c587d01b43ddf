"""Tasks: wording, profile forms, labels, parser, metrics. LaMP's six are a table; one's own is a TOML file."""

from cdcda_flower.tasks.lamp import TASKS
from cdcda_flower.tasks.task import ProfileForm, Task
from cdcda_flower.tasks.task_file import inline, task_named

__all__ = ["TASKS", "ProfileForm", "Task", "inline", "task_named"]
