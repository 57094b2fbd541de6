"""Classification: loss, sums that add up over batches, and predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.config import default
from tljax.errors import UserError
from tljax.tasks import Target, counts, create
from tljax.tasks.classification import Classification

LOGITS = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]], np.float32)
TASK = Classification(('a', 'b', 'c'))


def model(batch, rngs=None):
    return jnp.asarray(batch['logits'])


def test_loss_is_the_mean_cross_entropy(key):
    batch = {'logits': LOGITS, 'label': np.array([0, 1, 0])}
    loss, aux = TASK.loss(model, batch, key)
    # By hand: log of the softmax's denominator less the label's logit.
    by_hand = [np.log(np.exp(2) + 2) - 2, np.log(np.e + 2) - 1, np.log(np.exp(3) + 2) - 0]
    assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-6)
    assert float(aux['accuracy']) == pytest.approx(2 / 3)


def test_label_smoothing(key):
    smooth = Classification(('a', 'b', 'c'), label_smoothing=0.3)
    batch = {'logits': LOGITS[:1], 'label': np.array([0])}
    log_probabilities = LOGITS[0] - np.log(np.exp(LOGITS[0]).sum())
    by_hand = -(np.array([0.8, 0.1, 0.1]) * log_probabilities).sum()
    assert float(smooth.loss(model, batch, key)[0]) == pytest.approx(by_hand, rel=1e-6)


def test_sums_leave_padding_out_and_add_up():
    batch = {'logits': LOGITS, 'label': np.array([0, 1, 0]), 'weight': np.array([1.0, 1.0, 0.0])}
    assert TASK.metrics(TASK.sums(model, batch))['accuracy'] == 1.0
    parts = [TASK.sums(model, {k: v[rows] for k, v in batch.items()}) for rows in ([0], [1, 2])]
    whole = TASK.sums(model, batch)
    together = jax.tree.map(jnp.add, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, together)


def test_describe_names_the_likeliest_class():
    predictions = jax.device_get(TASK.predict(model, {'logits': LOGITS}))
    assert TASK.describe(predictions, 2)['label'] == 'c'
    assert TASK.describe(predictions, 2)['probability'] == pytest.approx(
        np.exp(3) / (np.exp(3) + 2), rel=1e-6
    )


def test_chance_and_wrong_tasks():
    assert TASK.chance == pytest.approx(1 / 3)
    assert TASK.outputs == 3
    with pytest.raises(UserError, match='two classes'):
        Classification(('only',))
    with pytest.raises(UserError, match=r'no labels.*config\.data\.label'):
        Classification(())
    with pytest.raises(UserError, match="Did you mean 'classification'"):
        create({**default().task, 'name': 'clasification'}, Target(('a', 'b')))


def test_classes_weigh_alike_however_rare(key):
    counts = (6, 2, 1)
    rows = np.repeat([0, 1, 2], counts)
    section = {**default().task, 'balance': 'loss'}
    balanced = create(section, Target(('a', 'b', 'c'), counts=lambda: counts))
    batch = {'logits': LOGITS[rows], 'label': rows}
    of_class = [
        float(TASK.loss(model, {'logits': LOGITS[[c]], 'label': np.array([c])}, key)[0])
        for c in range(3)
    ]
    assert float(balanced.loss(model, batch, key)[0]) == pytest.approx(np.mean(of_class), rel=1e-5)
    weighted = {**batch, 'weight': np.ones(9)}
    whole, plain = balanced.sums(model, weighted), TASK.sums(model, weighted)
    assert whole['loss'] == plain['loss']  # metrics weigh examples alike, whatever the loss does


def test_a_class_without_examples_weighs_nothing():
    task = Classification(('a', 'b'), counts=(4, 0))
    assert task.weights().tolist() == [0.5, 0.0]


@pytest.mark.parametrize('metric', ['auc', 'recall_at_fpr'])
def test_a_metric_of_examples_of_one_class_says_what_is_missing(metric):
    task = Classification(('ham', 'spam'), metric=metric)
    sums = counts.counts(jnp.array([[1.0, 0], [0, 1]]), jnp.array([0, 0]), jnp.ones(2))
    with pytest.raises(UserError, match=rf'config\.task\.metric is .{metric}.*of the class spam:'):
        task.metrics({**sums, 'loss': 1.0, 'accuracy': 1.0, 'weight': 2.0})
