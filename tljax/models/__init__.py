"""Models: NNX modules, one file per architecture, each with a `backbone` and a `head`."""

from tljax.models.build import Model, batch_stats_of, build, merge

__all__ = ['Model', 'batch_stats_of', 'build', 'merge']
