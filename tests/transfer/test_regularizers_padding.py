"""Regularisers on texts: padding, and what no loss looks at, count for nothing."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from tljax import models, trees
from tljax.models import merge
from tljax.tasks.classification import Classification
from tljax.tasks.language_modelling import LanguageModelling
from tljax.train.experiment import flat_variables
from tljax.transfer import peft, regularizers
from tljax.transfer.regularizers import hooks, objective
from tljax.transfer.regularizers.base import Pass, View

RNG = np.random.default_rng(0)
VOCABULARY, SOURCE_OUTPUTS, WIDTH, SHORT, LONG = 20, 5, 8, 16, 24
SIZES = dict(width=WIDTH, layers=2, heads=2, hidden=12, vocabulary=VOCABULARY, positions=LONG)
TERMS = ("delta(alpha=1.0, attention='none')", 'bss(eta=1.0)', 'lwf', 'r_drop')
LENGTHS = np.array([16, 9, 5, 12])  # of the texts


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def texts(columns, length):
    """Four texts, padded to a length; where the next word is learnt the third is two documents."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(1, VOCABULARY, (4, LONG))
    real = np.arange(LONG) < LENGTHS[:, None]
    segments = real * np.array([[1], [1], [1], [1]])
    segments[2, 3:5] = 2
    positions = np.tile(np.arange(LONG), (4, 1))
    positions[2, 3:5] = (0, 1)
    columns_of = {'tokens': tokens * real, 'mask': real, 'segments': segments}
    columns_of['positions'] = positions * real
    return {name: columns_of[name][:, :length].astype(np.int32) for name in columns}


CASES = {
    'the class, by the mean': (
        dict(name='bert', types=0, pool='mean', **SIZES),
        Classification(('a', 'b', 'c')),
        ('tokens', 'mask'),
        (*TERMS, 'co_tuning'),
    ),
    'the next word': (
        dict(name='gpt2', tied=False, **SIZES),
        LanguageModelling(VOCABULARY),
        ('tokens', 'segments', 'positions'),
        TERMS,
    ),
}


def made(case, length, inject=None):
    """What an experiment has of it: its outfit, variables away from the source's, and a batch."""
    recipe, task, columns, terms = CASES[case]
    batch = texts(columns, length)
    example = {k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in batch.items()}
    if hasattr(task, 'targets'):
        batch['label'] = np.array([0, 1, 2, 1], np.int32)
        example['label'] = jax.ShapeDtypeStruct((), np.int32)
    model = models.build(recipe, example, task.outputs, inject)
    source = models.build(recipe, example, SOURCE_OUTPUTS)
    leaves = flat_variables(small_models.scattered(source, 7))
    config = SimpleNamespace(model=recipe, transfer=SimpleNamespace(regularize=terms, rename=()))
    found = regularizers.outfit(config, model, task, example, leaves, {})
    return found, task, small_models.scattered(found.model, 3)['params'], batch


def noisy(size):
    """What stands in for dropout, whose draws depend on the length: other noise in every row."""
    noise = 0.3 * np.random.default_rng(5).normal(size=(size, LONG, WIDTH)).astype(np.float32)
    return lambda call, x, rngs=None: call(x, rngs=rngs) + noise[:, : x.shape[1]]


def values_and_gradients(case, length):
    """Name of each term -> its value, and its gradient by path."""
    found, task, params, batch = made(case, length)
    reference = {**found.reference, 'relation': jnp.ones((3, SOURCE_OUTPUTS)) / SOURCE_OUTPUTS}
    reference = jax.tree.map(jnp.asarray, reference)
    loss_of = regularizers.make(task, found.setting)
    graph = found.model.graph(train=False)
    names = tuple(text.partition('(')[0] for text in CASES[case][3])

    def values(params):
        module = merge(graph, params, {})
        with hooks.hooked(module, {'backbone/dropout': [noisy(8)]}):
            loss, aux = loss_of(module, batch, jax.random.key(0), reference)
        return jnp.stack([{**aux, 'loss': loss}[name] for name in (*names, 'loss')])

    @jax.jit
    def both(params):
        numbers, pull = jax.vjp(values, params)
        return numbers, jax.vmap(lambda one: pull(one)[0])(jnp.eye(len(numbers)))

    numbers, gradients = both(params)
    flat = trees.flatten(jax.device_get(gradients))
    return {
        name: (float(numbers[n]), {path: leaf[n] for path, leaf in flat.items()})
        for n, name in enumerate((*names, 'loss'))
    }


