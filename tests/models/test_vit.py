"""Vision transformers: patches, positions, pooling, dtypes and sizes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity_support import Case, batch_of, built, leaves_of, module_of, ours

from tljax import models, trees
from tljax.errors import UserError
from tljax.models.vit import SIZES, patches_conv, sincos2d
from tljax.transfer import surgery

SMALL = dict(width=16, layers=2, heads=2, hidden=24, patch=4)


def case(shape=(8, 12, 3), outputs=3, **changes):
    return Case('', 'vit', {**SMALL, **changes}, {'image': shape}, outputs, '')


def example(*shape):
    return {'image': jax.ShapeDtypeStruct(shape or (224, 224, 3), np.uint8)}


def shapes_of(model):
    return {path: leaf.shape for path, leaf in trees.flatten(model.shapes()['params']).items()}


@pytest.mark.parametrize(
    ('size', 'patch', 'expected'),
    # As timm counts them.
    [
        ('Ti', 16, 5717416),
        ('S', 16, 22050664),
        ('S', 32, 22878952),
        ('B', 16, 86567656),
        ('L', 16, 304326632),
    ],
)
def test_number_of_parameters(size, patch, expected):
    config = models.arguments('vit', **SIZES[size], patch=patch)
    shapes = shapes_of(models.build(config, example(), 1000))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == expected
    assert shapes['backbone/position'] == (1, 1 + (224 // patch) ** 2, SIZES[size]['width'])


def test_the_default_is_vit_b():
    assert models.arguments('vit') == models.arguments('vit', **SIZES['B'], patch=16)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 8, 12, 3), (1, 4, 4, 1), (3, 20, 4, 5)])
def test_patches_are_a_convolution(shape, monkeypatch):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], shape)
    kernel = jax.random.normal(keys[1], (4, 4, shape[-1], 6))
    weights = jax.random.normal(keys[2], (shape[0], shape[1] // 4, shape[2] // 4, 6))
    numbers = ('NHWC', 'HWIO', 'NHWC')

    def total(function, x, kernel):
        y = function(x, kernel, (4, 4), 'VALID', dimension_numbers=numbers)
        return (y * weights).sum(), y

    (_, got), slopes = jax.value_and_grad(total, (1, 2), has_aux=True)(patches_conv, x, kernel)
    (_, expected), theirs = jax.value_and_grad(total, (1, 2), has_aux=True)(
        jax.lax.conv_general_dilated, x, kernel
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    for mine, other in zip(slopes, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)

    def traced():
        return str(jax.make_jaxpr(lambda x: total(patches_conv, x, kernel)[1])(x))

    assert 'conv_general_dilated' not in traced()
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert 'conv_general_dilated' in traced()


def test_tokens_are_patches_row_by_row_behind_the_class_token():
    small = case((8, 12, 3))
    leaves = leaves_of(small)
    module = module_of(small, leaves)
    picture = np.zeros((1, 8, 12, 3), np.float32)
    picture[0, 4:, 8:] = 1.0  # the last patch of six
    leaves['backbone/position'] = np.zeros((1, 7, 16), np.float32)
    tokens = np.asarray(module_of(small, leaves).backbone.tokens(jnp.asarray(picture)))
    np.testing.assert_array_equal(tokens[0, 0], leaves['backbone/class_token'][0, 0])
    bias, kernel = leaves['backbone/patch/bias'], leaves['backbone/patch/kernel']
    for n in range(1, 6):
        np.testing.assert_array_equal(tokens[0, n], bias)
    np.testing.assert_allclose(tokens[0, 6], bias + kernel.sum((0, 1, 2)), rtol=1e-4, atol=1e-5)
    placed = np.asarray(module.backbone.tokens(jnp.asarray(picture)))
    np.testing.assert_allclose(
        placed - tokens, leaves_of(small)['backbone/position'], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ('position', 'class_token', 'count'),
    [
        ('learnt', True, 7),
        ('learnt', False, 6),
        ('learnt_patches', True, 6),
        ('learnt_patches', False, 6),
        ('sincos2d', True, None),
        ('sincos2d', False, None),
    ],
)
def test_which_tokens_have_positions(position, class_token, count):
    small = case(position=position, class_token=class_token, pool='mean')
    shapes = shapes_of(built(small))
    assert shapes.get('backbone/position') == (None if count is None else (1, count, 16))
    assert ('backbone/class_token' in shapes) is class_token
    leaves = leaves_of(small)
    token = np.asarray(
        module_of(small, leaves).backbone.tokens(jnp.asarray(batch_of(small)['image']))
    )[0, 0]
    if class_token:
        expected = leaves['backbone/class_token'][0, 0]
        if position == 'learnt':
            expected = expected + leaves['backbone/position'][0, 0]
        np.testing.assert_array_equal(token, expected)


def test_fixed_positions():
    table = sincos2d(3, 4, 16).reshape(3, 4, 16)
    assert table.dtype == np.float32
    # Halves of the width know the column alone, and the row alone.
    np.testing.assert_array_equal(table[0, :, :8], table[2, :, :8])
    np.testing.assert_array_equal(table[:, 0, 8:], table[:, 3, 8:])
    # One radian a patch at the highest frequency, 1 / 10000 at the lowest.
    np.testing.assert_allclose(table[0, 3, 0], np.sin(3), rtol=1e-6)
    np.testing.assert_allclose(table[2, 0, 11], 2e-4, rtol=1e-6)
    np.testing.assert_array_equal(np.abs(np.linalg.norm(table, axis=-1) - 8**0.5) < 1e-5, True)


@pytest.mark.parametrize('position', ['learnt', 'sincos2d'])
def test_pictures_of_another_size(position):
    small = case((8, 12, 3), position=position)
    module = module_of(small, leaves_of(small))
    larger = {'image': jnp.ones((1, 12, 16, 3))}
    if position == 'learnt':
        with pytest.raises(ValueError, match='makes 13 tokens, and there are positions for 7'):
            module(larger)
    else:
        assert np.isfinite(module(larger)).all()
    with pytest.raises(ValueError, match='4 x 4 pixels do not divide a picture of 10 x 12'):
        module({'image': jnp.ones((1, 10, 12, 3))})


@pytest.mark.parametrize('shape', [(4, 4, 1), (32, 4, 3), (8, 8, 6)])
@pytest.mark.parametrize('pool', ['cls', 'mean', 'mean_norm'])
def test_any_size_and_channels(shape, pool):
    small = case(shape, pool=pool)
    module = module_of(small, leaves_of(small))
    batch = batch_of(small, 3)
    features, logits = jax.jit(lambda batch: (module.features(batch), module(batch)))(batch)
    assert features.shape == (3, 16)
    assert features.dtype == logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(module.head(features), logits, rtol=1e-5, atol=1e-5)


def test_what_is_pooled():
    logits = {}
    for pool in ('cls', 'mean', 'mean_norm'):
        small = case(pool=pool)
        module = module_of(small, leaves_of(small))
        x = jnp.asarray(batch_of(small)['image'])
        tokens, norm = module.backbone(x), module.backbone.norm
        expected = {
            'cls': lambda tokens, norm: norm(tokens[:, 0]),
            'mean': lambda tokens, norm: norm(tokens)[:, 1:].mean(1),
            'mean_norm': lambda tokens, norm: norm(tokens[:, 1:].mean(1)),
        }[pool](tokens, norm)
        got = module.features({'image': x})
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        logits[pool] = got
    assert np.abs(logits['mean'] - logits['mean_norm']).max() > 0.1


def test_a_representation_is_what_the_head_sees():
    small = case(representation=5)
    module = module_of(small, leaves_of(small))
    features = module.features({'image': jnp.asarray(batch_of(small)['image'])})
    assert features.shape == (2, 5)
    assert np.abs(features).max() < 1
    assert shapes_of(built(small))['head/kernel'] == (5, 3)


def test_bfloat16_keeps_parameters_norms_and_logits_float32():
    batch = batch_of(case())
    logits = {}
    for dtype in ('float32', 'bfloat16'):
        small = case(dtype=dtype)
        logits[dtype] = ours(small)
        kinds = {leaf.dtype for leaf in trees.flatten(built(small).shapes()['params']).values()}
        assert kinds == {jnp.dtype('float32')}
    assert logits['bfloat16'].dtype == np.float32
    off = np.abs(logits['bfloat16'] - logits['float32']).max() / np.abs(logits['float32']).max()
    # bfloat16 has 8 bits: 0.4 % a rounding, a dozen of them.
    assert 1e-4 < off < 0.05
    small = case(dtype='bfloat16')
    model = built(small)
    traced = jax.make_jaxpr(
        lambda params, batch: models.merge(model.graph(train=False), params, {})(batch)
    )(model.shapes()['params'], batch)
    products = [str(e.outvars[0].aval.dtype) for e in traced.eqns if 'dot_general' in str(e)]
    # A patch product, eight in each of two blocks, and the head.
    assert sorted(products) == ['bfloat16'] * 17 + ['float32']


def test_how_weights_start():
    small = case((16, 16, 3), width=128, heads=4, hidden=512, representation=7)
    model = built(small)
    leaves = jax.jit(lambda key: trees.flatten(model.init(key)['params']))(jax.random.key(0))
    zero = {path for path, leaf in leaves.items() if not np.asarray(leaf).any()}
    kernels = {path for path in leaves if re.search('kernel|position|scale', path)}
    assert zero == leaves.keys() - kernels | {'head/kernel'}
    assert np.std(leaves['backbone/position']) == pytest.approx(0.02, rel=0.1)
    # Glorot and Bengio 2010, equation 16: uniform within sqrt(6 / (inputs + outputs)).
    for path, fans in (('attention/query', 256), ('attention/out', 256), ('mlp/up', 640)):
        kernel = np.abs(leaves[f'backbone/block1/{path}/kernel'])
        bound = (6 / fans) ** 0.5
        assert 0.99 * bound < kernel.max() <= bound
        assert kernel.mean() == pytest.approx(bound / 2, rel=0.03)
    # A variance of one over what a patch has.
    assert np.std(leaves['backbone/patch/kernel']) == pytest.approx(48**-0.5, rel=0.05)


def test_dropout_acts_in_training_only():
    small = case(dropout=0.5)
    leaves = leaves_of(small)
    np.testing.assert_array_equal(ours(small, leaves), ours(case(), leaves))
    module = module_of(small, leaves)
    module.train()
    batch = batch_of(small)

    def logits(seed):
        from flax import nnx

        return np.asarray(module(batch, nnx.Rngs(dropout=seed)))

    np.testing.assert_array_equal(logits(0), logits(0))
    assert np.abs(logits(0) - logits(1)).max() > 0.1


@pytest.mark.parametrize(
    ('shape', 'changes', 'positions'),
    [((16, 16, 3), {}, 17), ((4, 4, 3), {}, 2), ((16, 16, 3), dict(class_token=False), 16)],
)
def test_positions_are_resized_to_another_picture(shape, changes, positions):
    pool = 'cls' if changes.get('class_token', True) else 'mean'
    old, new = (case(size, pool=pool, **changes) for size in ((8, 8, 3), shape))
    source = leaves_of(old)
    target = {path: np.zeros_like(leaf) for path, leaf in leaves_of(new).items()}
    plan = surgery.plan(source, target, resize=[('backbone/position', 'position')])
    moved = surgery.apply(plan, source, target)
    actions = {entry.path: entry.action for entry in plan.entries}
    assert {path for path, action in actions.items() if action != 'loaded'} == {'backbone/position'}
    assert moved['backbone/position'].shape == (1, positions, 16)
    if pool == 'cls':
        np.testing.assert_array_equal(
            moved['backbone/position'][0, 0], source['backbone/position'][0, 0]
        )
    leaves = {path: np.asarray(leaf) for path, leaf in moved.items()}
    assert np.isfinite(ours(new, leaves)).all()


def test_positions_of_no_square_are_not_resized():
    source, target = leaves_of(case((8, 12, 3))), leaves_of(case((16, 16, 3)))
    with pytest.raises(UserError, match='7 positions are no square grid'):
        surgery.plan(source, target, resize=[('backbone/position', 'position')])


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(heads=5), '5 heads do not divide a width of 16'),
        (dict(heads=0), 'heads is 0; it must be at least 1'),
        (dict(layers=0), 'layers is 0'),
        (dict(patch=0), 'patch is 0'),
        (dict(patch=5), '5 x 5 pixels do not divide a picture of 8 x 12'),
        (dict(patch=24), '24 x 24 pixels do not divide a picture of 8 x 12'),
        (dict(pool='max'), "pool is 'max'; it takes one of"),
        (dict(position='rotary'), "position is 'rotary'; it takes one of"),
        (dict(class_token=False), "pool 'cls' needs class_token=True"),
        (dict(position='sincos2d', width=6), "'sincos2d' needs a width of 8, 12, 16"),
        (dict(representation=-1), 'representation is -1'),
        (dict(activation='swish'), "activation is 'swish'"),
        (dict(dtype='float16'), "dtype is 'float16'"),
    ],
)
def test_arguments_that_make_no_sense(changes, said):
    with pytest.raises(UserError, match=said):
        models.build({'name': 'vit', **SMALL, **changes}, example(8, 12, 3), 2)


def test_an_example_without_a_picture():
    with pytest.raises(UserError, match="reads images, under 'image'"):
        models.build({'name': 'vit'}, {'tokens': jax.ShapeDtypeStruct((5,), np.int32)}, 2)
