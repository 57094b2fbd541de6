"""Fewer features and fewer examples, for scores whose cost is not linear in them."""

import numpy as np
import numpy.typing as npt

from tljax.ranking.spectrum import Features
from tljax.ranking.targets import Targets

Array = npt.NDArray[np.float64]


def subset(targets: Targets, most: int, seed: int) -> npt.NDArray[np.intp]:
    """Indices of at most so many examples, ascending; all of them where there are no more.

    Classes keep their shares, within one example each (systematic sampling within classes, Cochran
    1977, section 5A.11); other targets are drawn at random.

    Args:
      targets: of N examples.
      most: how many.
      seed: of the drawing.

    >>> subset(Targets('classes', [0, 0, 0, 0, 1, 1]), 3, seed=0).tolist()
    [2, 3, 5]
    """
    count = len(targets)
    if count <= most:
        return np.arange(count)
    rng = np.random.default_rng(seed)
    order_N = rng.permutation(count)
    if not targets.categorical:
        return np.sort(order_N[:most])
    labels_N = targets.present_N[order_N]
    sizes_C = np.bincount(labels_N)
    # An example's place among those of its class, from 0 to 1.
    place_N = (_numbered(labels_N) + rng.random(len(sizes_C))[labels_N]) / sizes_C[labels_N]
    return np.sort(order_N[np.argsort(place_N, kind='stable')[:most]])


def _numbered(labels_N: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """How many examples of its class come before each."""
    order_N = np.argsort(labels_N, kind='stable')
    sizes_C = np.bincount(labels_N)
    firsts_C = np.cumsum(sizes_C) - sizes_C
    numbers_N = np.empty(len(labels_N), np.intp)
    numbers_N[order_N] = np.arange(len(labels_N)) - firsts_C[labels_N[order_N]]
    return numbers_N


def folds(labels_N: npt.NDArray[np.integer], count: int, seed: int) -> npt.NDArray[np.intp]:
    """A fold for each example, so that folds, and each class over them, differ by one at most.

    Args:
      labels_N: integers from 0.
      count: of folds.
      seed: of the drawing.

    >>> folds(np.array([0, 0, 0, 0, 1, 1]), 2, seed=0).tolist()
    [0, 1, 1, 0, 1, 0]
    """
    order_N = np.random.default_rng(seed).permutation(len(labels_N))
    # Dealt class by class, each going on where the one before it ended.
    by_class_N = order_N[np.argsort(labels_N[order_N], kind='stable')]
    out_N = np.empty(len(labels_N), np.intp)
    out_N[by_class_N] = np.arange(len(labels_N)) % count
    return out_N


def components(
    features: Features, most: int, rows: npt.NDArray[np.intp] | slice = slice(None)
) -> Array:
    """The first principal components of some examples, (rows, min(most, K)).

    The analysis is of all examples. Each component's sign is arbitrary.

    Args:
      features: of N examples.
      most: how many components.
      rows: which examples.

    >>> np.abs(components(Features([[0.0, 1.0], [2.0, 1.0]]), 3))
    array([[1.],
           [1.]])
    """
    spectrum = features.centred
    k = min(most, spectrum.rank)
    if isinstance(rows, slice) and rows == slice(None):
        return spectrum.components(k)
    if spectrum.dual:
        return spectrum.vectors[rows, :k] * np.sqrt(spectrum.values_K[:k])
    return (features.values_NxD[rows] - spectrum.mean_D) @ spectrum.vectors[:, :k]
