"""PARC: whether examples that are far apart for the source have other labels."""

import numpy as np
import numpy.typing as npt

from tljax.ranking.reduced import components as components_of
from tljax.ranking.reduced import subset
from tljax.ranking.spectrum import Features, as_features
from tljax.ranking.targets import Targets

Array = npt.NDArray[np.float64]
COMPONENTS = 32
MOST = 2000


def parc(
    features: npt.ArrayLike | Features,
    targets: Targets,
    components: int = COMPONENTS,
    seed: int = 0,
) -> float:
    """Spearman's correlation between distances of features and distances of labels.

    Bolya, Mittapalli and Hoffman 2021, Scalable Diverse Model Selection for Accessible Transfer
    Learning, section 3.2: distances are 1 - Pearson's correlation between two examples' features,
    and between their one-hot labels, over all pairs of examples; features are first brought to 32
    principal components (section 4.2). Behind these the correlation is taken about 0, the mean of
    all examples: about each example's own mean it would depend on the components' signs, which
    are arbitrary. Of more than 2,000 examples so many are drawn, of every
    class its share: there are half a million pairs for each thousand.

    Args:
      features: (N, D), or `Features` of them.
      targets: classes or tokens.
      components: of the principal component analysis; 0 leaves features as they are.
      seed: of the draw.

    Returns:
      100 times the correlation, -100 to 100; 0 where all distances are the same.

    Raises:
      ValueError: see `Features`.

    >>> x = [[0.0, 1.0, 0.0], [0.0, 1.1, 0.0], [1.0, 0.0, 0.0], [1.1, 0.0, 0.0]]
    >>> round(parc(x, Targets('classes', [0, 0, 1, 1]), components=0), 1)
    100.0
    """
    from scipy.stats import rankdata

    features, labels_N = as_features(features), targets.present_N
    rows = subset(targets, MOST, seed)
    if components:
        if not features.centred.rank:
            return 0.0
        x_NxK = components_of(features, components, rows)
    else:
        x_NxK = np.asarray(features.values_NxD, np.float64)[rows]
    above = np.triu_indices(len(rows), 1)
    far = 1 - correlations(x_NxK, about_zero=components > 0)[above]
    other = (labels_N[rows][:, None] != labels_N[rows])[above]
    if np.ptp(far) < 1e-12 or not other.any() or other.all():
        return 0.0
    # Ranks of two values are these values on another scale, which correlation doesn't see.
    return 100 * float(np.corrcoef(rankdata(far), other)[0, 1])


def correlations(x_NxK: Array, about_zero: bool) -> Array:
    """The correlation of every pair of rows, (N, N); 0 of a row that is constant.

    Args:
      x_NxK: rows.
      about_zero: rather than about each row's mean, as Pearson's is.
    """
    centred = x_NxK if about_zero else x_NxK - x_NxK.mean(1, keepdims=True)
    length = np.sqrt((centred**2).sum(1, keepdims=True))
    size = np.abs(x_NxK).max(1, keepdims=True)
    flat = length <= 1e-12 * size * np.sqrt(x_NxK.shape[1])
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=~flat)
    return unit @ unit.T
