"""Metrics from counts, against the same metrics of all examples at once."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tljax.tasks import counts


def summed(logits, label, weight, size):
    """Sums over batches of so many examples."""
    total = {}
    for first in range(0, len(label), size):
        part = slice(first, first + size)
        found = counts.counts(*map(jnp.asarray, (logits[part], label[part], weight[part])))
        total = {name: total.get(name, 0) + np.asarray(value) for name, value in found.items()}
    return total


def drawn(classes, seed=0, count=400):
    rng = np.random.default_rng(seed)
    label = rng.choice(
        classes, count, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    )
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), label] += 1
    return logits, label


@pytest.mark.parametrize('classes', [2, 5])
@pytest.mark.parametrize('size', [400, 64])
def test_of_classes(classes, size):
    logits, label = drawn(classes)
    found = counts.metrics(summed(logits, label, np.ones(len(label)), size))
    said = logits.argmax(1)
    for name, wanted in (
        ('macro_f1', sklearn_metrics.f1_score(label, said, average='macro')),
        ('balanced_accuracy', sklearn_metrics.balanced_accuracy_score(label, said)),
    ):
        assert found[name] == pytest.approx(wanted, rel=1e-6)
    assert ('auc' in found) == (classes == 2)


@pytest.mark.parametrize('scale', [0.1, 1, 30])
def test_of_scores(scale):
    logits, label = drawn(2)
    logits *= scale
    found = counts.metrics(summed(logits, label, np.ones(len(label)), 50))
    score = logits[:, 1] - logits[:, 0]
    # Scores in one bin of 2,048 count as equal.
    assert found['auc'] == pytest.approx(sklearn_metrics.roc_auc_score(label, score), abs=3e-3)
    no, yes = np.sort(score[label == 0])[::-1], score[label == 1]
    threshold = no[int(0.01 * len(no))]  # no more than one in a hundred lies above
    assert found['recall_at_fpr'] == pytest.approx((yes > threshold).mean(), abs=0.03)


def test_examples_without_weight_count_nowhere():
    logits, label = drawn(2)
    weight = (np.arange(len(label)) % 2).astype(float)
    half = counts.metrics(summed(logits, label, weight, 100))
    assert half == counts.metrics(summed(logits[1::2], label[1::2], np.ones(200), 200))


def test_what_is_not_defined_is_left_out():
    logits, label = np.zeros((3, 2), np.float32), np.ones(3, int)
    found = counts.metrics(summed(logits, label, np.ones(3), 3))
    assert set(found) == {'balanced_accuracy', 'macro_f1'}
