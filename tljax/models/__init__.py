"""Models: NNX modules, one file per architecture, each with a `backbone` and a `head`."""

from tljax.models.build import Model, build, parameter_rng

__all__ = ['Model', 'build', 'parameter_rng']
