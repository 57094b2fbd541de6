"""A logistic probe, judged on examples that it was not fitted to."""

import warnings

import numpy as np
import numpy.typing as npt

from tljax.ranking.reduced import components, folds, subset
from tljax.ranking.spectrum import Features, as_features, one_thread
from tljax.ranking.targets import NotDefined, Targets

FOLDS = 5
COMPONENTS = 128
MOST = 2000
STEPS = 200


def logistic_cv(
    features: npt.ArrayLike | Features, targets: Targets, most: int = FOLDS, seed: int = 0
) -> float:
    """Mean log-likelihood of held-out labels under multinomial logistic regression.

    Stone 1974, Cross-Validatory Choice and Assessment of Statistical Predictions. Stratified folds;
    scikit-learn's LogisticRegression with its default penalty on the first 128 principal components
    of all examples, divided by the deviation of the first, so that features of any scale are
    penalised alike. Labels are not seen by that. At most 200 steps, and of more than 2,000 examples
    so many are drawn.

    Args:
      features: (N, D), or `Features` of them.
      targets: classes or tokens; those with one example are left out: there is nothing to hold out
        of them.
      most: folds; as many as the smallest class has examples, but two at least.
      seed: of the draw and of the folds.

    Returns:
      Nats, 0 or less. It does not change when features are shifted, rotated or scaled.

    Raises:
      NotDefined: fewer than two classes have two examples.
      ValueError: see `Features`.

    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]]
    >>> logistic_cv(x, Targets('classes', [0, 0, 0, 1, 1, 1])) > -0.4
    True
    """
    from sklearn.linear_model import LogisticRegression

    features = as_features(features)
    rows = subset(targets, MOST, seed)
    counts_C = np.bincount(targets.present_N[rows])
    rows = rows[counts_C[targets.present_N[rows]] > 1]
    labels_N = targets.present_N[rows]
    if len(np.unique(labels_N)) < 2:
        raise NotDefined(
            'logistic_cv is not defined here: fewer than two classes have two examples to divide '
            'between folds.'
        )
    x_NxK, spectrum = np.zeros((len(rows), 1)), features.centred
    if spectrum.rank:
        x_NxK = components(features, COMPONENTS, rows)
        x_NxK = x_NxK / np.sqrt(spectrum.values_K[0] / spectrum.count)
    number = max(2, min(most, int(counts_C[counts_C > 1].min())))
    fold_N, total = folds(labels_N, number, seed), 0.0
    for fold in range(number):
        held_N = fold_N == fold
        with one_thread(), warnings.catch_warnings():
            # Of steps that end early, and of labels so many that they might be numbers.
            warnings.simplefilter('ignore', UserWarning)
            model = LogisticRegression(max_iter=STEPS).fit(x_NxK[~held_N], labels_N[~held_N])
        places = np.searchsorted(model.classes_, labels_N[held_N])
        logs = model.predict_log_proba(x_NxK[held_N])
        total += logs[np.arange(len(places)), places].sum()
    return float(total / len(rows))
