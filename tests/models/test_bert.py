"""BERT: masks, token types, poolings, epsilon, where it normalises, and how large it is."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from parity_support import draw

from tljax import models, trees
from tljax.errors import UserError

SMALL = dict(name='bert', width=16, layers=2, heads=4, hidden=32, vocabulary=50, positions=12)
EXAMPLE = {'tokens': jax.ShapeDtypeStruct((10,), np.int32)}
MASK = jnp.array([[1] * 10, [1] * 6 + [0] * 4])


@functools.cache
def made(train=False, **changes):
    """A small module whose weights are large enough for every part of it to matter."""
    model = models.build({**SMALL, **changes}, EXAMPLE, 3)
    params = trees.map_with_path(drawn, model.shapes()['params'])
    return models.merge(model.graph(train=train), params, {})


def drawn(path, leaf):
    """Random where a model starts at random, otherwise ones and zeros as there."""
    if leaf.ndim == 1:
        return np.full(leaf.shape, path.endswith('/scale'), leaf.dtype)
    return 2 * draw(path, leaf.shape, seed=0)


def tokens_of(seed=0, shape=(2, 10)):
    return jax.random.randint(jax.random.key(seed), shape, 0, 50)


@pytest.mark.parametrize('pool', ['cls', 'first', 'mean'])
def test_padding_changes_nothing(pool):
    module, tokens = made(pool=pool), tokens_of()
    other = jnp.where(MASK > 0, tokens, (tokens + 7) % 50)
    one = module({'tokens': tokens, 'mask': MASK})
    np.testing.assert_array_equal(one, module({'tokens': other, 'mask': MASK}))
    assert np.abs(one - module({'tokens': other}))[1].max() > 1e-2
    short = module({'tokens': tokens[1:, :6]})
    np.testing.assert_allclose(one[1:], short, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', [bool, np.int32, np.float32])
def test_masks_of_any_type_are_the_same_mask(kind):
    module, tokens = made(pool='mean'), tokens_of()
    np.testing.assert_array_equal(
        module({'tokens': tokens, 'mask': MASK.astype(kind)}),
        module({'tokens': tokens, 'mask': MASK}),
    )


def test_every_token_sees_every_other_one_and_where_it_is():
    module, tokens = made(pool='first'), tokens_of()
    one = module({'tokens': tokens})
    changed = module({'tokens': tokens.at[:, 9].set((tokens[:, 9] + 1) % 50)})
    assert np.abs(one - changed).max() > 1e-2
    swapped = tokens.at[0, 3].set(tokens[0, 4]).at[0, 4].set(tokens[0, 3])
    assert tokens[0, 3] != tokens[0, 4]
    assert np.abs(one - module({'tokens': swapped}))[0].max() > 1e-2


@pytest.mark.parametrize('pool', ['cls', 'first', 'mean'])
def test_text_that_is_all_padding_gives_numbers(pool):
    module = made(pool=pool)
    batch = {'tokens': tokens_of(), 'mask': jnp.zeros((2, 10), np.int32)}
    total, gradient = jax.jit(jax.value_and_grad(lambda module: module(batch).sum()))(module)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((total, gradient)))


def test_token_types_are_zero_unless_given():
    module, tokens = made(), tokens_of()
    zeros, ones = jnp.zeros_like(tokens), jnp.ones_like(tokens)
    one = module({'tokens': tokens})
    np.testing.assert_array_equal(one, module({'tokens': tokens, 'types': zeros}))
    assert np.abs(one - module({'tokens': tokens, 'types': ones})).max() > 1e-2


def test_without_types_there_is_no_embedding_of_them():
    module, tokens = made(types=0), tokens_of()
    assert not hasattr(module.backbone, 'type')
    ones = jnp.ones_like(tokens)
    np.testing.assert_array_equal(
        module({'tokens': tokens}), module({'tokens': tokens, 'types': ones})
    )


def test_poolings():
    batch = {'tokens': tokens_of(), 'mask': MASK}
    module = made(pool='cls')
    sequence = np.asarray(module.backbone(batch))
    kernel, bias = module.backbone.pooler.kernel[...], module.backbone.pooler.bias[...]
    expected = np.tanh(sequence[:, 0] @ kernel + np.asarray(bias).reshape(1, -1))
    np.testing.assert_allclose(module.features(batch), expected, rtol=1e-5, atol=1e-6)
    first = made(pool='first')
    assert not hasattr(first.backbone, 'pooler')
    np.testing.assert_array_equal(first.features(batch), first.backbone(batch)[:, 0])
    mean = made(pool='mean')
    sequence = np.asarray(mean.backbone(batch))
    expected = [sequence[0].mean(0), sequence[1, :6].mean(0)]
    np.testing.assert_allclose(mean.features(batch), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mean.head(mean.features(batch)), mean(batch))


def test_activations_are_told_apart():
    # x Phi(x) at one is 0.5 (1 + erf(1 / sqrt 2)); the approximation by tanh is 1.5e-4 below it.
    exact = made(activation='gelu').backbone.block0.mlp.activation(jnp.float32(1))
    approximate = made(activation='gelu_tanh').backbone.block0.mlp.activation(jnp.float32(1))
    assert float(exact) == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(2))), abs=1e-6)
    inner = math.sqrt(2 / math.pi) * (1 + 0.044715)
    assert float(approximate) == pytest.approx(0.5 * (1 + math.tanh(inner)), abs=1e-6)
    assert abs(float(exact) - float(approximate)) > 1e-4


@pytest.mark.parametrize('epsilon', [1e-12, 1e-5])
def test_epsilon_of_every_layer_norm(epsilon):
    backbone = made(epsilon=epsilon).backbone
    x = np.random.default_rng(0).normal(0, 1e-3, (1, 1, 16))
    expected = (x - x.mean()) / np.sqrt(x.var() + epsilon)
    for norm in (backbone.norm, backbone.block0.norm1, backbone.block1.norm2):
        np.testing.assert_allclose(norm(jnp.asarray(x, np.float32)), expected, rtol=1e-3)


def test_layer_norm_does_not_cancel():
    x = 100 + np.random.default_rng(0).normal(0, 0.1, (1, 1, 16)).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean()) / exact.std()
    for norm in (made().backbone.norm, made().backbone.block0.norm1):
        np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=1e-3)


def test_normalises_after_each_sum():
    sequence = made().backbone({'tokens': tokens_of()})
    np.testing.assert_allclose(sequence.mean(-1), np.zeros((2, 10)), atol=1e-5)
    np.testing.assert_allclose(sequence.var(-1), np.ones((2, 10)), rtol=1e-3)


def test_bfloat16_computes_in_it_and_keeps_float32():
    batch = {'tokens': tokens_of(), 'mask': MASK}
    exact, half = made(pool='mean'), made(pool='mean', dtype='bfloat16')
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half, nnx.Param))} == {
        np.dtype(np.float32)
    }
    assert half.backbone(batch).dtype == jnp.bfloat16
    assert half.features(batch).dtype == half(batch).dtype == np.float32
    one, other = exact.features(batch), half.features(batch)
    assert 1e-5 < np.abs(one - other).max() < 0.1 * np.abs(one).max()


def test_dropout_is_drawn_at_the_call():
    batch, train, quiet = {'tokens': tokens_of()}, made(train=True), made()
    one = train(batch, rngs=nnx.Rngs(dropout=1))
    np.testing.assert_array_equal(one, train(batch, rngs=nnx.Rngs(dropout=1)))
    assert np.abs(one - train(batch, rngs=nnx.Rngs(dropout=2))).max() > 1e-3
    np.testing.assert_array_equal(quiet(batch), quiet(batch, rngs=nnx.Rngs(dropout=1)))
    still = made(train=True, dropout=0.0, attention_dropout=0.0)
    np.testing.assert_array_equal(still(batch, rngs=nnx.Rngs(dropout=1)), quiet(batch))
    only_attention = made(train=True, dropout=0.0)(batch, rngs=nnx.Rngs(dropout=1))
    assert np.abs(only_attention - quiet(batch)).max() > 1e-3


def test_weights_start_as_in_the_original():
    model = models.build({**SMALL, 'vocabulary': 2000, 'width': 64, 'layers': 1}, EXAMPLE, 3)
    flat = trees.flatten(jax.jit(model.init)(jax.random.key(0))['params'])
    for path, leaf in flat.items():
        kind = path.rpartition('/')[2]
        if kind in ('kernel', 'embedding'):
            # A normal cut at two deviations has 0.88 of its deviation.
            assert np.abs(leaf).max() <= 0.04 + 1e-6
            assert leaf.size < 500 or float(leaf.std()) == pytest.approx(0.0176, rel=0.1), path
        else:
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, kind == 'scale', np.float32))


@pytest.mark.parametrize(
    ('changes', 'count'),
    [
        # Devlin et al. 2019, section 3: 110 and 340 million; exactly, those of the published files.
        ({}, 109_482_240),
        (dict(width=1024, layers=24, heads=16, hidden=4096), 335_141_888),
        (dict(width=384, layers=6, hidden=1536), 22_713_216),
        (dict(width=384, layers=6, hidden=1536, pool='mean'), 22_713_216 - 384 * 385),
    ],
)
def test_sizes(changes, count):
    shapes = models.build({'name': 'bert', **changes}, EXAMPLE, 2).shapes()
    assert not shapes['batch_stats']
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes['params']['backbone'])) == count


def test_paths():
    flat = trees.flatten(models.build(SMALL, EXAMPLE, 3).shapes()['params'])
    assert flat['backbone/token/embedding'].shape == (50, 16)
    assert flat['backbone/block1/attention/query/kernel'].shape == (16, 16)
    assert flat['backbone/block1/mlp/up/kernel'].shape == (16, 32)
    assert flat['backbone/pooler/kernel'].shape == (16, 16)
    assert flat['head/kernel'].shape == (16, 3)
    assert len(flat) == 3 + 2 + 2 * 16 + 2 + 2


@pytest.mark.parametrize(
    ('changes', 'example', 'said'),
    [
        ({}, {'tokens': jax.ShapeDtypeStruct((13,), np.int32)}, '13 tokens and the model 12'),
        ({}, {'image': jax.ShapeDtypeStruct((8, 8, 1), np.uint8)}, "an example has \\['image'\\]"),
        (dict(heads=3), EXAMPLE, '3 heads do not divide a width of 16'),
        (dict(pool='max'), EXAMPLE, "pool is 'max'"),
        (dict(activation='gleu'), EXAMPLE, "activation is 'gleu'"),
        (dict(dtype='float16'), EXAMPLE, "dtype is 'float16'"),
        (dict(types=-1), EXAMPLE, 'types is -1'),
        (dict(vocabulary=0), EXAMPLE, 'vocabulary is 0'),
    ],
)
def test_what_makes_no_sense_is_refused(changes, example, said):
    with pytest.raises(UserError, match=said):
        models.build({**SMALL, **changes}, example, 3)


def test_a_batch_longer_than_the_positions_is_refused():
    with pytest.raises(ValueError, match='13 tokens and the model 12'):
        made()({'tokens': tokens_of(shape=(2, 13))})
