"""Models: NNX modules, one file per architecture, each with a `backbone` and a `head`."""

from tljax.models.build import (
    Model,
    arguments,
    batch_stats_of,
    build,
    merge,
    reads_tokens,
    real_positions,
)
from tljax.models.outline import Outline

__all__ = [
    'Model',
    'Outline',
    'arguments',
    'batch_stats_of',
    'build',
    'merge',
    'reads_tokens',
    'real_positions',
]
