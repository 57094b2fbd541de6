"""EfficientNet-Lite0: paddings, batch norms, ReLU6, depthwise convolutions, stochastic depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from parity_support import Case, leaves_of, module_of

from tljax import models
from tljax.errors import UserError
from tljax.models.efficientnet_lite import (
    STAGES,
    Block,
    EfficientNetLite,
    depthwise_conv,
    padded_conv,
    shifted_products,
)

pytestmark = pytest.mark.slow


def example(height, width=None, channels=3):
    return {'image': jax.ShapeDtypeStruct((height, width or height, channels), np.uint8)}


def made(changes=None, **arguments):
    """The network for 40 x 40 pictures, in evaluation mode, with drawn weights.

    Args:
      changes: path -> what to multiply a leaf by.
    """
    case = Case('', 'efficientnet_lite', arguments, {'image': (40, 40, 3)}, 5, 'timm')
    leaves = leaves_of(case)
    for path, factor in (changes or {}).items():
        leaves[path] = np.float32(factor) * leaves[path]
    return module_of(case, leaves)


def shapes_of(*shape, **arguments):
    """The network for pictures of a shape, without numbers, in evaluation mode."""
    module = nnx.eval_shape(
        lambda: EfficientNetLite(example(*shape), 5, **arguments, rngs=nnx.Rngs(params=0))
    )
    module.eval()
    return module


def pictures(*shape, count=2):
    rng = np.random.default_rng(1)
    return {'image': jnp.asarray(rng.standard_normal((count, *shape), np.float32))}


def block(inputs=8, outputs=8, size=3, stride=1, expansion=6, **changes):
    arguments = dict(drop=0.0, padding='torch', norm={}, dtype=jnp.float32) | changes
    return Block(inputs, outputs, size, stride, expansion, **arguments, rngs=nnx.Rngs(params=0))


@pytest.mark.parametrize(
    ('size', 'stride', 'padding', 'shape'),
    [
        (3, 1, 'SAME', (4, 7)),
        (3, 2, 'SAME', (9, 8)),
        (3, 2, 'torch', (9, 8)),
        (5, 1, 'torch', (2, 1)),
        (5, 2, 'SAME', (2, 1)),
        (5, 2, 'torch', (8, 9)),
        (5, 2, 'VALID', (9, 8)),
    ],
)
def test_shifted_products_are_a_depthwise_convolution(size, stride, padding, shape):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, *shape, 3))
    kernel = jax.random.normal(keys[1], (size, size, 1, 3))
    margins = [(size // 2, size // 2)] * 2 if padding == 'torch' else padding
    numbers = dict(dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=3)

    def outputs_and_gradients(conv, **options):
        def weighted(x, kernel):
            y = conv(x, kernel, (stride, stride), margins, **options)
            return (y * jax.random.normal(keys[2], y.shape)).sum(), y

        (_, y), gradients = jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))(x, kernel)
        return y, *gradients

    ours = outputs_and_gradients(shifted_products)
    theirs = outputs_and_gradients(lax.conv_general_dilated, **numbers)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_sums_of_bfloat16_products_are_float32():
    x = jnp.full((1, 5, 5, 1), 1.0, jnp.bfloat16)
    kernel = jnp.full((5, 5, 1, 1), 1 / 256, jnp.bfloat16).at[0, 0].set(1.0)
    total = shifted_products(x, kernel, (1, 1), 'VALID')
    assert total.dtype == jnp.bfloat16
    # 1 + 24/256; summed in bfloat16, each of the small ones would be lost.
    assert float(total[0, 0, 0, 0]) == 1.09375


def test_the_depthwise_convolution_of_other_backends(monkeypatch):
    module = padded_conv(3, 3, 5, 2, 'tf', depthwise=True, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = pictures(9, 8, 3)['image']
    expected = module(x)
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    np.testing.assert_allclose(module(x), expected, rtol=1e-5, atol=1e-5)
    assert module.conv_general_dilated is depthwise_conv


@pytest.mark.parametrize('depthwise', [True, False])
@pytest.mark.parametrize(
    ('padding', 'length', 'centres'),
    [
        ('torch', 6, [0, 2, 4]),  # a margin of one on both sides
        ('tf', 6, [1, 3, 5]),  # none before, one behind
        ('torch', 5, [0, 2, 4]),
        ('tf', 5, [0, 2, 4]),  # one on both sides
    ],
)
def test_where_a_strided_kernel_stands(depthwise, padding, length, centres):
    module = padded_conv(
        1, 1, 3, 2, padding, depthwise=depthwise, dtype=jnp.float32, rngs=nnx.Rngs(params=0)
    )
    module.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    x = jnp.arange(length * length, dtype=jnp.float32).reshape(1, length, length, 1)
    expected = np.arange(length * length).reshape(length, length)[np.ix_(centres, centres)]
    np.testing.assert_array_equal(module(x)[0, :, :, 0], expected)


@pytest.mark.parametrize(('epsilon', 'momentum'), [(1e-3, 0.99), (1e-5, 0.9)])
def test_batch_norm_constants_reach_every_norm(epsilon, momentum):
    module = shapes_of(40, epsilon=epsilon, momentum=momentum)
    norms = [child for _, child in nnx.iter_modules(module) if isinstance(child, nnx.BatchNorm)]
    assert len(norms) == 49
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(epsilon, momentum)}


def test_batch_norm_epsilon_is_within_the_root():
    """A variance of 1e-3 beside an epsilon of 1e-3 halves what comes out, squared."""
    norm = block(norm=dict(epsilon=1e-3)).project_norm
    norm.var[...] = jnp.full(8, 1e-3)
    norm.use_running_average = True
    np.testing.assert_allclose(
        norm(jnp.ones((1, 1, 1, 8))), np.full((1, 1, 1, 8), 500**0.5), rtol=1e-5
    )


def test_batch_norm_momentum_is_of_the_old_statistics():
    module, x = block(norm=dict(momentum=0.99)), pictures(6, 6, 8, count=4)['image']
    module.train()
    module(x)
    middle = module.expand(x).reshape(-1, 48)
    np.testing.assert_allclose(module.expand_norm.mean[...], 0.01 * middle.mean(0), atol=1e-6)
    np.testing.assert_allclose(module.expand_norm.var[...], 0.99 + 0.01 * middle.var(0), rtol=1e-5)


@pytest.mark.parametrize(('theirs', 'ours'), [(0.1, 0.9), (0.01, 0.99)])
def test_batch_norm_against_torch(theirs, ours):
    torch = pytest.importorskip('torch')
    x = np.asarray(pictures(6, 6, 8, count=4)['image']) * 3 + 1
    original = torch.nn.BatchNorm2d(8, eps=1e-3, momentum=theirs)
    norm = block(norm=dict(epsilon=1e-3, momentum=ours)).project_norm
    norm.use_running_average = False
    expected = original(torch.from_numpy(x).permute(0, 3, 1, 2)).detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], original.running_mean.numpy(), rtol=1e-4)
    count = x[..., 0].size
    unbiased = ours + (np.asarray(norm.var[...]) - ours) * count / (count - 1)
    np.testing.assert_allclose(unbiased, original.running_var.numpy(), rtol=1e-5)


def test_relu6_ends_at_six():
    loud = block()
    loud.expand_norm.bias[...] = jnp.full(48, 1e6)
    loud.depthwise.kernel[...] = jnp.zeros((3, 3, 1, 48)).at[1, 1].set(1.0)
    loud.depthwise_norm.bias[...] = jnp.full(48, -1.0)
    loud.project.kernel[...] = jnp.ones((1, 1, 48, 8))
    loud.eval()
    x = jnp.zeros((1, 4, 4, 8))
    # Of 1e6, six is left; minus one, five; times 48 channels.
    np.testing.assert_allclose(loud(x), np.full((1, 4, 4, 8), 240.0), rtol=1e-4)


@pytest.mark.parametrize('padding', ['torch', 'tf'])
@pytest.mark.parametrize('shape', [(33, 47, 3), (1, 1, 1), (64, 32, 4)])
def test_any_size_and_number_of_channels(padding, shape):
    module = shapes_of(*shape, padding=padding)
    batch = {'image': jax.ShapeDtypeStruct((2, *shape), np.float32)}
    assert nnx.eval_shape(lambda m, b: m(b), module, batch).shape == (2, 5)
    assert nnx.eval_shape(lambda m, b: m.features(b), module, batch).shape == (2, 1280)


@pytest.mark.matrix
def test_bfloat16_computes_nearly_the_same_and_features_end_at_six():
    """Some fifty roundings lie behind a bfloat16 feature, so only a tenth can be asked."""
    loud = {'backbone/last_norm/scale': 100.0}
    modules, batch, features = [made(loud), made(loud, dtype='bfloat16')], pictures(40, 40, 3), []
    for module in modules:
        graph, state = nnx.split(module)
        leaves = jax.tree.leaves(nnx.state(module, (nnx.Param, nnx.BatchStat)))
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
        run = jax.jit(lambda state, batch, graph=graph: nnx.merge(graph, state).features(batch))
        features.append(run(state, batch))
    a, b = features
    assert modules[1].backbone.stage1(jnp.ones((1, 8, 8, 32))).dtype == jnp.bfloat16
    assert a.dtype == b.dtype == modules[1].head(b).dtype == jnp.float32
    assert 5 < a.max() <= 6
    assert 0 < jnp.linalg.norm(a - b) / jnp.linalg.norm(a) < 0.1


def test_stages_are_those_of_the_paper():
    module = shapes_of(40)
    for s, (size, _, expansion, outputs, count) in enumerate(STAGES, 1):
        stage = getattr(module.backbone, f'stage{s}')
        assert stage.count == count
        first = stage.block0
        assert first.depthwise.kernel.shape[:3] == (size, size, 1)
        assert first.project.kernel.shape[3] == outputs
        assert hasattr(first, 'expand') == (expansion != 1)
        assert not first.added
        assert all(getattr(stage, f'block{b}').added for b in range(1, count))


def test_drop_path_grows_with_depth():
    module = shapes_of(40, drop_path=0.2)
    rates = [
        getattr(getattr(module.backbone, f'stage{s}'), f'block{b}').drop.rate
        for s, stage in enumerate(STAGES, 1)
        for b in range(stage[-1])
    ]
    np.testing.assert_allclose(rates, 0.2 * np.arange(16) / 16)


def test_drop_path_drops_whole_blocks_of_whole_examples():
    module, x = block(drop=0.5), pictures(4, 4, 8, count=64)['image']
    module.eval()
    whole = module(x) - x
    module.drop.deterministic = False
    kept = module(x, nnx.Rngs(dropout=0)) - x
    dropped = np.asarray(jnp.abs(kept).max((1, 2, 3)) == 0)
    assert 16 < dropped.sum() < 48
    np.testing.assert_allclose(kept[~dropped], 2 * whole[~dropped], rtol=1e-3, atol=1e-4)


def test_training_moves_statistics_and_drops_features():
    module, batch = made(), pictures(40, 40, 3, count=4)
    module.train()
    graph, state = nnx.split(module)

    @jax.jit
    def step(state, key):
        module = nnx.merge(graph, state)
        logits = module(batch, nnx.Rngs(dropout=key))
        return logits, module.backbone.last_norm.mean[...]

    (one, mean), (two, _) = (step(state, jax.random.key(seed)) for seed in (1, 2))
    assert np.isfinite(one).all()
    assert not np.array_equal(one, two)
    assert not np.allclose(mean, module.backbone.last_norm.mean[...], rtol=0.01)


@jax.jit
def fresh_leaves():
    module = EfficientNetLite(example(40), 5, rngs=nnx.Rngs(params=0))
    last = module.backbone.stage6.block3
    kernels = {name: getattr(last, name).kernel[...] for name in ('expand', 'depthwise', 'project')}
    return kernels, module.head.kernel[...], module.head.bias[...]


def test_initialisation():
    kernels, head, bias = fresh_leaves()
    for name, variance in {'expand': 2 / 1152, 'depthwise': 2 / 25, 'project': 2 / 192}.items():
        assert kernels[name].var() == pytest.approx(variance, rel=0.05)
    assert 0.99 / 5**0.5 < np.abs(head).max() <= 1 / 5**0.5
    assert not bias.any()


def test_refusals():
    with pytest.raises(UserError, match="padding is 'same'; it takes one of"):
        models.build({'name': 'efficientnet_lite', 'padding': 'same'}, example(32), 2)
    with pytest.raises(UserError, match="reads images, under 'image'"):
        models.build({'name': 'efficientnet_lite'}, {}, 2)
