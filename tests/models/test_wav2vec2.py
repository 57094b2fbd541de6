"""wav2vec 2.0: weight norm, frames, both kinds of norms, masks, poolings, and how large it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from parity_support import draw

from tljax import models, trees
from tljax.errors import UserError
from tljax.models import audio

pytestmark = pytest.mark.slow

SMALL = dict(
    name='wav2vec2',
    width=16,
    layers=2,
    heads=4,
    hidden=32,
    conv_widths=(12, 8),
    conv_kernels=(10, 3),
    conv_strides=(5, 2),
    position_kernel=6,
    position_groups=4,
)
LARGE = dict(conv_norm='layer', conv_bias=True, norm='pre')
EXAMPLE = {'audio': jax.ShapeDtypeStruct((200,), np.float32)}
LENGTH = 200  # 19 frames
MASK = jnp.array([[1] * LENGTH, [1] * 90 + [0] * 110])  # 8 frames of the second are real
PUBLISHED = ((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
XLSR = dict(width=1024, layers=24, heads=16, hidden=4096, **LARGE)


@functools.cache
def made(train=False, **changes):
    """A small module all of whose leaves matter."""
    model = models.build({**SMALL, **changes}, EXAMPLE, 3)
    params = trees.map_with_path(
        lambda path, leaf: draw(path, leaf.shape, seed=0), model.shapes()['params']
    )
    return models.merge(model.graph(train=train), params, {})


def wave(seed=0, shape=(2, LENGTH)):
    return jax.random.normal(jax.random.key(seed), shape)


def position(kernel, groups=4, width=16):
    """The convolution that tells positions, with random leaves."""
    made = audio.Position(width, kernel, groups, 'relu', jnp.float32, nnx.Rngs(params=0))
    made.magnitude[...] = draw('magnitude', made.magnitude.shape, 0)
    made.direction[...] = draw('direction', made.direction.shape, 0)
    made.bias[...] = draw('bias', made.bias.shape, 0)
    return made


def test_weight_norm_is_of_each_time_over_all_channels():
    layer = position(6)
    kernel = np.asarray(layer.kernel())
    direction, magnitude = np.float64(layer.direction[...]), np.float64(layer.magnitude[...])
    assert (kernel.shape, magnitude.shape) == ((6, 4, 16), (6, 1, 1))
    lengths = np.sqrt((direction**2).sum((1, 2), keepdims=True))
    np.testing.assert_allclose(kernel, magnitude * direction / lengths, rtol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(kernel.reshape(6, -1), axis=1), magnitude.reshape(6), rtol=1e-5
    )
    per_output = direction / np.sqrt((direction**2).sum((0, 1), keepdims=True))
    assert np.abs(kernel - magnitude * per_output).max() > 0.01
    layer.direction[...] = 7 * layer.direction[...]
    np.testing.assert_allclose(layer.kernel(), kernel, rtol=1e-5)


def test_gradients_of_magnitude_and_direction():
    # Salimans and Kingma 2016, equation 3, with one g and one v for each of the kernel's times.
    layer = position(6)
    weights = np.asarray(draw('gradient of the kernel', (6, 4, 16), 0))

    def loss(layer):
        return (layer.kernel() * weights).sum()

    got = nnx.grad(loss)(layer)
    g, v = np.float64(layer.magnitude[...]), np.float64(layer.direction[...])
    length = np.sqrt((v**2).sum((1, 2), keepdims=True))
    of_g = (weights * v).sum((1, 2), keepdims=True) / length
    of_v = g / length * weights - g * of_g / length**2 * v
    np.testing.assert_allclose(got['magnitude'][...], of_g, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got['direction'][...], of_v, rtol=1e-4, atol=1e-5)
    # No step along the gradient changes a direction's length at first.
    np.testing.assert_allclose((got['direction'][...] * v).sum((1, 2)), np.zeros(6), atol=1e-5)


@pytest.mark.parametrize('kernel', [1, 6, 7])
@pytest.mark.parametrize('groups', [1, 4])
def test_a_frame_sees_its_neighbours_in_its_own_group(kernel, groups):
    # Padding is floor(K / 2) on both sides, and where K is even the last output is left out.
    layer, x = position(kernel, groups), np.asarray(wave(shape=(2, 9, 16)))
    weights, bias = np.float64(layer.kernel()), np.asarray(layer.bias[...])
    margin, size = kernel // 2, 16 // groups
    padded = np.pad(x, ((0, 0), (margin, margin), (0, 0)))
    expected = np.zeros((2, 9, 16))
    for time in range(9):
        for output in range(16):
            first = output // size * size
            seen = padded[:, time : time + kernel, first : first + size]
            expected[:, time, output] = (seen * weights[:, :, output]).sum((1, 2)) + bias[output]
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected.clip(0), rtol=1e-4, atol=1e-5)


def test_frames_are_as_many_as_the_convolutions_make():
    kernels, strides = PUBLISHED
    shapes = zip(kernels, strides, strict=True)
    options = dict(window_strides=None, padding='VALID', dimension_numbers=('NWC', 'WIO', 'NWC'))
    sizes = [jax.ShapeDtypeStruct((k, 1, 1), np.float32) for k, _ in shapes]

    def run(x):
        for kernel, stride in zip(sizes, strides, strict=True):
            made = {**options, 'window_strides': (stride,)}
            x = jax.lax.conv_general_dilated(x, jnp.zeros(kernel.shape), **made)
        return x

    for samples in (*range(400, 2100, 37), 719, 720, 721, 16000, 250_000):
        expected = jax.eval_shape(run, jax.ShapeDtypeStruct((1, samples, 1), np.float32)).shape[1]
        assert audio.frames(samples, kernels, strides) == expected
    module = made()
    assert module.frames(LENGTH) == module.backbone({'audio': wave()}).shape[1] == 19
    # A frame each 20 ms, of 25 ms (Baevski et al. 2020, section 4.2).
    assert audio.frames(400, kernels, strides) == 1
    assert audio.frames(400 + 320, kernels, strides) == 2


def test_frames_of_many_recordings_at_once():
    lengths = jnp.array([0, 9, 20, 90, LENGTH])
    expected = [audio.frames(int(n), (10, 3), (5, 2)) for n in lengths]
    np.testing.assert_array_equal(made().frames(lengths), expected)
    assert expected[2:] == [1, 8, 19]


def test_a_frame_is_real_if_it_saw_no_padding():
    batch = {'audio': wave(), 'mask': MASK}
    mask = made().backbone.frame_mask(batch)
    np.testing.assert_array_equal(mask.sum(1), [19, 8])
    extractor = made(**LARGE).backbone.extractor
    one, other = extractor(wave()), extractor(wave() * MASK)
    same = np.asarray(one == other).all(-1)
    np.testing.assert_array_equal(same, mask)
    assert made().backbone.frame_mask({'audio': wave()}) is None


def test_group_norm_is_of_each_channel_over_the_whole_time():
    layer = made().backbone.extractor.layer0
    x = np.float64(layer.conv(wave()[:, :, None]))
    assert x.shape == (2, 39, 12)
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    scale, bias = (np.asarray(leaf[...]) for leaf in (layer.norm.scale, layer.norm.bias))
    expected = normal * scale.reshape(1, 1, -1) + bias.reshape(1, 1, -1)
    np.testing.assert_allclose(layer.norm(jnp.float32(x)), expected, rtol=1e-3, atol=1e-4)
    assert not hasattr(made().backbone.extractor.layer1, 'norm')


def test_layer_norm_is_of_each_time_over_the_channels():
    for layer in (made(**LARGE).backbone.extractor.layer0, made(**LARGE).backbone.extractor.layer1):
        x = np.random.default_rng(0).normal(3, 2, (2, 5, layer.norm.num_features))
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        scale, bias = (np.asarray(leaf[...]) for leaf in (layer.norm.scale, layer.norm.bias))
        expected = normal * scale.reshape(1, 1, -1) + bias.reshape(1, 1, -1)
        np.testing.assert_allclose(layer.norm(jnp.float32(x)), expected, rtol=1e-3, atol=1e-4)


def test_only_group_norm_lets_padding_change_what_was_said():
    waves = wave()
    for changes, is_same in ((LARGE, True), ({}, False)):
        module = made(**changes)
        zeros = module({'audio': waves * MASK, 'mask': MASK})[1, :8]
        noise = module({'audio': waves, 'mask': MASK})[1, :8]
        short = module({'audio': waves[1:, :90]})[0]
        for other in (noise, short):
            assert np.allclose(zeros, other, rtol=1e-4, atol=1e-5) == is_same
        without = module({'audio': waves * MASK})[1, :8]
        assert np.abs(zeros - without).max() > 1e-3


@pytest.mark.parametrize('kind', [bool, np.int32, np.float32])
def test_masks_of_any_type_are_the_same_mask(kind):
    module = made(pool='mean')
    np.testing.assert_array_equal(
        module({'audio': wave(), 'mask': MASK.astype(kind)}),
        module({'audio': wave(), 'mask': MASK}),
    )


@pytest.mark.parametrize('changes', [{}, LARGE])
@pytest.mark.parametrize('pool', ['none', 'mean'])
@pytest.mark.parametrize('samples', [0, 5])
@pytest.mark.slow
def test_recordings_without_a_real_frame_give_numbers(samples, pool, changes):
    module = made(pool=pool, **changes)
    mask = jnp.arange(LENGTH).reshape(1, -1) < jnp.array([[samples], [LENGTH]])
    batch = {'audio': wave() * mask, 'mask': mask}
    logits, back = jax.vjp(lambda module: module(batch), module)
    assert np.isfinite(logits).all()
    (gradient,) = back(jnp.ones_like(logits))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_silence_gives_numbers():
    logits, back = jax.vjp(lambda x: made()({'audio': x}), jnp.zeros((1, LENGTH)))
    assert np.isfinite(logits).all()
    assert np.isfinite(back(jnp.ones_like(logits))[0]).all()


def test_poolings():
    batch = {'audio': wave(), 'mask': MASK}
    each, mean = made(), made(pool='mean')
    frames = np.asarray(each.features(batch))
    assert (frames.shape, each(batch).shape) == ((2, 19, 16), (2, 19, 3))
    expected = [frames[0].mean(0), frames[1, :8].mean(0)]
    np.testing.assert_allclose(mean.features(batch), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mean.head(mean.features(batch)), mean(batch))
    unmasked = np.asarray(each.features({'audio': wave()}))
    got = mean.features({'audio': wave()})
    np.testing.assert_allclose(got, unmasked.mean(1), rtol=1e-4, atol=1e-5)


def test_every_frame_sees_every_other_one():
    module, waves = made(**LARGE), wave()
    changed = module({'audio': waves.at[:, -20:].add(1)})
    assert np.abs(module({'audio': waves}) - changed)[:, 0].max() > 1e-4


@pytest.mark.parametrize('norm', ['post', 'pre'])
def test_where_the_encoder_normalises(norm):
    batch, backbone = {'audio': wave()}, made(norm=norm).backbone
    frames = backbone.projection(backbone.extractor(batch['audio']))
    x = frames + backbone.position(frames)
    x = x if norm == 'pre' else backbone.norm(x)
    for block in (backbone.block0, backbone.block1):
        if norm == 'pre':
            x = x + block.attention(block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        else:
            x = block.norm1(x + block.attention(x))
            x = block.norm2(x + block.mlp(x))
    x = backbone.norm(x) if norm == 'pre' else x
    np.testing.assert_allclose(backbone(batch), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('epsilon', [1e-5, 1e-2])
def test_epsilon_of_layer_norms_but_those_between_convolutions(epsilon):
    backbone = made(epsilon=epsilon, **LARGE).backbone
    norms = {
        backbone.norm: epsilon,
        backbone.projection.norm: epsilon,
        backbone.block0.norm1: epsilon,
        backbone.block1.norm2: epsilon,
        backbone.extractor.layer0.norm: 1e-5,
        backbone.extractor.layer1.norm: 1e-5,
    }
    for norm, own in norms.items():
        x = np.random.default_rng(0).normal(0, 1e-2, (1, 1, norm.num_features))
        normal = (x - x.mean()) / np.sqrt(x.var() + own)
        scale, bias = (np.asarray(leaf[...]).reshape(1, 1, -1) for leaf in (norm.scale, norm.bias))
        expected = normal * scale + bias
        np.testing.assert_allclose(norm(jnp.float32(x)), expected, rtol=1e-3, atol=1e-4)


def test_norms_do_not_cancel():
    x = 100 + np.random.default_rng(0).normal(0, 0.1, (1, 12, 12)).astype(np.float32)
    for kind, axis in (({}, 1), (LARGE, -1)):
        norm = made(**kind).backbone.extractor.layer0.norm
        exact = x.astype(np.float64)
        normal = exact - exact.mean(axis, keepdims=True)
        normal = normal / np.sqrt(exact.var(axis, keepdims=True) + 1e-5)
        scale, bias = (np.asarray(leaf[...]).reshape(1, 1, -1) for leaf in (norm.scale, norm.bias))
        np.testing.assert_allclose(norm(jnp.asarray(x)), normal * scale + bias, atol=2e-3)


@pytest.mark.parametrize('changes', [{}, LARGE])
def test_bfloat16_computes_in_it_and_keeps_float32(changes):
    batch = {'audio': wave(), 'mask': MASK}
    exact, half = made(**changes), made(dtype='bfloat16', **changes)
    leaves = jax.tree.leaves(nnx.state(half, nnx.Param))
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    assert half.backbone(batch).dtype == jnp.bfloat16
    assert half.backbone.extractor(batch['audio']).dtype == jnp.bfloat16
    assert half.features(batch).dtype == half(batch).dtype == np.float32
    one, other = exact.features(batch), half.features(batch)
    assert 1e-4 < np.abs(one - other).max() < 0.1 * np.abs(one).max()


def test_dropout_is_drawn_at_the_call():
    batch, train, quiet = {'audio': wave()}, made(train=True), made()
    one = train(batch, rngs=nnx.Rngs(dropout=1))
    np.testing.assert_array_equal(one, train(batch, rngs=nnx.Rngs(dropout=1)))
    assert np.abs(one - train(batch, rngs=nnx.Rngs(dropout=2))).max() > 1e-3
    np.testing.assert_array_equal(quiet(batch), quiet(batch, rngs=nnx.Rngs(dropout=1)))
    still = made(train=True, dropout=0.0, attention_dropout=0.0)
    np.testing.assert_array_equal(still(batch, rngs=nnx.Rngs(dropout=1)), quiet(batch))
    only_attention = made(train=True, dropout=0.0)(batch, rngs=nnx.Rngs(dropout=1))
    assert np.abs(only_attention - quiet(batch)).max() > 1e-3


def test_weights_start_as_in_the_original():
    changes = dict(width=128, hidden=128, conv_widths=(64, 64), conv_bias=True)
    model = models.build({**SMALL, **changes}, EXAMPLE, 3)
    flat = trees.flatten(jax.jit(model.init)(jax.random.key(0))['params'])
    # He et al. 2015 for convolutions, PyTorch's default where frames are projected.
    deviations = {
        'backbone/extractor/layer0/conv/kernel': (2 / 10) ** 0.5,
        'backbone/extractor/layer1/conv/kernel': (2 / (3 * 64)) ** 0.5,
        'backbone/extractor/layer1/conv/bias': (1 / (3 * 64) / 3) ** 0.5,
        'backbone/projection/linear/kernel': (1 / 64 / 3) ** 0.5,
        'backbone/projection/linear/bias': (1 / 64 / 3) ** 0.5,
        'backbone/position/direction': 2 / (6 * 128) ** 0.5,
        'backbone/block0/attention/query/kernel': 0.02,
        'backbone/block1/mlp/down/kernel': 0.02,
        'head/kernel': 0.02,
    }
    for path, expected in deviations.items():
        assert float(flat[path].std()) == pytest.approx(expected, rel=0.2), path
    np.testing.assert_allclose(
        flat['backbone/position/magnitude'],
        audio.norms_of_taps(flat['backbone/position/direction']),
        rtol=1e-6,
    )
    for path in ('backbone/block0/mlp/up/bias', 'backbone/position/bias', 'head/bias'):
        assert not np.asarray(flat[path]).any()


@pytest.mark.parametrize(
    ('changes', 'count'),
    [
        # Baevski et al. 2020, section 4.2: 95 and 317 million. The published base model counts
        # 94,371,712: 768 more, for the vector that stands for frames hidden in training.
        ({}, 94_370_944),
        (XLSR, 315_437_696),
    ],
)
def test_sizes(changes, count):
    example = {'audio': jax.ShapeDtypeStruct((16000,), np.float32)}
    shapes = models.build({'name': 'wav2vec2', **changes}, example, 2).shapes()
    assert not shapes['batch_stats']
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes['params']['backbone'])) == count


def test_paths():
    flat = trees.flatten(models.build(SMALL, EXAMPLE, 3).shapes()['params'])
    assert flat['backbone/extractor/layer0/conv/kernel'].shape == (10, 1, 12)
    assert flat['backbone/extractor/layer0/norm/scale'].shape == (12,)
    assert flat['backbone/projection/linear/kernel'].shape == (8, 16)
    assert flat['backbone/position/direction'].shape == (6, 4, 16)
    assert flat['backbone/position/magnitude'].shape == (6, 1, 1)
    assert flat['backbone/block1/mlp/up/kernel'].shape == (16, 32)
    assert flat['head/kernel'].shape == (16, 3)
    assert len(flat) == 4 + 4 + 3 + 2 + 2 * 16 + 2


@pytest.mark.parametrize(
    ('changes', 'example', 'said'),
    [
        ({}, {'tokens': jax.ShapeDtypeStruct((13,), np.int32)}, "it reads sounds, under 'audio'"),
        ({}, {'audio': jax.ShapeDtypeStruct((200, 2), np.float32)}, r'of shape \(samples,\)'),
        ({}, {'audio': jax.ShapeDtypeStruct((19,), np.float32)}, '19 samples, .* alone sees 20'),
        (dict(heads=3), EXAMPLE, '3 heads do not divide a width of 16'),
        (dict(position_groups=3), EXAMPLE, 'position_groups is 3; it must divide 16'),
        (dict(position_kernel=0), EXAMPLE, 'position_kernel is 0'),
        (dict(pool='max'), EXAMPLE, "pool is 'max'"),
        (dict(norm='layer'), EXAMPLE, "norm is 'layer'; it takes one of .'post', 'pre'"),
        (dict(conv_norm='batch'), EXAMPLE, "conv_norm is 'batch'"),
        (dict(activation='gleu'), EXAMPLE, "activation is 'gleu'"),
        (dict(dtype='float16'), EXAMPLE, "dtype is 'float16'"),
        (dict(conv_widths=(8,)), EXAMPLE, '1 conv_widths, 2 conv_kernels and 2 conv_strides'),
        (dict(conv_strides=(5, 0)), EXAMPLE, 'conv_strides is 0'),
        (dict(conv_widths=(), conv_kernels=(), conv_strides=()), EXAMPLE, 'there are 0 conv_w'),
    ],
)
def test_what_makes_no_sense_is_refused(changes, example, said):
    with pytest.raises(UserError, match=said):
        models.build({**SMALL, **changes}, example, 3)
