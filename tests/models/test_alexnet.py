"""AlexNet: sizes, the order of flattening, dropout, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from parity_support import Case, built, leaves_of

from tljax import trees
from tljax.errors import UserError
from tljax.models import alexnet, build, merge
from tljax.models.layers import adaptive_mean, linear


def example(height=64, width=64, channels=3):
    return {'image': jax.ShapeDtypeStruct((height, width, channels), np.uint8)}


def made(size=(64, 64, 3), train=False, **arguments):
    """A module with drawn weights, which needs no compilation."""
    case = Case('', 'alexnet', {'hidden': 16, **arguments}, {'image': size}, 5, '')
    model, leaves = built(case), leaves_of(case)
    params = trees.map_with_path(lambda path, _: leaves[path], model.shapes()['params'])
    return merge(model.graph(train=train), params, {})


def test_number_of_parameters():
    shapes = build({'name': 'alexnet'}, example(224, 224), 1000).shapes()
    # As torchvision's documentation lists it.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 61100840
    assert shapes['params']['backbone']['hidden1']['kernel'].shape == (9216, 4096)
    assert not shapes['batch_stats']


@pytest.mark.parametrize('size', [(63, 63, 3), (63, 131, 1), (96, 70, 4)])
def test_sizes(size):
    module = made(size)
    batch = {'image': jax.random.normal(jax.random.key(1), (2, *size))}
    features, logits = jax.jit(lambda batch: (module.features(batch), module(batch)))(batch)
    assert features.shape == (2, 16)
    np.testing.assert_allclose(module.head(features), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('height', 'width'), [(62, 224), (224, 62)])
def test_a_picture_that_is_too_small(height, width):
    with pytest.raises(UserError, match=f'a {height}x{width} picture is too small'):
        build({'name': 'alexnet'}, example(height, width), 5)


def test_channels_are_flattened_first():
    # One row of the kernel at a time: row 36 c + 6 i + j reads channel c at (i, j).
    backbone = made().backbone
    channel, i, j = 7, 2, 5
    picked = jnp.zeros((9216, 16)).at[36 * channel + 6 * i + j, 0].set(1.0)
    backbone.hidden1.kernel[...] = picked
    backbone.hidden1.bias[...] = jnp.zeros(16)
    backbone.hidden2.kernel[...] = jnp.eye(16)
    backbone.hidden2.bias[...] = jnp.zeros(16)
    grid = {}
    original = alexnet.adaptive_mean

    def recorded(x, size):
        grid['x'] = original(x, size)
        return grid['x']

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alexnet, 'adaptive_mean', recorded)
        got = backbone(jax.random.normal(jax.random.key(3), (2, 224, 200, 3)))
    assert grid['x'].shape == (2, 6, 6, 256)
    assert np.all(np.asarray(grid['x'][:, i, j, channel]) > 0)
    np.testing.assert_allclose(got[:, 0], grid['x'][:, i, j, channel], rtol=1e-6)


@pytest.mark.parametrize('length', [1, 2, 5, 6, 7, 12, 13])
def test_adaptive_means_equal_pytorch(length):
    torch = pytest.importorskip('torch')
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, length, 9, 3)))
    theirs = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(x.copy()).permute(0, 3, 1, 2), 6
    )
    np.testing.assert_allclose(
        adaptive_mean(jnp.asarray(x), 6), theirs.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6
    )


def test_dropout_only_in_training_and_from_the_call():
    batch = {'image': jax.random.normal(jax.random.key(1), (2, 64, 64, 3))}
    trained, tested = made(train=True), made()
    one, two, again = (trained(batch, nnx.Rngs(dropout=seed)) for seed in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(tested(batch), tested(batch, nnx.Rngs(dropout=1)))
    np.testing.assert_allclose(made(train=True, dropout=0.0)(batch), tested(batch), rtol=1e-6)


def test_bfloat16_keeps_parameters_and_logits_float32():
    exact, rough = (made(dtype=dtype) for dtype in ('float32', 'bfloat16'))
    batch = {'image': jax.random.normal(jax.random.key(0), (4, 64, 64, 3))}
    expected, got = exact(batch), rough(batch)
    assert got.dtype == jnp.float32
    leaves = trees.flatten(nnx.to_pure_dict(nnx.state(rough)))
    assert {leaf.dtype for leaf in leaves.values()} == {jnp.dtype('float32')}
    off = float(jnp.abs(got - expected).max() / jnp.abs(expected).max())
    assert 1e-6 < off < 0.02


def test_initial_spread():
    layer = linear(400, 300, rngs=nnx.Rngs(params=0))
    for leaf in (layer.kernel[...], layer.bias[...]):
        assert 0.98 * 0.05 < np.abs(leaf).max() <= 0.05  # 1 / sqrt(400)
    model = build({'name': 'alexnet'}, example(), 5)
    start = jax.jit(lambda key: model.init(key)['params']['backbone']['conv2']['kernel'])
    kernel = np.asarray(start(jax.random.key(0)))
    bound = (64 * 25) ** -0.5
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.01)
