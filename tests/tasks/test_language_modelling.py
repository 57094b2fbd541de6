"""The next word: metrics by word, and no look into another document."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax import models
from tljax.config import default
from tljax.data.text import tokenizer as tokenizers
from tljax.data.text.packing import PackedForm
from tljax.errors import UserError
from tljax.tasks.base import Target, create
from tljax.tasks.language_modelling import LanguageModelling

TEXTS = ['the cat sat on the mat', 'a dog and a cat', 'the mat of the dog, and the hat']
TOKENIZER = tokenizers.trained(TEXTS * 3, 275)
SIZE = TOKENIZER.vocabulary
TASK = LanguageModelling(SIZE, metric='perplexity')


def batch_of(texts, length):
    packed = PackedForm(TOKENIZER, length).packed(texts)
    return {**packed, 'weight': np.ones(len(packed['tokens']), np.float32)}


@functools.cache
def gpt2():
    config = dict(name='gpt2', width=16, layers=2, heads=4, vocabulary=SIZE, positions=64)
    example = {name: jax.ShapeDtypeStruct((8,), np.int32) for name in ('tokens', 'segments')}
    model = models.build(config, example, SIZE)
    params = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape) * 0.3,
        model.shapes()['params'],
    )
    return models.merge(model.graph(train=False), params, {})


def test_a_packed_document_is_read_as_if_it_stood_alone():
    together = batch_of(TEXTS, 64)
    assert len(together['tokens']) == 1, 'all three in one sequence'
    logits = gpt2()(together)[0]
    for n, text in enumerate(TEXTS, 1):
        alone = batch_of([text], 64)
        own = alone['segments'][0] == 1
        np.testing.assert_allclose(
            logits[together['segments'][0] == n], gpt2()(alone)[0][own], rtol=2e-4, atol=2e-4
        )


def test_without_segments_a_document_would_see_the_one_before():
    together = batch_of(TEXTS, 64)
    blind = {name: together[name] for name in ('tokens', 'positions')}
    second = together['segments'][0] == 2
    assert np.abs(gpt2()(together)[0] - gpt2()(blind)[0])[second].max() > 1e-2


def test_metrics_do_not_depend_on_packing():
    def metrics(length):
        return TASK.metrics(TASK.sums(gpt2(), batch_of(TEXTS, length)))

    one, other = metrics(64), metrics(18)
    assert len(batch_of(TEXTS, 18)['tokens']) > 1
    assert one == pytest.approx(other, rel=1e-4)


def test_metrics_against_words_one_by_one():
    batch = batch_of(TEXTS, 64)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*batch['tokens'].shape, SIZE)).astype(np.float32)
    # Some tokens are foreseen, so that some words are, and some only half.
    for at in range(0, 40, 3):
        logits[0, at : at + 2, :] -= 3 * np.eye(SIZE)[batch['tokens'][0, at + 1 : at + 3]] - 3
        logits[0, at, batch['tokens'][0, at + 1]] += 9
    found = TASK.metrics(TASK.sums(lambda _: jnp.asarray(logits), batch))
    loss, by_word = 0.0, {}
    for at in range(1, 64):
        if batch['segments'][0, at] and batch['segments'][0, at] == batch['segments'][0, at - 1]:
            row, token = logits[0, at - 1].astype(np.float64), batch['tokens'][0, at]
            loss += np.log(np.exp(row).sum()) - row[token]
            word = batch['words'][0, at]
            by_word.setdefault(word, []).append(int((row > row[token]).sum()))
    by_word.pop(0, None)
    words = sum(len(text.split()) for text in TEXTS)
    assert len(by_word) == words
    assert found['perplexity'] == pytest.approx(np.exp(loss / words), rel=1e-4)
    assert found['log_perplexity'] == pytest.approx(loss / words, rel=1e-5)
    first = [all(rank < 1 for rank in ranks) for ranks in by_word.values()]
    top5 = [all(rank < 5 for rank in ranks) for ranks in by_word.values()]
    assert 0 < sum(first) < words
    assert found['accuracy'] == pytest.approx(np.mean(first))
    assert found['top5'] == pytest.approx(np.mean(top5))


def test_the_loss_is_a_mean_over_tokens(key):
    batch = batch_of(TEXTS, 64)
    uniform = lambda batch, rngs=None: jnp.zeros((*batch['tokens'].shape, SIZE))  # noqa: E731
    loss, metrics = TASK.loss(uniform, batch, key)
    assert float(loss) == pytest.approx(np.log(SIZE), rel=1e-5)
    assert set(metrics) == {'token_accuracy'}


def test_a_set_of_no_words_and_wrong_metrics_are_refused():
    with pytest.raises(UserError, match='no text without labels'):
        create({**default().task, 'name': 'language_modelling'}, Target(('a', 'b')))
    with pytest.raises(UserError, match=r"metric is 'auc'.*perplexity"):
        LanguageModelling(9, metric='auc')
    assert not TASK.higher_is_better
    assert not LanguageModelling(9, metric='log_perplexity').higher_is_better
    assert LanguageModelling(9).higher_is_better


@pytest.mark.parametrize(
    ('metric', 'chance', 'ceiling'),
    [('log_perplexity', 2 * np.log(9), 0), ('perplexity', 81, 1), ('accuracy', 1 / 81, 1)],
)
def test_chance_is_that_of_words_of_so_many_tokens(metric, chance, ceiling):
    section = {**default().task, 'name': 'language_modelling', 'metric': metric}
    task = create(section, Target((), {'words': None}, 9, tokens_per_word=lambda: 2.0))
    assert task.chance == pytest.approx(chance)
    assert task.ceiling == ceiling


def test_a_model_that_guesses_is_at_chance():
    batch = batch_of(TEXTS, 64)
    uniform = lambda batch: jnp.zeros((*batch['tokens'].shape, SIZE))  # noqa: E731
    words = batch['words']
    mean = (words > 0).sum() / words.max(1).sum()
    task = LanguageModelling(SIZE, metric='log_perplexity', tokens_per_word=mean)
    assert task.metrics(task.sums(uniform, batch))['log_perplexity'] == pytest.approx(
        task.chance, rel=0.15
    )
