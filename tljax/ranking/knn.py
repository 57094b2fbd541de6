"""The nearest neighbours' labels, each example left out in its turn."""

import numpy as np
import numpy.typing as npt

from tljax.ranking.reduced import subset
from tljax.ranking.spectrum import Features, as_features
from tljax.ranking.targets import Targets

NEIGHBOURS = 5
MOST = 5000
BLOCK = 500  # examples whose distances are held at a time


def knn(
    features: npt.ArrayLike | Features,
    targets: Targets,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> float:
    """Leave-one-out accuracy of the k nearest neighbours.

    Cover and Hart 1967, Nearest Neighbor Pattern Classification; as a score of representations
    Meiseles and Rokach 2020, Source Model Selection for Deep Learning in the Time Series Domain.
    Euclidean distance; each of the k has one vote, and of classes with as many votes that of the
    nearest neighbour among them wins. Of more than 5,000 examples so many are drawn.

    Args:
      features: (N, D), or `Features` of them.
      targets: classes or tokens.
      neighbours: k, at most N - 1 of them.
      seed: of the draw.

    Returns:
      0 to 1. It does not change when features are shifted, rotated or scaled.

    Raises:
      ValueError: see `Features`; `neighbours` is below 1.

    >>> knn([[0.0], [0.1], [0.2], [5.0], [5.1]], Targets('classes', [0, 0, 0, 1, 1]), neighbours=1)
    1.0
    """
    if neighbours < 1:
        raise ValueError(f'neighbours is {neighbours}; it takes 1 or more')
    features = as_features(features)
    rows = subset(targets, MOST, seed)
    labels_N = targets.present_N[rows]
    # Less the mean: distances by products lose digits far from the origin.
    x_NxD = features.values_NxD[rows].astype(np.float64, copy=False)
    x_NxD -= features.mean_D
    square_N = np.einsum('nd,nd->n', x_NxD, x_NxD)
    k, right = min(neighbours, len(rows) - 1), 0
    for first in range(0, len(rows), BLOCK):
        own = np.arange(first, min(first + BLOCK, len(rows)))
        far_MxN = square_N - 2 * (x_NxD[own] @ x_NxD.T)
        far_MxN[np.arange(len(own)), own] = np.inf
        right += sum(
            vote(labels_N[nearest(far_N, k)]) == labels_N[i]
            for i, far_N in zip(own, far_MxN, strict=True)
        )
    return float(right) / len(rows)


def nearest(far_N: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.intp]:
    """Indices of the k least, the least first; of equals the one that comes first.

    >>> nearest(np.array([2.0, 1.0, 2.0, 0.0]), 3)
    array([3, 1, 0])
    """
    within = np.flatnonzero(far_N <= np.partition(far_N, k - 1)[k - 1])
    return within[np.argsort(far_N[within], kind='stable')[:k]]


def vote(labels_k: npt.NDArray[np.integer]) -> int:
    """The label with most votes; of equals the one that comes first.

    >>> vote(np.array([2, 1, 1, 2, 0]))
    2
    """
    counts = np.bincount(labels_k)
    return int(labels_k[np.argmax(counts[labels_k])])
