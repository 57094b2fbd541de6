"""Resized leaves against computations of another origin: closed forms, Pillow, convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tljax.transfer import resize
from tljax.transfer.resize import input_channels, position_embeddings

PILLOW = {'bicubic': Image.Resampling.BICUBIC, 'bilinear': Image.Resampling.BILINEAR}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ramp(side):
    """A plane over the picture [0, 1] x [0, 1] at the patches' centres: 3 along rows, 1 along
    columns, so that a grid read the wrong way round does not pass."""
    centre = (np.arange(side) + 0.5) / side
    return (3 * centre[:, None] + centre[None, :]).astype(np.float32)


@pytest.mark.parametrize('method', ['bilinear', 'bicubic'])
@pytest.mark.parametrize(('old', 'new'), [(7, 14), (7, 12), (14, 24), (16, 8)])
def test_a_linear_ramp_stays_the_same_ramp_inside(method, old, new):
    leaf = ramp(old).reshape(1, old * old, 1)
    resized = position_embeddings(leaf, (1, new * new, 1), method).reshape(new, new)
    # The border has no neighbours to interpolate from: two old patches (cubic) on each side.
    margin = int(np.ceil(2.5 * max(new / old, 1)))
    inside = slice(margin, new - margin)
    assert new - 2 * margin >= 2
    np.testing.assert_allclose(resized[inside, inside], ramp(new)[inside, inside], atol=2e-6)
    assert np.abs(resized - ramp(new)).max() > 1e-3, 'the border should differ'


@pytest.mark.parametrize('method', ['bilinear', 'bicubic'])
@pytest.mark.parametrize(('old', 'new'), [(1, 3), (2, 5), (7, 14), (14, 24), (24, 14), (16, 4)])
def test_every_dimension_is_resized_as_pillow_resizes_a_picture(method, old, new):
    leaf = normal(2, old * old, 3)
    resized = position_embeddings(leaf, (2, new * new, 3), method)
    assert resized.shape == (2, new * new, 3)
    for layer in range(2):
        for channel in range(3):
            picture = Image.fromarray(leaf[layer, :, channel].reshape(old, old))
            expected = np.asarray(picture.resize((new, new), PILLOW[method]))
            found = resized[layer, :, channel].reshape(new, new)
            # Of values about 1 in size; both round sample positions to float32 in their own way.
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bicubic_is_what_a_plan_uses():
    leaf = normal(1, 49, 2)
    by_plan = resize.resize('position', leaf, (1, 64, 2))
    np.testing.assert_array_equal(by_plan, position_embeddings(leaf, (1, 64, 2), 'bicubic'))
    assert not np.allclose(by_plan, position_embeddings(leaf, (1, 64, 2), 'bilinear'))


def test_the_class_token_is_copied_and_the_grid_resized_without_it():
    leaf = normal(1, 1 + 49, 5)
    resized = np.asarray(position_embeddings(leaf, (1, 1 + 100, 5)))
    np.testing.assert_array_equal(resized[:, 0], leaf[:, 0])
    alone = position_embeddings(leaf[:, 1:], (1, 100, 5))
    np.testing.assert_array_equal(resized[:, 1:], alone)


@pytest.mark.parametrize(('shape', 'new'), [((16, 3), (25, 3)), ((2, 3, 17, 4), (2, 3, 10, 4))])
def test_there_may_be_any_number_of_leading_axes(shape, new):
    leaf = normal(*shape)
    resized = position_embeddings(leaf, new)
    assert resized.shape == new
    if len(shape) > 2:
        np.testing.assert_allclose(
            resized[1, 2], position_embeddings(leaf[1, 2], new[2:]), atol=1e-6
        )


def test_equal_positions_stay_equal():
    leaf = np.full((1, 26, 3), 0.37, np.float32)
    np.testing.assert_allclose(position_embeddings(leaf, (1, 50, 3)), 0.37, rtol=1e-6)


@pytest.mark.parametrize('how', ['position', 'channels'])
def test_the_same_size_is_the_same_array_bit_for_bit(how):
    leaf = normal(3, 3, 4, 8)
    leaf[0, 0, 0, :4] = [np.nan, np.inf, -0.0, 1e-45]
    before = leaf.copy()
    assert resize.resize(how, leaf, (3, 3, 4, 8)) is leaf
    assert leaf.tobytes() == before.tobytes()


@pytest.mark.parametrize(
    ('how', 'old', 'new'),
    [('position', (1, 16, 8), (1, 36, 8)), ('channels', (3, 3, 3, 8), (3, 3, 2, 8))],
)
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_is_rounded_once_at_the_end(how, old, new, dtype):
    leaf = jnp.asarray(normal(*old), dtype)
    resized = resize.resize(how, leaf, new)
    assert resized.dtype == dtype
    exact = resize.resize(how, leaf.astype(jnp.float32), new)
    np.testing.assert_array_equal(resized, exact.astype(dtype))


def test_half_precision_sums_do_not_lose_small_channels():
    # In bfloat16 256 + 1 is 256 again; the sum of all three, 258, has a bfloat16 of its own.
    kernel = jnp.asarray([256, 1, 1], jnp.bfloat16).reshape(1, 1, 3, 1)
    assert float(input_channels(kernel, (1, 1, 1, 1)).item()) == 258


@pytest.mark.parametrize('old', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('new', [1, 2, 3, 4, 6, 7])
def test_a_grey_picture_gets_the_response_it_had(old, new):
    kernel, grey = normal(3, 3, old, 8), normal(2, 6, 6, 1, seed=1)

    def response(kernel):
        picture = np.repeat(grey, kernel.shape[2], axis=-1)
        return jax.lax.conv_general_dilated(
            picture, jnp.asarray(kernel), (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    resized = input_channels(kernel, (3, 3, new, 8))
    assert resized.shape == (3, 3, new, 8)
    np.testing.assert_allclose(response(resized), response(kernel), atol=1e-5)


def test_three_channels_to_one_is_their_sum():
    kernel = normal(3, 3, 3, 8)
    expected = (kernel[:, :, 0] + kernel[:, :, 1] + kernel[:, :, 2])[:, :, None]
    np.testing.assert_allclose(input_channels(kernel, (3, 3, 1, 8)), expected, atol=1e-6)


@pytest.mark.parametrize(('old', 'times'), [(1, 3), (3, 2), (3, 4)])
def test_a_multiple_of_the_channels_is_tiling_scaled_down(old, times):
    kernel = normal(3, 3, old, 8)
    expected = np.tile(kernel, (1, 1, times, 1)) / times
    np.testing.assert_allclose(input_channels(kernel, (3, 3, old * times, 8)), expected, rtol=1e-6)


def test_channels_that_do_not_divide_share_what_falls_on_the_same_place():
    kernel = np.array([1, 2, 4], np.float32).reshape(1, 1, 3, 1)
    assert input_channels(kernel, (1, 1, 2, 1)).ravel().tolist() == [1 + 4, 2]
    assert input_channels(kernel, (1, 1, 5, 1)).ravel().tolist() == [0.5, 1, 4, 0.5, 1]


def test_kernels_of_any_number_of_spatial_axes_have_input_channels():
    assert input_channels(normal(5, 1, 4), (5, 2, 4)).shape == (5, 2, 4)
    assert input_channels(normal(2, 3, 3, 3, 4), (2, 3, 3, 1, 4)).shape == (2, 3, 3, 1, 4)


@pytest.mark.parametrize(
    ('old', 'new', 'reason'),
    [
        (
            (1, 15, 8),
            (1, 16, 8),
            '15 positions are no square grid, with or without a class token before it',
        ),
        (
            (1, 16, 8),
            (1, 0, 8),
            '0 positions are no square grid, with or without a class token before it',
        ),
        (
            (1, 17, 8),
            (1, 36, 8),
            'the source has a class token before its grid (4x4 -> 6x6), and the target has none',
        ),
        (
            (1, 16, 8),
            (1, 37, 8),
            'the target has a class token before its grid (4x4 -> 6x6), and the source has none',
        ),
        ((1, 16, 8), (1, 36, 9), 'only the positions (the axis before the last) may differ'),
        ((2, 16, 8), (1, 36, 8), 'only the positions (the axis before the last) may differ'),
        ((16, 8), (1, 36, 8), 'only the positions (the axis before the last) may differ'),
        ((16,), (36,), 'positions are the axis before the last, and there is no such axis'),
    ],
)
def test_positions_that_cannot_be_resized_say_why(old, new, reason):
    for refuse in (
        lambda: resize.describe('position', old, new),
        lambda: position_embeddings(np.zeros(old, np.float32), new),
    ):
        with pytest.raises(ValueError, match=r'positions|token') as caught:
            refuse()
        assert str(caught.value) == reason


@pytest.mark.parametrize(
    ('old', 'new', 'reason'),
    [
        (
            (3, 3, 3, 8),
            (3, 3, 1, 16),
            'only the input channels (the axis before the last) may differ',
        ),
        (
            (3, 3, 3, 8),
            (5, 5, 1, 8),
            'only the input channels (the axis before the last) may differ',
        ),
        (
            (3, 3, 3, 8),
            (3, 1, 8),
            'only the input channels (the axis before the last) may differ',
        ),
        ((3, 8), (1, 8), 'a convolution kernel has at least 3 axes: spatial, input, output'),
        ((3, 3, 0, 8), (3, 3, 1, 8), 'a kernel without input channels cannot be resized'),
    ],
)
def test_kernels_that_cannot_be_resized_say_why(old, new, reason):
    for refuse in (
        lambda: resize.describe('channels', old, new),
        lambda: input_channels(np.zeros(old, np.float32), new),
    ):
        with pytest.raises(ValueError, match=r'kernel|channels') as caught:
            refuse()
        assert str(caught.value) == reason


def test_descriptions_name_both_sizes():
    assert resize.describe('position', (1, 49, 8), (1, 64, 8)) == '7x7 -> 8x8 positions, bicubic'
    assert resize.describe('position', [1, 50, 8], [1, 65, 8]) == (
        '7x7 -> 8x8 positions, bicubic; class token kept'
    )
    assert resize.describe('channels', (3, 3, 3, 8), (3, 3, 1, 8)) == '3 -> 1 input channels'
