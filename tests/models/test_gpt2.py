"""GPT-2: no look-ahead, padding, tied embeddings, where it normalises, and how large it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from parity_support import draw

from tljax import models, trees
from tljax.errors import UserError

SMALL = dict(name='gpt2', width=16, layers=2, heads=4, vocabulary=50, positions=12)
EXAMPLE = {'tokens': jax.ShapeDtypeStruct((10,), np.int32)}
MASK = jnp.array([[1] * 10, [1] * 6 + [0] * 4])


@functools.cache
def parts(train=False, outputs=50, **changes):
    """Graph and parameters of a small model; weights large enough for every part to matter."""
    model = models.build({**SMALL, **changes}, EXAMPLE, outputs)
    return model.graph(train=train), trees.map_with_path(drawn, model.shapes()['params'])


def drawn(path, leaf):
    """Random where a model starts at random, otherwise ones and zeros as there."""
    if leaf.ndim == 1:
        return np.full(leaf.shape, path.endswith('/scale'), leaf.dtype)
    return 2 * draw(path, leaf.shape, seed=0)


@functools.cache
def made(**changes):
    graph, params = parts(**changes)
    return models.merge(graph, params, {})


def tokens_of(seed=0, shape=(2, 10)):
    return jax.random.randint(jax.random.key(seed), shape, 0, 50)


@pytest.mark.parametrize('at', [1, 5, 9])
def test_what_comes_later_changes_nothing_before(at):
    module, tokens = made(), tokens_of()
    one = module({'tokens': tokens})
    other = module({'tokens': tokens.at[:, at].set((tokens[:, at] + 1) % 50)})
    np.testing.assert_array_equal(one[:, :at], other[:, :at])
    assert np.abs(one - other)[:, at:].max(-1).min() > 1e-3


def test_a_prefix_gives_the_same_logits():
    module, tokens = made(), tokens_of()
    np.testing.assert_allclose(
        module({'tokens': tokens})[:, :4], module({'tokens': tokens[:, :4]}), rtol=1e-4, atol=1e-4
    )


def test_padding_changes_no_token_before_or_after_it():
    module, tokens = made(), tokens_of()
    holes = jnp.array([[1] * 10, [1, 1, 0, 1, 1, 1, 0, 0, 0, 0]])
    other = jnp.where(holes > 0, tokens, (tokens + 7) % 50)
    one = module({'tokens': tokens, 'mask': holes})
    two = module({'tokens': other, 'mask': holes})
    np.testing.assert_array_equal(one[holes > 0], two[holes > 0])
    unmasked = module({'tokens': other})
    assert np.abs(one - unmasked)[1, 3:6].max(-1).min() > 1e-3


def test_last_is_the_last_real_token():
    module, tokens = made(pool='last', outputs=3), tokens_of()
    batch = {'tokens': tokens, 'mask': MASK}
    assert module(batch).shape == (2, 3)
    short = module({'tokens': tokens[1:, :6]})
    np.testing.assert_allclose(module(batch)[1:], short, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(module(batch)[0], module({'tokens': tokens})[0])
    np.testing.assert_array_equal(module.head(module.features(batch)), module(batch))


def test_text_that_is_all_padding_gives_numbers():
    for changes in ({}, dict(pool='last', outputs=3)):
        logits = made(**changes)({'tokens': tokens_of(), 'mask': jnp.zeros((2, 10), np.int32)})
        assert np.isfinite(logits).all()


def test_a_tied_head_has_no_leaves_and_is_the_embedding():
    module, batch = made(), {'tokens': tokens_of()}
    paths = trees.flatten(parts()[1])
    assert not [path for path in paths if path.startswith('head')]
    embedding = np.asarray(module.backbone.token.embedding[...])
    np.testing.assert_allclose(
        module(batch), np.asarray(module.features(batch)) @ embedding.T, rtol=1e-4, atol=1e-4
    )


def test_the_tied_embedding_gets_both_gradients():
    batch = {'tokens': tokens_of()}
    goal = jax.random.normal(jax.random.key(1), (2, 10, 50))

    def gradients(graph, params):
        def loss(params):
            return (jax.nn.log_softmax(models.merge(graph, params, {})(batch)) * goal).sum()

        return loss(params), jax.grad(loss)(params)

    graph, params = parts()
    value, tied = gradients(graph, params)
    apart = {**params, 'head': {'kernel': params['backbone']['token']['embedding'].T}}
    same, loose = gradients(parts(tied=False, head_bias=False)[0], apart)
    assert float(value) == pytest.approx(float(same), rel=1e-5)
    below = loose['backbone']['token']['embedding']
    above = loose['head']['kernel'].T
    assert min(np.abs(below).max(), np.abs(above).max()) > 1e-2
    np.testing.assert_allclose(
        tied['backbone']['token']['embedding'], below + above, rtol=1e-3, atol=1e-3
    )


def test_normalises_what_enters_each_part():
    block = made(epsilon=1e-12).backbone.block0
    x = jax.random.normal(jax.random.key(0), (2, 10, 16))
    # So what a block adds doesn't depend on the scale of what it is given to the first part only.
    added = block.attention(block.norm1(x))
    np.testing.assert_allclose(block.attention(block.norm1(7 * x)), added, rtol=1e-3, atol=1e-4)
    half = x + added
    np.testing.assert_allclose(block(x), half + block.mlp(block.norm2(half)), rtol=1e-4, atol=1e-4)
    out = made().features({'tokens': tokens_of()})
    np.testing.assert_allclose(out.mean(-1), np.zeros((2, 10)), atol=1e-5)


def test_defaults_are_gpt2s():
    defaults = models.arguments('gpt2')
    assert (defaults['activation'], defaults['epsilon'], defaults['tied']) == (
        'gelu_tanh',
        1e-5,
        True,
    )
    backbone = made().backbone
    assert float(backbone.block0.mlp.activation(jnp.float32(1))) == pytest.approx(
        0.841192, abs=1e-6
    )
    x = np.random.default_rng(0).normal(0, 1e-3, (1, 1, 16))
    expected = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    for norm in (backbone.norm, backbone.block0.norm1, backbone.block1.norm2):
        np.testing.assert_allclose(norm(jnp.asarray(x, np.float32)), expected, rtol=1e-3)


def test_bfloat16_computes_in_it_and_keeps_float32():
    batch = {'tokens': tokens_of(), 'mask': MASK}
    exact, half = made(), made(dtype='bfloat16')
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half, nnx.Param))} == {
        np.dtype(np.float32)
    }
    assert half.features(batch).dtype == jnp.bfloat16
    one, other = exact(batch), half(batch)
    assert other.dtype == np.float32
    assert 1e-5 < np.abs(one - other).max() < 0.1 * np.abs(one).max()
    # The logits themselves are not rounded to bfloat16.
    assert np.any(other != other.astype(jnp.bfloat16).astype(np.float32))


def test_dropout_is_drawn_at_the_call():
    batch, train, quiet = {'tokens': tokens_of()}, made(train=True), made()
    one = train(batch, rngs=nnx.Rngs(dropout=1))
    np.testing.assert_array_equal(one, train(batch, rngs=nnx.Rngs(dropout=1)))
    assert np.abs(one - quiet(batch)).max() > 1e-2
    only_attention = made(train=True, dropout=0.0)(batch, rngs=nnx.Rngs(dropout=1))
    assert np.abs(only_attention - quiet(batch)).max() > 1e-3


def test_weights_start_as_in_the_paper():
    model = models.build({**SMALL, 'vocabulary': 500, 'width': 64}, EXAMPLE, 500)
    backbone = jax.jit(model.init)(jax.random.key(0))['params']['backbone']
    assert float(backbone['token']['embedding'].std()) == pytest.approx(0.02, rel=0.05)
    assert float(backbone['position']['embedding'].std()) == pytest.approx(0.01, rel=0.1)
    block = backbone['block1']
    assert float(block['attention']['query']['kernel'].std()) == pytest.approx(0.02, rel=0.05)
    assert float(block['mlp']['up']['kernel'].std()) == pytest.approx(0.02, rel=0.05)
    # Two layers add four times to the residual stream: half of 0.02.
    assert float(block['attention']['out']['kernel'].std()) == pytest.approx(0.01, rel=0.05)
    assert float(block['mlp']['down']['kernel'].std()) == pytest.approx(0.01, rel=0.05)
    for path, leaf in trees.flatten(backbone).items():
        kind = path.rpartition('/')[2]
        if kind in ('scale', 'bias'):
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, kind == 'scale', np.float32))


@pytest.mark.parametrize(
    ('changes', 'count'),
    [
        # The exact sizes of the published files; Radford et al. 2019, table 2, miscounted its own.
        ({}, 124_439_808),
        (dict(width=1024, layers=24, heads=16), 354_823_168),
    ],
)
def test_sizes(changes, count):
    shapes = models.build({'name': 'gpt2', **changes}, EXAMPLE, 50257).shapes()
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(
    ('changes', 'outputs', 'example', 'said'),
    [
        ({}, 50, {'tokens': jax.ShapeDtypeStruct((13,), np.int32)}, '13 tokens and the model 12'),
        ({}, 50, {'audio': jax.ShapeDtypeStruct((8,), np.float32)}, "an example has \\['audio'\\]"),
        ({}, 3, EXAMPLE, 'a tied head gives a logit for each of 50 tokens, .* has 3 outputs'),
        (dict(heads=3), 50, EXAMPLE, '3 heads do not divide a width of 16'),
        (dict(pool='cls'), 50, EXAMPLE, "pool is 'cls'"),
        (dict(positions=0), 50, EXAMPLE, 'positions is 0'),
    ],
)
def test_what_makes_no_sense_is_refused(changes, outputs, example, said):
    with pytest.raises(UserError, match=said):
        models.build({**SMALL, **changes}, example, outputs)


def test_heads_that_are_not_tied():
    batch = {'tokens': tokens_of()}
    assert made(tied=False, outputs=7)(batch).shape == (2, 10, 7)
    classifier = trees.flatten(parts(pool='last', outputs=3)[1])
    assert classifier['head/kernel'].shape == (16, 3)
    assert classifier['head/bias'].shape == (3,)
    assert 'head/bias' not in trees.flatten(parts(tied=False, head_bias=False)[1])
