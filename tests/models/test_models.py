"""Building models by name, splitting and merging them, and the layers they share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tljax import trees
from tljax.errors import UserError
from tljax.models import build, merge
from tljax.models.build import MODELS, READABLE, factory_of, variables_of
from tljax.models.layers import conv, shifted_slices_conv, windowed_conv

EXAMPLE = {'image': jax.ShapeDtypeStruct((8, 8, 1), np.uint8)}


@pytest.mark.parametrize('size', [1, 2, 6])
@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((1, 1), (2, 1))])
@pytest.mark.parametrize('stride', [1, 2])
def test_shifted_slices_equal_the_library_convolution(size, padding, stride, key):
    if padding == 'VALID' and size < 3:
        pytest.skip('nothing comes out')
    one, two = jax.random.split(key)
    x, kernel = jax.random.normal(one, (2, size, 5, 3)), jax.random.normal(two, (3, 3, 3, 4))
    numbers = ('NHWC', 'HWIO', 'NHWC')
    expected = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=numbers
    )
    for function in (shifted_slices_conv, windowed_conv):
        got = function(x, kernel, (stride, stride), padding, dimension_numbers=numbers)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_only_large_maps_keep_the_library_convolution(monkeypatch):
    layer = conv(3, 4, 3, rngs=nnx.Rngs(params=0))

    def lowered(size):
        return str(jax.make_jaxpr(lambda x: layer(x))(jnp.zeros((1, size, size, 3))))

    assert 'conv_general_dilated' in lowered(9)
    assert 'conv_general_dilated' not in lowered(8)
    monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
    assert 'conv_general_dilated' in lowered(8)


@pytest.mark.parametrize('norm', ['none', 'batch'])
def test_convnet_has_a_backbone_and_a_head(norm, key):
    model = build({'name': 'convnet', 'norm': norm}, EXAMPLE, 10)
    variables = model.init(key)
    assert {path.split('/')[0] for path in trees.flatten(variables['params'])} == {
        'backbone',
        'head',
    }
    assert bool(trees.flatten(variables['batch_stats'])) == (norm == 'batch')
    module = merge(model.graph(train=False), variables['params'], variables['batch_stats'])
    batch = {'image': jnp.ones((3, 8, 8, 1))}
    assert module(batch).shape == (3, 10)
    np.testing.assert_array_equal(module.head(module.features(batch)), module(batch))


def test_init_under_jit_and_vmap_draws_the_same_numbers(key):
    model = build({'name': 'convnet', 'widths': (4,), 'hidden': 8}, EXAMPLE, 2)
    keys = jax.random.split(key, 2)
    mapped = jax.vmap(model.init)(keys)
    for index in range(2):
        jax.tree.map(
            lambda one, many, i=index: np.testing.assert_allclose(one, many[i], rtol=1e-6),
            jax.jit(model.init)(keys[index]),
            mapped,
        )


@pytest.mark.parametrize(
    ('config', 'said'),
    [
        ({'name': 0}, 'no model 0'),
        ({'name': 'convnet', 'hidden': 0}, 'convnet cannot be built so'),
        ({'name': 'convet'}, "no model 'convet'. Did you mean 'convnet'"),
        ({'name': 'convnet', 'width': 3}, "convnet has no such argument. Did you mean 'widths'"),
        ({'name': 'convnet', 'norm': 'layer'}, "norm is 'layer'"),
        ({'name': 'convnet', 'widths': (1, 2, 3, 4)}, '4 poolings leave nothing'),
    ],
)
def test_wrong_models(config, said):
    with pytest.raises(UserError) as caught:
        build(config, EXAMPLE, 2)
    assert said in str(caught.value)


def test_a_module_that_keeps_random_state_is_refused():
    with pytest.raises(TypeError, match='neither Param nor BatchStat'):
        variables_of(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize('name', MODELS)
def test_a_model_says_what_it_reads_where_an_example_lacks_that(name):
    reads = factory_of(name).reads
    example = {'tokens' if reads == 'image' else 'image': EXAMPLE['image']}
    with pytest.raises(UserError) as told:
        build({'name': name}, example, 2)
    assert f'{name} cannot be built so: it reads {READABLE[reads]}, under' in str(told.value)
    assert repr(reads) in str(told.value)
    assert 'config.source.uri' in str(told.value)
