"""Tasks: what is learnt. A task knows nothing of transfer."""

from tljax.tasks.base import Task, create, mean_metrics

__all__ = ['Task', 'create', 'mean_metrics']
