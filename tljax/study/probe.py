"""The probe jumpstart's raw material: what a linear classifier makes of frozen features."""

import warnings
from typing import Any

import jax
import numpy as np

from tljax.models import merge
from tljax.ranking.spectrum import one_thread
from tljax.study.runs import Arm
from tljax.study.statistics import Measure, interval, percentile_bootstrap
from tljax.train import step as step_lib
from tljax.train.feed import Feed

MOST, LEAST = 1000, 50  # steps of a probe
# Examples x features x classes x steps, where labels are tokens: 4 s of one core.
WORK = 3 * 10**10


def accuracies(arm: Arm, seeds: list[int]) -> list[float] | None:
    """Validation accuracy of a linear probe on each seed's untrained backbone.

    The probe is fitted to the seed's own labelled subset; see `predictions`.

    Returns:
      One accuracy a seed; None where the task has no labels, the model gives no features, or the
      data is not in memory.
    """
    if 'label' not in arm.experiment.data.example or arm.pool.resident is None:
        return None
    graph = arm.experiment.model.graph(train=False)

    @jax.jit
    def features(variables, data, indices):
        module = merge(graph, variables['params'], variables['batch_stats'])
        return module.features(arm.experiment.prepare(step_lib.gather(data, indices)))

    results = []
    for seed in seeds:
        variables = arm.variables(seed)
        train = arm.pool.of(arm.order(seed)[0])
        results.append(_probe(features, variables, train, arm.validation))
    return results


def _probe(features: Any, variables: Any, train: Feed, validation: Feed) -> float:
    labels = train.split.labels()[train.subset]
    others = _all(features, variables, validation)
    said = predictions(_all(features, variables, train), labels, others)
    return float((said == validation.split.labels()[validation.subset]).mean())


def predictions(train_NxD: np.ndarray, labels_N: np.ndarray, others_MxD: np.ndarray) -> np.ndarray:
    """(M,) what a linear probe takes other examples for.

    Logistic regression (scikit-learn, its default penalty) on features standardised by their
    training mean and deviation; `steps` of L-BFGS at most.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    most = steps(train_NxD.shape[0], train_NxD.shape[1], len(np.unique(labels_N)))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=most))
    with one_thread(), warnings.catch_warnings():
        if most < MOST:
            # Of steps that end early, and of labels so many that they might be numbers.
            warnings.simplefilter('ignore', UserWarning)
        return probe.fit(train_NxD, labels_N).predict(others_MxD)


def steps(examples: int, features: int, classes: int) -> int:
    """Steps of a linear probe at most: fewer where labels are the tokens of a vocabulary.

    >>> steps(400, 64, 10), steps(4000, 96, 900), steps(4000, 768, 1500)
    (1000, 86, 50)
    """
    return max(LEAST, min(MOST, WORK // (examples * features * classes)))


def share(right_N: np.ndarray, example_N: np.ndarray) -> Measure:
    """The share that is right, with its 95 % interval over examples.

    Args:
      right_N: whether each row is.
      example_N: the example that it belongs to: positions of one text are right together, so whole
        texts are drawn (the bootstrap of clusters; Davison and Hinkley 1997, section 3.8).
    """
    examples, place_N = np.unique(example_N, return_inverse=True)
    if len(examples) == len(right_N):
        return interval(right_N.astype(float))
    rows_M, right_M = np.bincount(place_N), np.bincount(place_N, right_N)

    def ratio(drawn: Any, axis: int) -> Any:
        right, rows = drawn.sum(axis)  # (2, resamples, M), the same texts drawn of both
        return right / rows

    low, high = percentile_bootstrap(np.stack([right_M, rows_M]), ratio, 0)
    return Measure(float(right_N.mean()), float(low), float(high), len(examples))


def _all(features: Any, variables: Any, feed: Feed) -> np.ndarray:
    batches = [
        feed.subset[first : first + feed.at_once]
        for first in range(0, len(feed.subset), feed.at_once)
    ]
    parts = [jax.device_get(features(variables, feed.resident, batch)) for batch in batches]
    return np.concatenate(parts).astype(np.float64)
