"""Metrics of classes that are no means over examples, from counts that add up over batches.

Counts are vectors under names of `COUNTS`; `metrics` turns their sums into numbers.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

COUNTS = ('right_of_class', 'said_of_class', 'is_of_class', 'scores_of_no', 'scores_of_yes')
BINS = 2048  # of the scores from which AUC and recall are computed
FALSE_ALARMS = 0.01  # share of negatives that may be called positive, for `recall_at_fpr`


def counts(logits_BxC: jax.Array, label_B: jax.Array, weight_B: jax.Array) -> dict[str, jax.Array]:
    """What is to be added up: (C,) of classes, and of two classes (BINS,) of their scores."""
    classes = logits_BxC.shape[-1]
    is_BxC = jax.nn.one_hot(label_B, classes)
    said_BxC = jax.nn.one_hot(logits_BxC.argmax(-1), classes) * weight_B[:, None]
    found = {
        'right_of_class': (is_BxC * said_BxC).sum(0),
        'said_of_class': said_BxC.sum(0),
        'is_of_class': (is_BxC * weight_B[:, None]).sum(0),
    }
    if classes == 2:
        margin_B = logits_BxC[:, 1] - logits_BxC[:, 0]
        # Finer near the middle, but never full: softmax would put all sure answers in one bin.
        place_B = (margin_B / (1 + jnp.abs(margin_B)) + 1) * (BINS / 2)
        bin_B = jnp.clip(place_B.astype(jnp.int32), 0, BINS - 1)
        at_BxK = jax.nn.one_hot(bin_B, BINS)
        for name, column in (('scores_of_no', 0), ('scores_of_yes', 1)):
            found[name] = (is_BxC[:, column] * weight_B) @ at_BxK
    return found


def metrics(sums: Mapping[str, Any]) -> dict[str, float]:
    """Metrics from the sums of `counts`; {} without any.

    'balanced_accuracy' is the mean of the classes' recalls, 'macro_f1' the mean of their F1 (of
    classes that occur or are said). Of two classes, the second being positive: 'auc', the chance
    that a positive scores above a negative, and 'recall_at_fpr', the share of positives found
    where at most `FALSE_ALARMS` of the negatives are taken for positive; scores in one of `BINS`
    bins count as equal. What is not defined, since a class does not occur, is left out.

    >>> label, logits = jnp.array([0, 1, 1]), jnp.array([[2.0, 0], [0, 1], [1, 0]])
    >>> metrics(counts(logits, label, jnp.ones(3)))
    {'balanced_accuracy': 0.75, 'macro_f1': 0.666..., 'auc': 1.0, 'recall_at_fpr': 1.0}
    """
    if 'is_of_class' not in sums:
        return {}
    right_C, said_C, is_C = (np.asarray(sums[name], np.float64) for name in COUNTS[:3])
    both_C = said_C + is_C
    f1_C = 2 * right_C[both_C > 0] / both_C[both_C > 0]
    found = {
        'balanced_accuracy': mean(right_C[is_C > 0] / is_C[is_C > 0]),
        'macro_f1': mean(f1_C),
    }
    if 'scores_of_no' in sums:
        no_K, yes_K = (np.asarray(sums[name], np.float64) for name in COUNTS[3:])
        found |= {'auc': auc(no_K, yes_K), 'recall_at_fpr': recall(no_K, yes_K, FALSE_ALARMS)}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float('nan')


def auc(no_K: np.ndarray, yes_K: np.ndarray) -> float:
    """Area under the ROC curve from numbers of negatives and positives by rising score.

    >>> auc(np.array([2.0, 0, 1]), np.array([0.0, 0, 3]))
    0.833...
    """
    pairs = no_K.sum() * yes_K.sum()
    if not pairs:
        return float('nan')
    below_K = np.cumsum(no_K) - no_K
    return float((yes_K * (below_K + no_K / 2)).sum() / pairs)


def recall(no_K: np.ndarray, yes_K: np.ndarray, false_alarms: float) -> float:
    """Share of positives above the lowest threshold that so few negatives are above.

    >>> recall(np.array([98.0, 2, 1]), np.array([1.0, 1, 2]), 0.01)
    0.5
    """
    if not no_K.sum() or not yes_K.sum():
        return float('nan')
    above_K = np.cumsum(no_K[::-1]) <= false_alarms * no_K.sum() + 1e-9
    return float(yes_K[::-1][above_K].sum() / yes_K.sum())
