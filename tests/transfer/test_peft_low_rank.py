"""LoRA and DoRA against plain numpy, merged, and on every architecture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from flax import nnx
from peft_models import build, forward, moved, over

from tljax import trees
from tljax.errors import UserError
from tljax.models.layers import conv, conv3x3
from tljax.transfer import peft

NO_DORA = {'bit'}  # kernels that are standardised have no magnitude
CASES = [
    (name, method)
    for name in small_models.SMALL
    for method in ('lora', 'dora')
    if (name, method) not in {(n, 'dora') for n in NO_DORA}
]
QUICK = {('convnet', 'lora'), ('vit', 'dora')}


@pytest.mark.parametrize(
    ('name', 'method'),
    small_models.sampled(CASES, QUICK, every=7),
)
def test_starts_as_the_source_and_merges_exactly(name, method):
    plain, model = build(name), build(name, f'{method}(rank=2, alpha=3.0)')
    batch = small_models.batch_of(name)
    source = small_models.scattered(plain)
    expected = forward(plain, source, batch)
    start = over(model, source)
    np.testing.assert_allclose(forward(model, start, batch), expected, rtol=1e-6, atol=1e-6)

    trained = moved(model, start)
    run = forward(model, trained, batch)
    assert np.abs(run - expected).max() > 1e-3 * np.abs(expected).max()
    merged = peft.merge(model, trained)
    assert trees.flatten(merged['params']).keys() == trees.flatten(source['params']).keys()
    np.testing.assert_allclose(
        forward(plain, merged, batch), run, rtol=0, atol=1e-4 * np.abs(run).max()
    )


def layer(kind):
    rngs = nnx.Rngs(params=0)
    if kind == 'linear':
        return nnx.Linear(5, 4, rngs=rngs), (3, 5)
    if kind == 'conv3x3':
        return conv3x3(3, 4, rngs=rngs), (2, 6, 6, 3)
    if kind == 'strided':
        return conv(3, 4, 3, stride=2, bias=True, rngs=rngs), (2, 7, 7, 3)
    if kind == 'pointwise':
        return conv(3, 4, 1, stride=2, rngs=rngs), (2, 6, 6, 3)
    return nnx.Conv(3, 4, (5,), 2, padding='VALID', kernel_dilation=2, rngs=rngs), (2, 20, 3)


KINDS = ['linear', 'conv3x3', 'strided', 'pointwise', 'dilated in time']


def adapted(module, method):
    holder = nnx.Dict(layer=module)
    rngs = nnx.Rngs(params=1)
    made = peft.injector([('layer', method)])(holder, rngs)['layer']
    rng = np.random.default_rng(0)
    made.lora_b[...] = jnp.asarray(rng.normal(size=made.lora_b.shape), jnp.float32)
    if hasattr(made, 'dora_magnitude'):
        made.dora_magnitude[...] = jnp.asarray(rng.uniform(0.5, 2, 4), jnp.float32)
    return made


def change(module, scale):
    """(alpha / r) A B, written out: one matrix product for each place of the window."""
    a, b = np.asarray(module.lora_a[...], np.float64), np.asarray(module.lora_b[...], np.float64)
    flat = a.reshape(-1, a.shape[-1])
    product = np.zeros((len(flat), b.shape[1]))
    for r in range(a.shape[-1]):
        product += np.outer(flat[:, r], b[r])
    return scale * product.reshape(*a.shape[:-1], b.shape[1])


@pytest.mark.parametrize('kind', KINDS)
def test_lora_is_the_kernel_plus_a_product(kind):
    module, shape = layer(kind)
    x = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    made = adapted(module, 'lora(rank=2, alpha=6.0)')
    expected = np.asarray(module.kernel[...], np.float64) + change(made, 3.0)
    y, kernel = made(x), made.merged()['kernel']
    module.kernel[...] = jnp.asarray(expected, jnp.float32)  # which is the adapted one's too
    np.testing.assert_allclose(y, module(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kernel, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kind', KINDS)
def test_dora_is_a_magnitude_times_a_direction(kind):
    module, shape = layer(kind)
    x = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    made = adapted(module, 'dora(rank=2, alpha=6.0)')
    kernel = np.asarray(module.kernel[...], np.float64)
    moved = kernel + change(made, 3.0)
    expected = np.empty_like(moved)
    for o in range(4):
        magnitude = float(made.dora_magnitude[o]) * np.linalg.norm(kernel[..., o])
        expected[..., o] = magnitude * moved[..., o] / np.linalg.norm(moved[..., o])
    y, kernel = made(x), made.merged()['kernel']
    module.kernel[...] = jnp.asarray(expected, jnp.float32)  # which is the adapted one's too
    np.testing.assert_allclose(y, module(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-5)


def test_the_norm_of_dora_is_not_differentiated():
    """Section 4.3: the gradient is that with the norm held at its value."""
    module, shape = layer('linear')
    x = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    made = adapted(module, 'dora(rank=2)')
    graph, params = nnx.split(made)
    grads = nnx.to_pure_dict(jax.grad(lambda p: nnx.merge(graph, p)(x).sum())(params))
    w, a, b = (np.asarray(leaf[...]) for leaf in (made.kernel, made.lora_a, made.lora_b))
    norm = np.linalg.norm(w + 8 * a @ b, axis=0)
    factor = np.asarray(made.dora_magnitude[...]) * np.linalg.norm(w, axis=0) / norm
    expected = 8 * np.outer(a.T @ x.sum(0), factor)
    np.testing.assert_allclose(grads['lora_b'], expected, rtol=1e-4, atol=1e-5)


def test_a_column_of_zeros_gives_no_nan():
    module = nnx.Linear(3, 4, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(params=0))
    made = peft.injector([('layer', 'dora')])(nnx.Dict(layer=module), nnx.Rngs(params=1))['layer']
    graph, params = nnx.split(made)
    value, grads = jax.value_and_grad(lambda p: nnx.merge(graph, p)(jnp.ones((1, 3))).sum())(params)
    assert value == 0
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))


def test_computes_in_the_dtype_of_its_layer():
    for method in ('lora', 'dora'):
        module = nnx.Linear(3, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(params=0))
        holder = nnx.Dict(layer=module)
        made = peft.injector([('layer', method)])(holder, nnx.Rngs(params=1))['layer']
        assert made(jnp.ones((2, 3))).dtype == jnp.bfloat16
        assert made.lora_a[...].dtype == jnp.float32


def test_no_gradient_of_a_kernel_is_computed():
    """A step of LoRA has about the products of forward and backward to the input, no more."""
    module = nnx.Linear(256, 256, use_bias=False, rngs=nnx.Rngs(params=0))
    made = peft.injector([('layer', 'lora(rank=2)')])(nnx.Dict(layer=module), nnx.Rngs(params=1))
    graph, injected, rest = nnx.split(made, peft.Injected, ...)
    loss = lambda p, r, x: jnp.square(nnx.merge(graph, p, r, copy=True)['layer'](x)).sum()  # noqa: E731
    x = jnp.ones((64, 256))
    cost = jax.jit(jax.grad(loss)).lower(injected, rest, x).compile().cost_analysis()
    forward_cost = 2 * 64 * 256 * 256
    assert cost['flops'] < 1.2 * forward_cost


@pytest.mark.parametrize(
    ('name', 'pattern', 'method', 'words'),
    [
        ('vit', '', 'lora(rank=0)', r'lora\(rank=0\): rank is 0; it takes a whole number'),
        ('vit', '', 'lora(rank=2.5)', 'rank is 2.5'),
        ('vit', '', 'lora(alpha=0)', 'alpha is 0; it takes a number above 0'),
        ('vit', '', 'lora(ranks=2)', "no argument 'ranks'. Did you mean 'rank'"),
        ('vit', '', 'lorra', "no 'lorra'. Did you mean 'lora'"),
        ('vit', '.*/norm1', 'lora', 'a LayerNorm, which cannot be replaced so: it takes linear'),
        ('efficientnet_lite', '.*/depthwise', 'lora', 'a Conv, .* not grouped'),
        ('bit', '', 'dora', 'dora has no place of its own in a Bit'),
        ('wav2vec2', 'backbone/position', 'lora', 'a Position, which cannot'),
    ],
)
def test_mistakes_are_told(name, pattern, method, words):
    with pytest.raises(UserError, match=words):
        build(name, method, pattern)


def test_where_they_go_if_nothing_is_said():
    injected = build('vit', 'lora').outline().injected
    parts = {path.removeprefix('backbone/').partition('/')[2] for path in injected}
    assert parts == {f'attention/{p}/lora_{x}' for p in ('query', 'value') for x in 'ab'}
    injected = build('efficientnet_lite', 'lora').outline().injected
    assert not any('depthwise' in path for path in injected)
    assert 'backbone/stem/lora_a' in injected
    assert len(build('vit', "lora(where='.*/(up|down)')").outline().injected) == 12
