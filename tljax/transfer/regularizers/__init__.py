"""Regularisers for transfer: loss terms, mixed examples, gradients, normalisations."""

from tljax.transfer.regularizers.base import KEY, Regularizer
from tljax.transfer.regularizers.l2_sp import restarted
from tljax.transfer.regularizers.objective import Setting, make
from tljax.transfer.regularizers.setup import (
    REGULARIZERS,
    gradients,
    outfit,
    parse,
    reference_shapes,
    without_second_head,
)

__all__ = [
    'KEY',
    'REGULARIZERS',
    'Regularizer',
    'Setting',
    'gradients',
    'make',
    'outfit',
    'parse',
    'reference_shapes',
    'restarted',
    'without_second_head',
]
