"""TransRate: how many more nats all features take than the features of each class."""

import numpy as np
import numpy.typing as npt

from tljax.ranking.spectrum import Features, as_features, gram, one_thread
from tljax.ranking.targets import Targets

Array = npt.NDArray[np.float64]


def transrate(
    features: npt.ArrayLike | Features,
    targets: Targets,
    epsilon: float = 1e-4,
    scale: bool = True,
) -> float:
    """R(Z) - sum over classes of n_c / N R(Z_c) (Huang et al. 2022, section 3, equation 4).

    R(Z) = 1/2 log det(I + Z^T Z / (N epsilon)) is the coding rate; Z is centred over all examples,
    and not again over each class's. Classes weigh by their frequency, as in the paper's equation,
    not one as much as another as in its listing. The rate depends on the features' scale, so for
    sources to be comparable Z is first scaled to a mean squared length of 1; that is a choice of
    ours.

    Args:
      features: (N, D), or `Features` of them.
      targets: classes; those without an example don't count.
      epsilon: distortion, in squared units of the (scaled) features.
      scale: whether to scale.

    Returns:
      Nats, 0 or more. It does not change when features are rotated or shifted, nor, with `scale`,
      when they are scaled.

    Raises:
      ValueError: see `Features`; `epsilon` is not positive.

    >>> x = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    >>> round(transrate(x, Targets('classes', [0, 0, 1, 1, 2, 2])), 3)
    3.81
    >>> transrate(x, Targets('classes', [0, 1, 0, 1, 0, 1]))
    0.0
    """
    if not epsilon > 0:
        raise ValueError(f'epsilon is {epsilon}, but a distortion is positive')
    features = as_features(features)
    count, labels_N = len(features), targets.present_N
    # Sum of squared lengths: the Gram matrix's trace, whichever side it is of.
    energy = float(np.trace(features.gram))
    if not energy:
        return 0.0
    unit = epsilon * (energy / count if scale else 1.0)
    with one_thread():
        rate = _rate(features.gram, count * unit)
        for label in range(labels_N.max() + 1):
            own_MxD = features.values_NxD[labels_N == label]
            share = len(own_MxD) / count
            rate -= share * _rate(gram(own_MxD, features.mean_D), len(own_MxD) * unit)
    return max(rate, 0.0)  # it is none, so anything below is rounding


def _rate(matrix: Array, unit: float) -> float:
    """1/2 log det(I + matrix / unit)."""
    from scipy import linalg

    whole = matrix / unit
    whole[np.diag_indices_from(whole)] += 1
    factor = linalg.cholesky(whole, lower=True, overwrite_a=True, check_finite=False)
    return float(np.log(np.diagonal(factor)).sum())
