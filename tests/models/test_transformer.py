"""What transformers are built from, against numpy in double precision."""

import math

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tljax.models.transformer import ACTIVATIONS, Attention, Block, Mlp, layer_norm

WIDTH, HEADS, HIDDEN, LENGTH = 12, 3, 20, 5
INIT = nnx.initializers.normal(0.4)


def rngs():
    return nnx.Rngs(params=0)


def drawn(module, seed=0):
    """The module in evaluation mode, every leaf of it random, biases and scales too."""
    rng = np.random.default_rng(seed)
    for _, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        leaf[...] = jnp.asarray(leaf[...] + rng.normal(0, 0.3, leaf.shape), jnp.float32)
    module.eval()
    return module


def tokens(seed=0, batch=2, spread=1.0):
    return np.random.default_rng(seed).normal(0, spread, (batch, LENGTH, WIDTH)).astype(np.float32)


def leaf(layer, name):
    return np.asarray(getattr(layer, name)[...], np.float64)


def linear(layer, x):
    return x @ leaf(layer, 'kernel') + leaf(layer, 'bias')


def normalised(layer, x, epsilon):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * leaf(layer, 'scale') + leaf(layer, 'bias')


def attended(layer, x, mask=None):
    """Attention by its definition, one query of one head at a time."""
    batch, length, width = x.shape
    q, k, v = (linear(part, x) for part in (layer.query, layer.key, layer.value))
    size = width // layer.heads
    out = np.zeros_like(q)
    for b in range(batch):
        for h in range(layer.heads):
            s = slice(h * size, (h + 1) * size)
            for i in range(length):
                scores = k[b, :, s] @ q[b, i, s] / math.sqrt(size)
                seen = np.ones(length, bool) if mask is None else mask[b, h, i]
                weights = np.where(seen, np.exp(scores - scores.max()), 0)
                out[b, i, s] = weights @ v[b, :, s] / weights.sum()
    return linear(layer.out, out)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def two_layers(layer, x):
    return linear(layer.down, gelu(linear(layer.up, x)))


@pytest.mark.parametrize('name', ['gelu', 'gelu_tanh', 'relu'])
def test_activations(name):
    x = np.linspace(-6, 6, 241)
    expected = {
        'gelu': gelu(x),
        # Hendrycks and Gimpel 2016, section 2.
        'gelu_tanh': 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        'relu': np.maximum(x, 0),
    }
    got = ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, expected[name], rtol=1e-5, atol=1e-6)


def test_the_gelus_differ_by_more_than_parity_allows():
    x = jnp.linspace(-6, 6, 2001)
    off = jnp.abs(ACTIVATIONS['gelu'](x) - ACTIVATIONS['gelu_tanh'](x)).max()
    assert 4e-4 < off < 5e-4


@pytest.mark.parametrize(('name', 'theirs'), [('gelu', 'none'), ('gelu_tanh', 'tanh')])
def test_gelus_equal_pytorch(name, theirs):
    torch = pytest.importorskip('torch')
    x = np.linspace(-6, 6, 2001).astype(np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x), approximate=theirs)
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), expected, atol=2e-6)


@pytest.mark.parametrize('epsilon', [1e-12, 1e-6, 1e-3])
def test_layer_norm_epsilon(epsilon):
    # A variance of 1e-6 is as large as one epsilon, much larger than another, much smaller than
    # the third.
    layer = drawn(layer_norm(WIDTH, epsilon, jnp.float32, rngs()))
    x = tokens(spread=1e-3)
    expected = normalised(layer, x.astype(np.float64), epsilon)
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)
    others = [normalised(layer, x, other) for other in (1e-12, 1e-6, 1e-3) if other != epsilon]
    assert all(np.abs(other - expected).max() > 0.1 for other in others)


def test_layer_norm_of_values_far_from_zero():
    # E[x^2] - E[x]^2 of values near 1000 with a variance of 1e-2 would be lost in float32.
    layer = drawn(layer_norm(WIDTH, 1e-12, jnp.float32, rngs()))
    x = 1000 + tokens(spread=0.1)
    expected = normalised(layer, x.astype(np.float64), 1e-12)
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-2, atol=1e-2)


def test_attention():
    layer = drawn(Attention(WIDTH, HEADS, init=INIT, rngs=rngs()))
    x = tokens()
    expected = attended(layer, x.astype(np.float64))
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


def test_attention_equals_pytorch():
    torch = pytest.importorskip('torch')
    ours = drawn(Attention(WIDTH, HEADS, init=INIT, rngs=rngs()))
    theirs = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    parts = (ours.query, ours.key, ours.value)
    state = {
        'in_proj_weight': np.concatenate([leaf(part, 'kernel').T for part in parts]),
        'in_proj_bias': np.concatenate([leaf(part, 'bias') for part in parts]),
        'out_proj.weight': leaf(ours.out, 'kernel').T,
        'out_proj.bias': leaf(ours.out, 'bias'),
    }
    theirs.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in state.items()})
    x = tokens()
    padded = np.zeros((2, LENGTH), bool)
    padded[1, 3:] = True
    with torch.no_grad():
        batch = torch.from_numpy(x)
        expected, _ = theirs(batch, batch, batch, key_padding_mask=torch.from_numpy(padded))
    got = ours(jnp.asarray(x), jnp.asarray(~padded)[:, None, None, :])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('axes', [(2, HEADS, LENGTH), (2, 1, LENGTH), (2, 1, 1), (1, 1, LENGTH)])
