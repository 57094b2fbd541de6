"""The probe jumpstart's raw material: what a linear classifier makes of frozen features."""

from typing import Any

import jax
import numpy as np

from tljax.models import merge
from tljax.study.runs import Arm
from tljax.train import step as step_lib
from tljax.train.feed import EVAL_BATCH, Feed


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
    training mean and deviation.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return probe.fit(train_NxD, labels_N).predict(others_MxD)


def _all(features: Any, variables: Any, feed: Feed) -> np.ndarray:
    parts = [
        jax.device_get(features(variables, feed.resident, feed.subset[first : first + EVAL_BATCH]))
        for first in range(0, len(feed.subset), EVAL_BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)
