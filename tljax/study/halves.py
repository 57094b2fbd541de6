"""How sure a score of examples is: the bootstrap by halves, without an example twice.

Scores that leave an example out, or look for its neighbours, take a copy for a neighbour, so the
ordinary bootstrap flatters them. A random half has no copies, and the deviations of a statistic
between halves have the variance of the statistic itself (Efron 1982, The Jackknife, the Bootstrap
and Other Resampling Plans, section 8.1; Politis and Romano 1994 for subsamples of other sizes).
"""

import numpy as np
import numpy.typing as npt

from tljax.study.statistics import LEVEL, Measure

Array = npt.NDArray[np.float64]


def halves(labels_N: npt.ArrayLike, resamples: int, seed: int) -> list[npt.NDArray[np.intp]]:
    """Random halves of the examples, of each class as well.

    Args:
      labels_N: classes; of odd ones the odd example is in every other half, and a class of one
        example is in all.
      resamples: how many.
      seed: of the drawing.

    Returns:
      Indices in ascending order, an array for each half.

    >>> [half.tolist() for half in halves([0, 0, 1, 1], 2, seed=0)]
    [[1, 3], [1, 2]]
    """
    labels = np.asarray(labels_N)
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    drawn = []
    for number in range(resamples):
        parts = []
        for group in groups:
            size = max((len(group) + number % 2) // 2, 1)
            parts.append(rng.choice(group, size, replace=False))
        drawn.append(np.sort(np.concatenate(parts)))
    return drawn


def interval(value: float, halves_H: Array) -> Measure:
    """A statistic with its 95 % interval: its value, and how far halves scatter about their mean.

    Args:
      value: of all examples.
      halves_H: of each half.

    >>> interval(1.0, np.array([0.4, 0.6]))
    Measure(mean=1.0, low=0.905, high=1.095, n=2, note='')
    """
    if len(halves_H) < 2:
        return Measure(value, None, None, len(halves_H), 'no halves: no interval')
    tails = [50 - 50 * LEVEL, 50 + 50 * LEVEL]
    low, high = value + np.percentile(halves_H - halves_H.mean(), tails)
    return Measure(value, float(low), float(high), len(halves_H))


def firsts(halves_SxH: Array) -> Array:
    """(S,) the share of halves in which each source is first; ties are shared.

    >>> firsts(np.array([[1.0, 2.0], [1.0, 0.0]])).tolist()
    [0.75, 0.25]
    """
    if not halves_SxH.shape[1]:
        return np.full(len(halves_SxH), np.nan)
    best = halves_SxH == halves_SxH.max(0, keepdims=True)
    return (best / best.sum(0, keepdims=True)).mean(1)
