"""SqueezeNet: its poolings' edges, its head before the mean, sizes and precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from parity_support import Case, leaves_of, module_of

from tljax import models
from tljax.errors import UserError
from tljax.models.squeezenet import SqueezeNet

pytestmark = pytest.mark.slow


def example(height, width=None, channels=3):
    return {'image': jax.ShapeDtypeStruct((height, width or height, channels), np.uint8)}


def made(*shape, outputs=5, **arguments):
    """The network for pictures of a shape, in evaluation mode, with drawn weights."""
    case = Case('', 'squeezenet', arguments, {'image': shape}, outputs, 'torchvision')
    return module_of(case, leaves_of(case))


def fresh(get):
    """What `get` takes from a freshly initialised network; the rest is not computed."""
    return jax.jit(lambda: get(SqueezeNet(example(40), 5, rngs=nnx.Rngs(params=0))))()


def pictures(*shape):
    return {'image': np.random.default_rng(1).standard_normal((2, *shape), np.float32)}


@pytest.mark.parametrize(
    ('size', 'ceil_mode', 'positions'),
    [(224, True, 13), (224, False, 13), (227, True, 14), (227, False, 13), (17, True, 1)],
)
def test_positions_of_the_last_map(size, ceil_mode, positions):
    module = nnx.eval_shape(
        lambda: SqueezeNet(example(size), 5, ceil_mode=ceil_mode, rngs=nnx.Rngs(params=0))
    )
    batch = {'image': jax.ShapeDtypeStruct((2, size, size, 3), np.float32)}
    last = nnx.eval_shape(lambda module, batch: module.backbone(batch['image']), module, batch)
    assert last.shape == (2, positions, positions, 512)


@pytest.mark.parametrize('ceil_mode', [True, False])
def test_only_a_pooling_that_reaches_over_the_edge_sees_the_last_pixels(ceil_mode):
    """Of 41 pixels the stem leaves 20, the last of which alone sees pixels 39 and 40."""
    module, batch = made(41, 41, 3, ceil_mode=ceil_mode), pictures(41, 41, 3)
    changed = {'image': batch['image'].copy()}
    changed['image'][:, 39:] += 1
    same = np.array_equal(module.features(batch), module.features(changed))
    assert same != ceil_mode


def test_ceil_mode_changes_nothing_where_windows_fit():
    batch = pictures(47, 47, 3)  # 23, 11, 5, 2
    np.testing.assert_array_equal(made(47, 47, 3)(batch), made(47, 47, 3, ceil_mode=False)(batch))


def test_the_head_comes_before_the_mean():
    module, batch = made(40, 40, 3), pictures(40, 40, 3)
    last = np.asarray(module.backbone(batch['image']), np.float64)
    kernel, bias = (
        np.asarray(leaf[...], np.float64) for leaf in (module.head.kernel, module.head.bias)
    )
    positions = np.maximum(last.reshape(2, -1, 512) @ kernel + bias, 0)
    logits = module(batch)
    np.testing.assert_allclose(logits, positions.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        module.features(batch), last.mean((1, 2)), rtol=1e-5, atol=1e-7, strict=False
    )
    linear = np.asarray(module.features(batch)) @ kernel + bias
    assert np.abs(linear - np.asarray(logits)).max() > 0.1 * np.abs(logits).max()
    assert (np.asarray(logits) >= 0).all()


@pytest.mark.parametrize('shape', [(41, 64, 3), (18, 17, 1), (55, 23, 4)])
def test_any_size_and_number_of_channels(shape):
    module, batch = made(*shape), pictures(*shape)
    assert module(batch).shape == (2, 5)
    assert module.features(batch).shape == (2, 512)


@pytest.mark.parametrize(('ceil_mode', 'smallest'), [(True, 17), (False, 31)])
def test_too_small_a_picture_is_refused(ceil_mode, smallest):
    config = {'name': 'squeezenet', 'ceil_mode': ceil_mode}
    models.build(config, example(smallest), 2)
    with pytest.raises(UserError, match=f'too small: it takes at least {smallest}x{smallest}'):
        models.build(config, example(300, smallest - 1), 2)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UserError, match="dtype is 'float16'"):
        models.build({'name': 'squeezenet', 'dtype': 'float16'}, example(40), 2)


@pytest.mark.matrix
def test_bfloat16_computes_nearly_the_same():
    batch = pictures(40, 40, 3)
    exact, rough = made(40, 40, 3), made(40, 40, 3, dtype='bfloat16')
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(rough))} == {jnp.dtype(jnp.float32)}
    assert rough.backbone(batch['image']).dtype == jnp.bfloat16
    for a, b in ((exact.features(batch), rough.features(batch)), (exact(batch), rough(batch))):
        assert a.dtype == b.dtype == jnp.float32
        error = jnp.abs(a - b).max() / jnp.abs(a).max()
        assert 0 < error < 0.03


def test_dropout_is_of_the_last_map_and_only_in_training():
    module, batch = made(40, 40, 3), pictures(40, 40, 3)
    calm = module(batch)
    np.testing.assert_array_equal(calm, module(batch, nnx.Rngs(dropout=1)))
    module.train()
    one, two = (module(batch, nnx.Rngs(dropout=seed)) for seed in (1, 2))
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(one, module(batch, nnx.Rngs(dropout=1)))
    np.testing.assert_array_equal(module.features(batch), made(40, 40, 3).features(batch))


def test_initialisation():
    def leaves(module):
        stem, expand, head = module.backbone.stem, module.backbone.fire9.expand3, module.head
        return [(layer.kernel[...], layer.bias[...]) for layer in (stem, expand, head)]

    *convs, (head, bias) = fresh(leaves)
    for (kernel, zeros), inputs in zip(convs, (27, 64 * 9), strict=True):
        bound = np.sqrt(6 / inputs)
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
        assert not zeros.any()
    assert head.std() == pytest.approx(0.01, rel=0.1)
    assert not bias.any()
