"""Tasks: what is learnt. A task knows nothing of transfer."""

from tljax.tasks.base import Target, Task, TokenTask, create, kind_of

__all__ = ['Target', 'Task', 'TokenTask', 'create', 'kind_of']
