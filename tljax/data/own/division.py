"""Which rows train and which test, where the user's data doesn't say: stratified, by group."""

from collections.abc import Sequence

import numpy as np

from tljax.data.splits import draw_holdout, random_keys
from tljax.errors import UserError


def draw(
    labels: np.ndarray, groups: Sequence[str], share: float, seed: int, purpose: str
) -> np.ndarray:
    """Draws a share of the rows, each class in proportion, no group in two parts.

    Without groups the proportions are exact (largest remainder). With them, groups are taken in a
    random order, and one is drawn if that brings the classes' counts closer to what is wanted.

    Args:
      labels: (n,) int.
      groups: of the rows; '' is a group of its own.
      share: of the rows, between 0 and 1.
      seed: of the draw.
      purpose: what it is for, such as 'test', which has random numbers of its own.

    Returns:
      Positions, ascending.

    Raises:
      UserError: one of the two parts would be empty.

    >>> labels = np.array([0, 1] * 10)
    >>> drawn = draw(labels, [''] * 20, 0.2, 0, 'test')
    >>> np.bincount(labels[drawn]).tolist()
    [2, 2]
    >>> patients = [str(row // 4) for row in range(20)]
    >>> draw(labels, patients, 0.2, 0, 'test') // 4
    array([1, 1, 1, 1])
    """
    if not any(groups):
        return _rows(labels, share, seed, purpose)
    names = np.array([group or f'\0{row}' for row, group in enumerate(groups)])
    _, member = np.unique(names, return_inverse=True)
    count = int(member.max()) + 1
    table = np.zeros((count, int(labels.max()) + 1))
    np.add.at(table, (member, labels), 1)
    want = table.sum(0) * share
    have = np.zeros_like(want)
    taken = np.zeros(count, bool)
    for group in np.argsort(random_keys(count, seed, 'groups', purpose), kind='stable'):
        if _distance(have + table[group], want) < _distance(have, want):
            have += table[group]
            taken[group] = True
    if not taken.any() or taken.all():
        raise UserError(
            f'config.data.group: {count} groups cannot be divided so that about {share:.0%} of the '
            f'rows are for {purpose}: the groups are too large, or too few.'
        )
    return np.flatnonzero(taken[member])


def _distance(have: np.ndarray, want: np.ndarray) -> float:
    """How far counts are from what is wanted, each class counting alike."""
    return float((np.abs(have - want) / np.maximum(want, 1e-9)).sum())


def _rows(labels: np.ndarray, share: float, seed: int, purpose: str) -> np.ndarray:
    n = len(labels)
    if not 0 < round(share * n) < n:
        raise UserError(
            f'config.data: {n} rows cannot be divided so that {share:.0%} of them are for '
            f'{purpose}. There are too few.'
        )
    # draw_holdout has random numbers of its own, so that seeds need not differ.
    return draw_holdout(labels, share, int(random_keys(1, seed, purpose)[0]))