@pytest.mark.parametrize('case', CASES)
def test_more_padding_changes_neither_values_nor_gradients(case):
    short, long = (values_and_gradients(case, length) for length in (SHORT, LONG))
    for name, (value, gradients) in short.items():
        assert value > 0, name
        np.testing.assert_allclose(long[name][0], value, rtol=1e-4, err_msg=name)
        largest = max(float(np.abs(leaf).max()) for leaf in gradients.values())
        assert largest > 0, name
        for path, leaf in gradients.items():
            np.testing.assert_allclose(
                long[name][1][path], leaf, rtol=1e-3, atol=1e-4 * largest, err_msg=f'{name} {path}'
            )


# By hand


REAL = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], np.float32)


def passed(maps=(), logits=None, real=REAL):
    maps = tuple(map(jnp.asarray, maps))
    return Pass(logits if logits is None else jnp.asarray(logits), None, maps, real)


def value(text, **parts):
    given = dict(model=None, twin=None, source=None, source_logits=None, targets=None, measured={})
    (regularizer,) = regularizers.parse([text])
    return regularizer.term(View(**{**given, **parts}))


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_r_drop_is_the_mean_over_what_the_loss_looks_at():
    one, other = normal(2, 4, 3), normal(2, 4, 3)
    a, b = log_softmax(one), log_softmax(other)
    divergences = [
        sum(np.exp(p[k]) @ (p[k] - q[k]) for p, q in ((a, b), (b, a))) / 2
        for k in ((0, 0), (0, 1), (0, 2), (1, 0))
    ]
    found = value('r_drop(alpha=3)', model=passed(logits=one), twin=jnp.asarray(other), scored=REAL)
    np.testing.assert_allclose(found, 3 / 2 * np.mean(divergences), rtol=1e-5)


def test_lwf_is_the_mean_over_what_the_loss_looks_at():
    own, source = normal(2, 4, 5), normal(2, 4, 5)
    wanted, said = np.exp(log_softmax(source / 2)), log_softmax(own / 2)
    rows = [-wanted[k] @ said[k] for k in ((0, 0), (0, 1), (0, 2), (1, 0))]
    found = value('lwf', source=passed(logits=source), source_logits=jnp.asarray(own), scored=REAL)
    np.testing.assert_allclose(found, np.mean(rows), rtol=1e-5)


def test_delta_is_the_mean_over_the_real_positions_of_each_example():
    own, source, pooled, pooled_source = (
        normal(2, 4, 6),
        normal(2, 4, 6),
        normal(2, 6),
        normal(2, 6),
    )
    squares = (own.astype(np.float64) - source) ** 2
    of_maps = (squares[0, :3].sum() / 3 + squares[1, 0].sum()) / 2 / 2
    of_pooled = ((pooled - pooled_source) ** 2).sum() / 2 / 2  # a text as a whole has no padding
    found = value(
        "delta(alpha=0.2, attention='none')",
        model=passed((own, pooled)),
        source=passed((source, pooled_source)),
    )
    np.testing.assert_allclose(found, 0.2 * (of_maps + of_pooled), rtol=1e-5)


def test_delta_leaves_out_learnt_vectors_in_front_of_the_tokens():
    own, source = normal(2, 4, 6), normal(2, 4, 6)
    lengthened = np.concatenate([normal(2, 3, 6), own], 1)
    text = "delta(alpha=1, attention='none')"
    plain, longer = (
        value(text, model=passed((x,), real=real), source=passed((source,), real=real))
        for x, real in ((own, None), (lengthened, None))
    )
    np.testing.assert_allclose(longer, plain, rtol=1e-6)


def test_features_are_the_mean_over_real_positions():
    x = normal(2, 4, 6)
    expected = np.stack([x[0, :3].mean(0), x[1, 0]])
    np.testing.assert_allclose(objective.averaged(jnp.asarray(x), REAL), expected, rtol=1e-5)
    pooled = objective.averaged(jnp.asarray(expected), REAL)
    np.testing.assert_allclose(pooled, expected, rtol=1e-6)


def test_the_next_word_is_scored_where_it_is_of_the_same_document():
    batch = {'segments': jnp.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]])}
    scored = LanguageModelling(VOCABULARY).scored(batch)
    assert scored.tolist() == [[1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert Classification(('a', 'b')).scored({'label': jnp.zeros(2)}) is None


# Sequences that a prompt lengthens


@pytest.mark.parametrize('method', ['prompt(length=3)', 'prefix(length=3)'])
def test_delta_goes_with_learnt_vectors(method):
    where = 'backbone' if method.startswith('prompt') else '.*/attention'
    inject = peft.injector(((where, method),))
    found, task, params, batch = made('the next word', SHORT, inject)
    reference = jax.tree.map(jnp.asarray, found.reference)

    def values(params):
        module = merge(found.model.graph(train=False), params, {})
        return regularizers.make(task, found.setting)(module, batch, jax.random.key(0), reference)

    loss, aux = jax.eval_shape(values, params)
    assert loss.shape == aux['delta'].shape == ()
