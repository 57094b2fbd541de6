"""The frozen prefix: what doesn't depend on anything trained, as features of each example."""

from tljax.transfer.prefix.cut import Cut, cut

__all__ = ['Cut', 'cut']