def test_attention_masks_of_every_shape(axes):
    layer = drawn(Attention(WIDTH, HEADS, init=INIT, rngs=rngs()))
    mask = np.random.default_rng(1).random((*axes, LENGTH)) < 0.5
    mask[..., 0] = True
    x = tokens()
    full = np.broadcast_to(mask, (2, HEADS, LENGTH, LENGTH))
    expected = attended(layer, x.astype(np.float64), full)
    np.testing.assert_allclose(
        layer(jnp.asarray(x), jnp.asarray(mask)), expected, rtol=1e-4, atol=1e-5
    )


def test_what_is_masked_has_no_influence_and_no_gradient():
    layer = drawn(Attention(WIDTH, HEADS, init=INIT, rngs=rngs()))
    mask = jnp.arange(LENGTH).reshape(1, 1, 1, LENGTH) < 3
    x = jnp.asarray(tokens())
    # Large enough to win every softmax, were it seen.
    other = x.at[:, 3:].multiply(1000.0)
    np.testing.assert_array_equal(layer(x, mask)[:, :3], layer(other, mask)[:, :3])
    slopes = jax.grad(lambda x: layer(x, mask)[:, :3].sum())(x)
    assert not slopes[:, 3:].any()
    assert slopes[:, :3].all()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_query_with_nothing_to_look_at_gives_numbers(dtype):
    layer = drawn(Attention(WIDTH, HEADS, dtype=getattr(jnp, dtype), init=INIT, rngs=rngs()))
    x = jnp.asarray(tokens())
    nothing = jnp.zeros((1, 1, 1, LENGTH), bool)
    out, slopes = jax.value_and_grad(lambda x: layer(x, nothing).astype(jnp.float32).sum())(x)
    assert np.isfinite(out)
    assert np.isfinite(slopes).all()
    # It looks at all alike: the mean of the values.
    if dtype == 'float32':
        values = linear(layer.value, np.asarray(x, np.float64)).mean(1, keepdims=True)
        expected = np.broadcast_to(linear(layer.out, values), x.shape)
        np.testing.assert_allclose(layer(x, nothing), expected, rtol=1e-4, atol=1e-5)


def test_softmax_of_bfloat16_is_computed_in_float32():
    layer = drawn(Attention(WIDTH, HEADS, dtype=jnp.bfloat16, init=INIT, rngs=rngs()))
    traced = jax.make_jaxpr(lambda x: layer(x))(jnp.zeros((1, LENGTH, WIDTH)))
    kinds = {(str(e.primitive), str(e.outvars[0].aval.dtype)) for e in everything(traced.jaxpr)}
    assert {kind for name, kind in kinds if name == 'exp'} == {'float32'}
    assert {kind for name, kind in kinds if name == 'dot_general'} == {'bfloat16'}


def everything(jaxpr):
    """The equations, and those inside them."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from everything(inner)


def test_the_two_layers():
    layer = drawn(Mlp(WIDTH, HIDDEN, 'gelu', init=INIT, rngs=rngs()))
    x = tokens()
    expected = two_layers(layer, x.astype(np.float64))
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('norm', ['pre', 'post'])
def test_where_a_block_normalises(norm):
    epsilon = 1e-2
    block = drawn(Block(WIDTH, HEADS, HIDDEN, norm=norm, epsilon=epsilon, init=INIT, rngs=rngs()))
    mask = np.arange(LENGTH).reshape(1, 1, 1, LENGTH) < 4
    full = np.broadcast_to(mask, (2, HEADS, LENGTH, LENGTH))
    x = tokens(spread=2.0)
    exact = x.astype(np.float64)
    if norm == 'pre':
        y = exact + attended(block.attention, normalised(block.norm1, exact, epsilon), full)
        expected = y + two_layers(block.mlp, normalised(block.norm2, y, epsilon))
    else:
        y = normalised(block.norm1, exact + attended(block.attention, exact, full), epsilon)
        expected = normalised(block.norm2, y + two_layers(block.mlp, y), epsilon)
    got = block(jnp.asarray(x), jnp.asarray(mask))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('which', ['dropout', 'attention_dropout'])
def test_dropout_needs_training_and_keeps_the_mean(which):
    block = drawn(Block(WIDTH, HEADS, HIDDEN, init=INIT, rngs=rngs(), **{which: 0.5}))
    plain = drawn(Block(WIDTH, HEADS, HIDDEN, init=INIT, rngs=rngs()))
    x = jnp.asarray(tokens(batch=1))
    np.testing.assert_array_equal(block(x), plain(x))
    block.train()

    def dropped(seed):
        return np.asarray(block(x, None, nnx.Rngs(dropout=seed)))

    np.testing.assert_array_equal(dropped(0), dropped(0))
    assert np.abs(dropped(0) - dropped(1)).max() > 0.1
    if which == 'attention_dropout':
        # Linear in the weights, so the mean over what is dropped is that of nothing dropped.
        layer = block.attention
        keys = jax.random.split(jax.random.key(0), 2000)
        means = jax.vmap(lambda key: layer(x, None, nnx.Rngs(dropout=key)))(keys).mean(0)
        layer.eval()
        np.testing.assert_allclose(means, layer(x), atol=0.15)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(heads=5), '5 heads do not divide a width of 12'),
        (dict(norm='both'), "norm is 'both'; it takes 'pre' or 'post'"),
        (dict(activation='swish'), "activation is 'swish'; it takes one of"),
    ],
)
def test_arguments_that_make_no_sense(changes, said):
    arguments = {'width': WIDTH, 'heads': HEADS, 'hidden': HIDDEN, **changes}
    with pytest.raises(ValueError, match=said):
        Block(**arguments, rngs=rngs())
