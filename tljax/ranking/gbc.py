"""GBC: how little the classes' Gaussians overlap."""

import numpy as np
import numpy.typing as npt

from tljax.ranking.spectrum import Features, as_features
from tljax.ranking.targets import Targets

COMPONENTS = 64
FLOOR = 1e-6  # least variance, as a share of the largest component's


def gbc(
    features: npt.ArrayLike | Features, targets: Targets, components: int = COMPONENTS
) -> float:
    """Minus the sum of Bhattacharyya coefficients of all ordered pairs of classes.

    Pandy et al. 2022, Transferability Estimation using Bhattacharyya Class Separability, section
    3.2, equations 2 to 5, with diagonal covariances. As the paper does, features are first brought
    to 64 principal components: without that, noise in 2048 dimensions sets small classes apart.
    Ours: a class of one example has the mean variance of the others, and no variance is below 1e-6
    of the first component's, so that a class whose examples are equal overlaps with itself.

    Args:
      features: (N, D), or `Features` of them.
      targets: classes; those without an example don't count.
      components: of the principal component analysis.

    Returns:
      0 where classes don't overlap, and less where they do; -C (C - 1) where all are the same. It
      does not change when features are shifted, rotated or scaled.

    Raises:
      ValueError: see `Features`.

    >>> round(gbc([[0.0], [0.1], [9.0], [9.1]], Targets('classes', [0, 0, 1, 1])) + 1, 3)
    1.0
    >>> gbc([[0.0], [1.0], [0.0], [1.0]], Targets('classes', [0, 0, 1, 1]))
    -2.0
    """
    spectrum, labels_N = as_features(features).centred, targets.present_N
    classes = labels_N.max() + 1
    if not spectrum.rank:
        return -float(classes * (classes - 1))
    x_NxK = spectrum.components(components)
    counts_C = np.bincount(labels_N)
    mean_CxK = np.stack([x_NxK[labels_N == label].mean(0) for label in range(classes)])
    variance_CxK = np.stack([x_NxK[labels_N == label].var(0) for label in range(classes)])
    several = counts_C > 1
    if several.any():
        variance_CxK[~several] = variance_CxK[several].mean(0, keepdims=True)
    variance_CxK = np.maximum(variance_CxK, FLOOR * spectrum.values_K[0] / spectrum.count)
    total = 0.0
    for one in range(classes):
        pair_CxK = (variance_CxK[one] + variance_CxK) / 2
        apart_C = ((mean_CxK[one] - mean_CxK) ** 2 / pair_CxK).sum(1) / 8
        logs_CxK = np.log(pair_CxK) - (np.log(variance_CxK[one]) + np.log(variance_CxK)) / 2
        coefficient_C = np.exp(-(apart_C + logs_CxK.sum(1) / 2))
        total += coefficient_C.sum() - coefficient_C[one]
    return -float(total)
