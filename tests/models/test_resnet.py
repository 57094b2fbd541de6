"""ResNets: padding, statistics, dtypes and sizes, where numerics usually go wrong."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from parity_support import Case, built, leaves_of

from tljax import trees
from tljax.errors import UserError
from tljax.models import build, merge
from tljax.models.build import batch_stats_of
from tljax.models.layers import batch_norm, conv, max_pool, pointwise_conv
from tljax.models.resnet import Block, ResNet

RNGS = nnx.Rngs(params=0)


def example(height=32, width=32, channels=3):
    return {'image': jax.ShapeDtypeStruct((height, width, channels), np.uint8)}


def made(name='resnet', outputs=10, train=False, size=(32, 32, 3), **arguments):
    """A module with drawn weights, which needs no compilation."""
    case = Case('', name, arguments, {'image': size}, outputs, '')
    model, leaves = built(case), leaves_of(case)
    trees_of = {
        kind: trees.map_with_path(lambda path, _: jnp.asarray(leaves[path]), tree)
        for kind, tree in model.shapes().items()
    }
    return merge(model.graph(train=train), trees_of['params'], trees_of['batch_stats'])


def fresh(wanted, **arguments):
    """The leaves whose paths match, as they start."""
    model = build({'name': 'resnet', 'depth': 18, **arguments}, example(), 1000)

    def chosen(key):
        leaves = trees.flatten(model.init(key)['params'])
        return {path: leaf for path, leaf in leaves.items() if re.fullmatch(wanted, path)}

    return {path: np.asarray(leaf) for path, leaf in jax.jit(chosen)(jax.random.key(0)).items()}


def count(tree):
    return sum(leaf.size for leaf in trees.flatten(tree).values())


@pytest.mark.parametrize(
    ('depth', 'expected'),
    # As torchvision's documentation lists them.
    [(18, 11689512), (34, 21797672), (50, 25557032), (101, 44549160), (152, 60192808)],
)
def test_number_of_parameters(depth, expected):
    shapes = build({'name': 'resnet', 'depth': depth}, example(), 1000).shapes()
    assert count(shapes['params']) == expected


@pytest.mark.parametrize(
    ('depth', 'shortcut', 'expected'),
    # By hand for depth 20 and n = 3: the stem is 3*9*16 + 32 = 464; stage 1 has 6 convolutions of
    # 9*16*16 and norms of 32: 14016; stages 2 and 3 have one of 9*w*w/2, 5 of 9*w*w and 6 norms of
    # 2*w: 51072 and 203520; the head is 650. Projections add 16*32 + 64 and 32*64 + 128.
    [(20, 'pad', 269722), (20, 'projection', 272474), (56, 'pad', 853018), (110, 'pad', 1727962)],
)
def test_number_of_parameters_cifar(depth, shortcut, expected):
    config = {'name': 'cifar_resnet', 'depth': depth, 'shortcut': shortcut}
    assert count(build(config, example(), 10).shapes()['params']) == expected


def test_strided_convolutions_pad_both_sides_alike():
    # One at the middle of a 3x3 kernel picks pixels: with padding 1 and stride 2 these are 0, 2
    # of four; 'SAME' would pad the end alone and pick 1, 3.
    layer = conv(1, 1, 3, stride=2, rngs=RNGS)
    layer.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(layer(x)[0, :, :, 0], [[0, 2], [8, 10]])
    same = nnx.Conv(1, 1, (3, 3), (2, 2), padding='SAME', use_bias=False, rngs=RNGS)
    same.kernel[...] = layer.kernel[...]
    np.testing.assert_array_equal(same(x)[0, :, :, 0], [[5, 7], [13, 15]])


@pytest.mark.slow
@pytest.mark.parametrize(('size', 'stride', 'padding'), [(3, 2, None), (7, 2, None), (11, 4, 2)])
@pytest.mark.parametrize('length', [12, 13, 14, 15])
def test_convolutions_equal_pytorch(size, stride, padding, length):
    torch = pytest.importorskip('torch')
    layer = conv(3, 5, size, stride=stride, padding=padding, rngs=RNGS)
    x = np.asarray(jax.random.normal(jax.random.key(1), (2, length, 16, 3)))
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(x.copy()).permute(0, 3, 1, 2),
        torch.from_numpy(np.array(layer.kernel[...])).permute(3, 2, 0, 1),
        stride=stride,
        padding=size // 2 if padding is None else padding,
    )
    np.testing.assert_allclose(layer(x), theirs.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize('length', [5, 6, 7, 8])
def test_poolings_equal_pytorch(length, padding):
    torch = pytest.importorskip('torch')
    # Negative values: a padding by zeros instead of minus infinity would win.
    x = np.asarray(jax.random.uniform(jax.random.key(0), (1, length, 9, 2))) - 2
    theirs = torch.nn.functional.max_pool2d(
        torch.from_numpy(x.copy()).permute(0, 3, 1, 2), 3, 2, padding=padding
    )
    np.testing.assert_array_equal(
        max_pool(jnp.asarray(x), 3, 2, padding), theirs.permute(0, 2, 3, 1)
    )


@pytest.mark.parametrize('stride', [1, 2])
def test_a_1x1_convolution_is_a_matrix_product(stride, monkeypatch):
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 4))
    kernel = jax.random.normal(jax.random.key(1), (1, 1, 4, 3))
    weights = jax.random.normal(jax.random.key(2), (2, -(-5 // stride), 6 // stride, 3))
    numbers = ('NHWC', 'HWIO', 'NHWC')

    def total(function, x, kernel):
        strides, padding = (stride, stride), ((0, 0), (0, 0))
        y = function(x, kernel, strides, padding, dimension_numbers=numbers)
        return (y * weights).sum(), y

    (_, got), slopes = jax.value_and_grad(total, (1, 2), has_aux=True)(pointwise_conv, x, kernel)
    (_, expected), theirs = jax.value_and_grad(total, (1, 2), has_aux=True)(
        jax.lax.conv_general_dilated, x, kernel
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    for ours, other in zip(slopes, theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-5)
    layer = conv(4, 3, 1, stride=stride, rngs=RNGS)
    assert layer.conv_general_dilated is pointwise_conv
    # Only where that is faster: on another backend it stays a convolution.
    monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
    lowered = str(jax.make_jaxpr(lambda x: layer(x))(x))
    assert 'conv_general_dilated' in lowered
    monkeypatch.undo()
    lowered = str(jax.make_jaxpr(lambda x: layer(x))(x + 1))
    assert 'dot_general' in lowered
    assert 'conv_general_dilated' not in lowered


def test_batch_norm_epsilon():
    norm = batch_norm(1, rngs=RNGS)
    norm.eval()
    norm.var[...] = jnp.array([3e-5])
    # 1e-3 / sqrt(3e-5 + 1e-5)
    np.testing.assert_allclose(norm(jnp.full((1, 1, 1, 1), 1e-3)).item(), 0.1581139, rtol=1e-5)


def test_batch_norm_momentum_and_kind_of_variance():
    torch = pytest.importorskip('torch')
    x = np.asarray(jax.random.normal(jax.random.key(0), (3, 2, 2, 4))) * 2 + 1
    ours, theirs = batch_norm(4, rngs=RNGS), torch.nn.BatchNorm2d(4)
    got = ours(jnp.asarray(x))
    expected = theirs(torch.from_numpy(x.copy()).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(got, expected.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.mean[...], theirs.running_mean, rtol=1e-5, atol=1e-6)
    # What the batch adds, a tenth, is of the biased kind here, n / (n - 1) times that in PyTorch.
    n = 3 * 2 * 2
    np.testing.assert_allclose(
        (ours.var[...] - 0.9) * n / (n - 1), theirs.running_var - 0.9, rtol=1e-4
    )


def test_a_block_is_its_shortcut_where_its_last_norm_starts_at_zero():
    x = jax.random.uniform(jax.random.key(0), (1, 4, 4, 8))
    zero, one = (
        Block(8, [(8, 3, 1), (8, 3, 1)], zero_init_last=zero, rngs=RNGS) for zero in (True, False)
    )
    np.testing.assert_array_equal(zero(x), x)
    assert np.abs(one(x) - x).max() > 0.1


def test_which_norms_start_at_zero():
    scales = fresh('.*/scale', zero_init_last=True)
    zero = {path for path, leaf in scales.items() if not leaf.any()}
    assert zero == {f'backbone/stage{s}/block{b}/norm2/scale' for s in (1, 2, 3, 4) for b in (0, 1)}


def test_option_a_leaves_pixels_out_and_adds_channels_on_both_sides():
    block = Block(4, [(8, 3, 2), (8, 3, 1)], shortcut='pad', zero_init_last=True, rngs=RNGS)
    x = jax.random.uniform(jax.random.key(0), (1, 5, 5, 4))
    got = block(x)
    assert got.shape == (1, 3, 3, 8)
    np.testing.assert_array_equal(got[..., 2:6], x[:, ::2, ::2])
    np.testing.assert_array_equal(got[..., np.array([0, 1, 6, 7])], np.zeros((1, 3, 3, 4)))


def test_the_3x3_convolution_has_the_stride():
    deep, shallow = (
        nnx.eval_shape(
            lambda depth=depth: ResNet(example(), 2, depth=depth, rngs=nnx.Rngs(params=0))
        )
        for depth in (50, 18)
    )
    block = deep.backbone.stage2.block0
    assert [layer.strides for layer in (block.conv1, block.conv2, block.conv3)] == [1, 2, 1]
    assert block.downsample.strides == 2
    assert not hasattr(deep.backbone.stage2.block1, 'downsample')
    # Bottlenecks widen already in the first stage, without a stride there; basic blocks don't.
    assert deep.backbone.stage1.block0.downsample.kernel.shape == (1, 1, 64, 256)
    assert deep.backbone.stage1.block0.downsample.strides == 1
    assert not hasattr(shallow.backbone.stage1.block0, 'downsample')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet', 'cifar_resnet'])
@pytest.mark.parametrize('size', [(1, 1, 3), (33, 20, 1)])
def test_any_size_and_channels(name, size):
    depth = 18 if name == 'resnet' else 8
    module = made(name, outputs=3, size=size, depth=depth)
    batch = {'image': jax.random.normal(jax.random.key(0), (2, *size))}
    features, logits = jax.jit(lambda batch: (module.features(batch), module(batch)))(batch)
    assert features.shape == (2, 512 if name == 'resnet' else 64)
    assert features.dtype == jnp.float32
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(module.head(features), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_keeps_parameters_statistics_and_logits_float32():
    batch = {'image': jax.random.normal(jax.random.key(0), (4, 32, 32, 3))}
    logits, stats = {}, {}
    for dtype in ('float32', 'bfloat16'):
        module = made('cifar_resnet', train=True, dtype=dtype, depth=8)
        logits[dtype] = module(batch)
        stats[dtype] = trees.flatten(batch_stats_of(module))
        leaves = trees.flatten(nnx.to_pure_dict(nnx.state(module)))
        assert {leaf.dtype for leaf in leaves.values()} == {jnp.dtype('float32')}
    assert logits['bfloat16'].dtype == jnp.float32
    # bfloat16 has 8 bits: 0.4 % a rounding, a dozen of them.
    off = jnp.abs(logits['bfloat16'] - logits['float32']).max() / jnp.abs(logits['float32']).max()
    assert 1e-4 < off < 0.05
    for path, leaf in stats['float32'].items():
        np.testing.assert_allclose(stats['bfloat16'][path], leaf, rtol=0.02, atol=0.02)


@pytest.mark.parametrize('depth', [18, 50])
def test_bfloat16_is_used_everywhere_but_at_the_ends(depth):
    model = build({'name': 'resnet', 'depth': depth, 'dtype': 'bfloat16'}, example(), 10)
    shapes = model.shapes()

    def logits(params, stats, batch):
        return merge(model.graph(train=False), params, stats)(batch)

    batch = {'image': jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)}
    traced = jax.make_jaxpr(logits)(shapes['params'], shapes['batch_stats'], batch)
    products = [
        equation
        for equation in traced.eqns
        if equation.primitive.name in ('conv_general_dilated', 'dot_general')
    ]
    rough = [e for e in products if e.outvars[0].aval.dtype == jnp.bfloat16]
    # Every convolution (the depth counts them and the head, not the projections), not the head.
    assert len(rough) == depth - 1 + (3 if depth == 18 else 4)
    assert len(products) == len(rough) + 1
    assert traced.out_avals[0].dtype == jnp.float32


def test_running_statistics_are_not_rounded_in_bfloat16():
    # 1000.5 would be 1000 as bfloat16.
    norm = batch_norm(1, dtype=jnp.bfloat16, rngs=RNGS)
    norm.eval()
    norm.mean[...] = jnp.array([1000.5])
    assert norm(jnp.full((1, 1, 1, 1), 1000.0, jnp.bfloat16)).item() == pytest.approx(
        -0.5, rel=4e-3
    )


def test_initial_spread():
    leaves = fresh('head/.*|backbone/stage4/block1/conv1/kernel')
    # sqrt(2 / fan-out), not cut off: a truncated normal has no value beyond 2.3 deviations.
    kernel = leaves['backbone/stage4/block1/conv1/kernel']
    deviation = (2 / (9 * 512)) ** 0.5
    assert kernel.std() == pytest.approx(deviation, rel=0.01)
    assert np.abs(kernel).max() > 4 * deviation
    for name in ('kernel', 'bias'):
        head = np.abs(leaves[f'head/{name}'])
        assert 0.99 * 512**-0.5 < head.max() <= 512**-0.5


@pytest.mark.parametrize(
    ('config', 'said'),
    [
        ({'name': 'resnet', 'depth': 51}, r'depth is 51; it takes one of \(18, 34, 50, 101, 152\)'),
        ({'name': 'resnet', 'dtype': 'float16'}, "dtype is 'float16'"),
        ({'name': 'cifar_resnet', 'depth': 21}, 'depth is 21; it takes 6 n'),
        ({'name': 'cifar_resnet', 'shortcut': 'none'}, "shortcut is 'none'"),
    ],
)
def test_arguments_that_make_no_sense(config, said):
    with pytest.raises(UserError, match=said):
        build(config, example(), 2)


def test_an_example_without_a_picture():
    with pytest.raises(UserError, match="reads images, under 'image'"):
        build({'name': 'resnet'}, {'tokens': jax.ShapeDtypeStruct((5,), np.int32)}, 2)
