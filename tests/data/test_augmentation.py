"""Random changes of training pictures: what they do, and on what they depend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax import config as config_lib
from tljax.data import Order, augment, open_data
from tljax.data.augmentation import AUGMENTATIONS
from tljax.errors import UserError

IMAGES = np.arange(6 * 16 * 16 * 2, dtype=np.float32).reshape(6, 16, 16, 2) + 1


def test_a_flip_exchanges_left_and_right_in_half_of_the_cases():
    keys = jax.random.split(jax.random.key(0), 200)
    flipped = jax.vmap(AUGMENTATIONS['flip'], (None, 0))(IMAGES[0], keys)
    same = [np.array_equal(one, IMAGES[0]) for one in flipped]
    assert 70 < sum(same) < 130
    other = flipped[same.index(False)]
    np.testing.assert_array_equal(other, IMAGES[0][:, ::-1])


def test_a_crop_is_the_picture_moved_over_zeros():
    keys = jax.random.split(jax.random.key(0), 300)
    crops = np.asarray(jax.vmap(AUGMENTATIONS['crop'], (None, 0))(IMAGES[0], keys))
    wide = np.pad(IMAGES[0], ((2, 2), (2, 2), (0, 0)))
    windows = {wide[i : i + 16, j : j + 16].tobytes() for i in range(5) for j in range(5)}
    found = {one.tobytes() for one in crops}
    assert found == windows  # all 25 of them, and nothing else


def test_views_depend_on_example_and_view_alone():
    def views(rows, numbers, key):
        batch = {'image': jnp.asarray(IMAGES[rows]), 'row': rows, 'view': numbers}
        return np.asarray(augment(batch, ('crop', 'flip'), jax.random.key(key), 5)['image'])

    rows, numbers = np.array([0, 1, 2, 3]), np.array([0, 1, 0, 1])
    first = views(rows, numbers, 0)
    np.testing.assert_array_equal(first, views(rows, numbers, 1))
    np.testing.assert_array_equal(first[::-1], views(rows[::-1], numbers[::-1], 0))
    assert not np.array_equal(first, views(rows, 1 - numbers, 0))


def test_without_views_every_key_changes_pictures_anew():
    batch = {'image': jnp.asarray(IMAGES)}
    one, two = (augment(batch, ('crop',), jax.random.key(k), 0)['image'] for k in (0, 1))
    assert not np.array_equal(one, two)
    assert augment(batch, (), jax.random.key(0), 0) is batch


def test_the_epoch_of_each_example_of_a_batch():
    order = Order(5, 4, 0)
    np.testing.assert_array_equal(order.epochs(0), [0, 0, 0, 0])
    np.testing.assert_array_equal(order.epochs(1), [0, 1, 1, 1])


def test_an_unknown_name_is_told(tmp_path):
    section = config_lib.default().data
    section.update(name='handwritten_digits', augment=('flop',), dir=str(tmp_path))
    with pytest.raises(UserError, match=r"config\.data\.augment: no 'flop'\. Did you mean 'flip'"):
        open_data(section, 0)
