"""Ridge regression judged by leaving out each example in turn, in closed form."""

import numpy as np
import numpy.typing as npt

from tljax.ranking.spectrum import Features, Spectrum, as_features
from tljax.ranking.targets import Targets

Array = npt.NDArray[np.float64]

# In units of the mean squared singular value.
STRENGTHS = tuple(10.0**power for power in range(-4, 4))


def ridge_loo(features: npt.ArrayLike | Features, targets: Targets) -> float:
    """Accuracy, or R^2, of ridge regressions fitted to all examples but the one predicted.

    The prediction without example i leaves the residual e_i / (1 - h_ii) of the one with it (Allen
    1974; Golub, Heath and Wahba 1979, equation 1.4), h the hat matrix 1 1^T / N + U diag(s^2 / (s^2
    + t)) U^T of centred features. The intercept is not penalised and, as all else, fitted
    anew without example i. Of eight strengths t, 1e-4 to 1e3 times the mean squared singular value,
    the one whose left-out residuals have the least sum of squares is taken for all columns.

    Where features say nothing, an example is predicted from the others' frequencies, in which its
    own class is the rarer for its absence: accuracy can then be below chance, down to 0. The
    only example of a class, as many a token is, is never predicted right.

    Args:
      features: (N, D), or `Features` of them.
      targets: classes or tokens (one-hot regression, the largest output taken), regression or
        multilabel; columns that never vary are left out.

    Returns:
      Accuracy for classes and tokens; else the mean over columns of
      1 - sum e_i^2 / sum (y_i - mean)^2 with the left-out residuals e. It does not change when
      features are rotated, scaled or shifted.

    Raises:
      ValueError: see `Features`.

    >>> x = [[0.0], [0.1], [1.0], [1.1]]
    >>> round(ridge_loo(x, Targets('regression', [0.0, 0.1, 1.0, 1.1])), 6)
    1.0
    >>> ridge_loo(x, Targets('classes', [0, 0, 1, 1]))
    1.0
    """
    columns_NxC = targets.columns()
    y_NxC = columns_NxC - columns_NxC.mean(0)
    labels_N = None
    if targets.categorical:
        labels_N = targets.present_N
    else:
        y_NxC /= y_NxC.std(0)  # so that each column has the same say in the strength
    left_out_SxC, hits_S = _left_out(as_features(features).centred, y_NxC, labels_N)
    best = int(left_out_SxC.sum(1).argmin())
    if labels_N is not None:
        return float(hits_S[best] / len(labels_N))
    return float((1 - left_out_SxC[best] / (y_NxC**2).sum(0)).mean())


def _left_out(
    spectrum: Spectrum, y_NxC: Array, labels_N: npt.NDArray[np.int64] | None
) -> tuple[Array, Array]:
    """Sums of squared left-out residuals by strength and column, and hits by strength."""
    values_K = spectrum.values_K
    mean = values_K.mean() if spectrum.rank else 1.0
    kept_KxS = values_K[:, None] / (values_K[:, None] + mean * np.array(STRENGTHS))
    z_KxC = spectrum.left(y_NxC)
    sums_SxC, hits_S = np.zeros((len(STRENGTHS), y_NxC.shape[1])), np.zeros(len(STRENGTHS))
    for rows, left_RxK in spectrum.left_blocks():
        rest_RxS = 1 - 1 / spectrum.count - left_RxK**2 @ kept_KxS
        for s in range(len(STRENGTHS)):
            fitted_RxC = left_RxK @ (kept_KxS[:, s : s + 1] * z_KxC)
            residuals_RxC = (y_NxC[rows] - fitted_RxC) / rest_RxS[:, s : s + 1]
            sums_SxC[s] += (residuals_RxC**2).sum(0)
            if labels_N is not None:
                own_RxC = np.arange(y_NxC.shape[1]) == labels_N[rows, None]
                hits_S[s] += ((own_RxC - residuals_RxC).argmax(1) == labels_N[rows]).sum()
    return sums_SxC, hits_S
