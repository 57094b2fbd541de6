"""H-score: how much of the features' variance lies between classes, in the features' own metric."""

import numpy as np
import numpy.typing as npt

from tljax.ranking.spectrum import Features, Spectrum, as_features
from tljax.ranking.targets import Targets

Array = npt.NDArray[np.float64]


def h_score(features: npt.ArrayLike | Features, targets: Targets) -> float:
    """tr(cov(f)^+ cov(E[f | y])) (Bao et al. 2019, definition 2), with the pseudo-inverse.

    With as many features as examples every label can be fitted, and the score is C - 1 whatever
    the features: `shrunk_h_score` is for that.

    Args:
      features: (N, D), or `Features` of them.
      targets: classes; those without an example don't count.

    Returns:
      From 0 to min(C - 1, rank). It does not change when features are rotated, scaled, shifted or
      mapped by any invertible matrix, as far as `spectrum.TOLERANCE` sees all their directions.

    Raises:
      ValueError: see `Features`.

    >>> x = [[0.0, 1.0], [0.0, 2.0], [1.0, 1.0], [1.0, 2.0]]
    >>> round(h_score(x, Targets('classes', [0, 0, 1, 1])), 9)
    1.0
    """
    return float(between_classes(as_features(features).centred, targets).sum())


def shrunk_h_score(features: npt.ArrayLike | Features, targets: Targets) -> float:
    """H-score with a shrunk covariance (Ibrahim et al. 2021, section 4, equation 3).

    tr(S^-1 (1 - a) cov(E[f | y])) with S = (1 - a) cov(f) + a tr(cov(f)) / D I, and the shrinkage a
    of Ledoit and Wolf 2004 (`shrinkage`). In the basis of singular vectors all are diagonal, so
    nothing D x D is inverted where there are fewer examples than features.

    Args:
      features: (N, D), or `Features` of them.
      targets: classes; those without an example don't count.

    Returns:
      From 0 to `h_score`. It does not change when features are rotated, scaled or shifted.

    Raises:
      ValueError: see `Features`.

    >>> x = [[0.0, 1.0], [0.0, 2.0], [1.0, 1.0], [1.0, 2.0]]
    >>> round(shrunk_h_score(x, Targets('classes', [0, 0, 1, 1])), 9)
    1.0
    """
    spectrum = as_features(features).centred
    if not spectrum.rank:
        return 0.0
    variances_K = spectrum.values_K / spectrum.count
    share = shrinkage(spectrum)
    own_K = (1 - share) * variances_K
    shared = share * variances_K.sum() / spectrum.width
    return float((own_K / (own_K + shared) * between_classes(spectrum, targets)).sum())


def between_classes(spectrum: Spectrum, targets: Targets) -> Array:
    """Share of each direction's variance that lies between classes, (K,), each from 0 to 1.

    u^T P u for the left singular vectors u and the projection P onto columns constant in a class.

    Args:
      spectrum: of centred features.
      targets: classes.
    """
    present_N = targets.present_N
    indicator_NxC = np.eye(present_N.max() + 1)[present_N]
    indicator_NxC /= np.sqrt(indicator_NxC.sum(0))
    return (spectrum.left(indicator_NxC) ** 2).sum(1)


def shrinkage(spectrum: Spectrum) -> float:
    """Weight of the scaled identity (Ledoit and Wolf 2004, section 3.2), between 0 and 1.

    min(1, sum_i |x_i x_i^T - cov|^2 / N^2 / |cov - m I|^2) in Frobenius norms, m = tr(cov) / D.

    Args:
      spectrum: of centred features that are not constant.
    """
    count, width = spectrum.count, spectrum.width
    variances_K = spectrum.values_K / count
    squares = float((variances_K**2).sum())
    apart = squares - variances_K.sum() ** 2 / width
    spread = float((spectrum.squared_lengths_N**2).sum()) / count - squares
    # Round features (one feature, say) are what they would be shrunk to.
    if apart <= 1e-14 * squares:
        return 0.0
    return float(np.clip(spread / count / apart, 0.0, 1.0))
