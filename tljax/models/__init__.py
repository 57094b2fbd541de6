"""Models: NNX modules, one file per architecture, each with a `backbone` and a `head`."""

from tljax.models.build import Model, arguments, batch_stats_of, build, merge

__all__ = ['Model', 'arguments', 'batch_stats_of', 'build', 'merge']
