"""NLEEP: LEEP with a mixture of Gaussians of the features in place of the source's classes."""

import warnings

import numpy as np
import numpy.typing as npt

from tljax.ranking.leep import leep
from tljax.ranking.reduced import components, subset
from tljax.ranking.spectrum import Features, as_features
from tljax.ranking.targets import Targets

Array = npt.NDArray[np.float64]

ENERGY = 0.8  # share of the variance that is kept
PARTS = 5  # Gaussians a class
FEWEST = 5  # examples a Gaussian; with one each every label would be told apart
EXAMPLES = 2000
WIDEST = 128
STEPS = 30


def nleep(features: npt.ArrayLike | Features, targets: Targets, seed: int = 0) -> float:
    """LEEP of the posterior of a Gaussian mixture (Li et al. 2021, section 3.2).

    As in the paper: principal components with 80 % of the variance, five Gaussians a class that
    has examples, expectation maximisation. Ours, as the paper doesn't say, or so that it takes
    seconds: at most 128 components, diagonal covariances with a floor of 1e-3 times the mean
    variance, no more Gaussians than a fifth of the examples, k-means++ centres to start from, at
    most 30 steps, and at most 2,000 examples, drawn as `reduced.subset` does.

    Args:
      features: (N, D), or `Features` of them.
      targets: classes.
      seed: of the examples and the first centres.

    Returns:
      Nats an example, from minus the entropy of the labels to 0. It does not change when features
      are rotated, scaled or shifted; the order of the examples decides what the seed draws.

    Raises:
      ValueError: see `Features`.

    >>> x = np.repeat([[0.0], [1.0]], 10, 0) + np.linspace(0, 0.1, 20)[:, None]
    >>> round(nleep(x, Targets('classes', [0] * 10 + [1] * 10)) + 1, 6)
    1.0
    """
    features = as_features(features)
    rows = subset(targets, EXAMPLES, seed)
    chosen = Targets('classes', targets.present_N[rows])
    parts = min(PARTS * int(targets.present_N.max() + 1), len(rows) // FEWEST)
    wide = kept(features)
    if parts < 2 or not wide:
        return leep(np.ones((len(rows), 1)), chosen)
    x_NxK = components(features, wide, rows)
    return leep(posterior(x_NxK / np.sqrt((x_NxK**2).mean()), parts, seed), chosen)


def kept(features: Features) -> int:
    """How many principal components have `ENERGY` of the variance between them, 128 at most."""
    values_K = features.centred.values_K
    if not len(values_K):
        return 0
    shares_K = np.cumsum(values_K) / values_K.sum()
    # Rounding must not add a component where a share is met exactly.
    return min(int((shares_K < ENERGY - 1e-9).sum()) + 1, WIDEST)


def posterior(x_NxK: Array, parts: int, seed: int) -> Array:
    """(N, parts) probabilities of the Gaussians given each example."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        parts,
        covariance_type='diag',
        reg_covar=1e-3,
        init_params='k-means++',
        max_iter=STEPS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # A mixture stopped early still tells groups apart; the number of steps is stated.
        warnings.simplefilter('ignore', ConvergenceWarning)
        mixture.fit(x_NxK)
    return mixture.predict_proba(x_NxK)
