"""BiT: standardised kernels, zeros around the first pooling, groups, dtypes and sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from parity_support import Case, batch_of, built, leaves_of

from tljax import trees
from tljax.errors import UserError
from tljax.models import build, merge
from tljax.models.bit import Backbone, StandardConv, group_norm, standardised

pytestmark = pytest.mark.slow


def example(channels=3):
    return {'image': jax.ShapeDtypeStruct((32, 32, channels), np.uint8)}


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    # As timm counts them.
    [
        ({}, 25549352),
        ({'depth': 101}, 44541480),
        ({'depth': 152, 'width_factor': 2}, 236335208),
    ],
)
def test_number_of_parameters(arguments, expected):
    shapes = build({'name': 'bit', **arguments}, example(), 1000).shapes()
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_kernels_are_standardised_for_each_output():
    kernel = np.asarray(jax.random.normal(jax.random.key(0), (3, 3, 4, 5))) * 3 + 2
    got = np.asarray(standardised(jnp.asarray(kernel)))
    expected = np.stack(
        [(kernel[..., o] - kernel[..., o].mean()) / kernel[..., o].std() for o in range(5)], -1
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    # Scale and mean of a kernel don't matter to what the convolution gives.
    conv = StandardConv(4, 5, 3, 2, jnp.float32, nnx.Rngs(params=0))
    x = jax.random.normal(jax.random.key(1), (1, 7, 8, 4))
    before = conv(x)
    conv.kernel[...] = 10 * conv.kernel[...] + 1
    np.testing.assert_allclose(conv(x), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('stride', [1, 2])
def test_pointwise_kernels_are_matrix_products(stride):
    conv = StandardConv(4, 5, 1, stride, jnp.float32, nnx.Rngs(params=0))
    x = jax.random.normal(jax.random.key(1), (2, 7, 8, 4))
    expected = x[:, ::stride, ::stride] @ standardised(conv.kernel[...])[0, 0]
    np.testing.assert_allclose(conv(x), expected, rtol=1e-5, atol=1e-5)
    assert 'conv_general_dilated' not in str(jax.make_jaxpr(lambda x: conv(x))(x))


def test_group_norm_equals_pytorch_far_from_zero():
    torch = pytest.importorskip('torch')
    norm = group_norm(64, jnp.float32, nnx.Rngs(params=0))
    # A mean of 100 spreads: E[x^2] - E[x]^2 would lose it.
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, 3, 5, 64))) + 100
    theirs = torch.nn.functional.group_norm(
        torch.from_numpy(x.copy()).double().permute(0, 3, 1, 2), 32, eps=1e-5
    )
    np.testing.assert_allclose(norm(jnp.asarray(x)), theirs.permute(0, 2, 3, 1), atol=1e-4)


def test_the_first_pooling_is_surrounded_by_zeros():
    seen = {}
    backbone = nnx.eval_shape(lambda: Backbone(3, 50, 64, jnp.float32, nnx.Rngs(params=0)))

    def record(x):
        seen['x'] = x
        return x

    backbone.stem = lambda x: jnp.full((1, 4, 4, 64), -1.0)
    backbone.stage1 = backbone.stage2 = backbone.stage3 = backbone.stage4 = record
    backbone.norm = lambda x: x
    backbone(jnp.zeros((1, 8, 8, 3)))
    np.testing.assert_array_equal(seen['x'][0, :, :, 0], [[0, 0], [0, -1]])


def outputs_of(size, **arguments):
    """A batch, drawn leaves, and features and logits; compiled with the leaves as arguments."""
    case = Case('', 'bit', arguments, {'image': size}, 3, '')
    model, leaves = built(case), leaves_of(case)

    @jax.jit
    def call(leaves, batch):
        params = trees.map_with_path(lambda path, _: leaves[path], model.shapes()['params'])
        module = merge(model.graph(train=True), params, {})
        return module.features(batch), module(batch)

    return (*call(leaves, batch_of(case)), leaves)


@pytest.mark.parametrize('size', [(1, 1, 3), (33, 20, 1)])
@pytest.mark.slow
def test_any_size_and_channels(size):
    features, logits, leaves = outputs_of(size)
    assert features.shape == (2, 2048)
    assert np.isfinite(logits).all()
    expected = features @ leaves['head/kernel'] + leaves['head/bias'][None]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.matrix
def test_bfloat16_is_near_and_gives_float32():
    _, exact, _ = outputs_of((40, 40, 3))
    features, rough, _ = outputs_of((40, 40, 3), dtype='bfloat16')
    assert features.dtype == rough.dtype == jnp.float32
    off = jnp.abs(rough - exact).max() / jnp.abs(exact).max()
    # On the same weights PyTorch's autocast is 0.13 off: nothing in 16 units damps a rounding.
    assert 1e-4 < off < 0.25
    model = build({'name': 'bit', 'dtype': 'bfloat16'}, example(), 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.shapes())} == {jnp.dtype('float32')}


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'depth': 18}, r'depth is 18; it takes one of \(50, 101, 152\)'),
        ({'width_factor': 0}, 'width_factor is 0'),
    ],
)
def test_arguments_that_make_no_sense(arguments, said):
    with pytest.raises(UserError, match=said):
        build({'name': 'bit', **arguments}, example(), 2)
