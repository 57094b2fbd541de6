"""Tasks: what is learnt. A task knows nothing of transfer."""

from tljax.tasks.base import Target, Task, create

__all__ = ['Target', 'Task', 'create']
