"""Decoding image files, and what happens to images on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tljax.data import Form, load_images, normalise
from tljax.data.decode import decode
from tljax.errors import UserError

EXAMPLE = Form((4, 4, 3))


def save(path, array, **options):
    Image.fromarray(np.asarray(array, np.uint8)).save(path, **options)
    return path


@pytest.fixture
def colour(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (4, 4, 3))
    return save(tmp_path / 'colour.png', array), array


def test_pixels_come_back(colour):
    path, array = colour
    images = load_images([path, str(path)], EXAMPLE)
    assert images.shape == (2, 4, 4, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[1], array)  # red first


def test_channels_are_made_to_fit(colour, tmp_path):
    path, array = colour
    grey = load_images([path], Form((4, 4, 1)))
    # ITU-R BT.601.
    assert abs(grey[0, ..., 0] - array @ [0.299, 0.587, 0.114]).max() < 1
    flat = save(tmp_path / 'grey.png', np.full((4, 4), 77))
    assert (load_images([flat], EXAMPLE) == 77).all()
    clear = save(tmp_path / 'alpha.png', np.full((4, 4, 4), [10, 20, 30, 0]))
    assert (load_images([clear], EXAMPLE) == [10, 20, 30]).all()
    alpha = load_images([clear], Form((4, 4, 4)))
    assert (alpha == [10, 20, 30, 0]).all()


def test_sizes_are_made_to_fit(tmp_path):
    large = np.zeros((8, 16, 3))
    large[:, 8:] = 200
    images = load_images([save(tmp_path / 'large.png', large)], EXAMPLE)
    assert (images[0, :, :2] == 0).all()
    assert (images[0, :, 2:] == 200).all()


@pytest.mark.parametrize(('size', 'box'), [((6, 10), (2, 0)), ((10, 6), (0, 2))])
def test_the_middle_of_the_shorter_side_is_taken(tmp_path, size, box):
    array = np.random.default_rng(0).integers(0, 256, (*size, 3))
    path = save(tmp_path / 'photo.png', array)
    form = Form((6, 6, 3), 'crop', shorter=6, interpolation='bilinear')
    left, top = box
    np.testing.assert_array_equal(
        load_images([path], form)[0], array[top : top + 6, left : left + 6]
    )


def test_bilinear_is_taken_over_the_area_of_a_pixel(tmp_path):
    stripes = np.zeros((16, 16, 3))
    stripes[:, ::4] = 255  # to a quarter: without means over areas all or nothing is left
    path = save(tmp_path / 'stripes.png', stripes)
    image = load_images([path], Form((4, 4, 3), 'stretch', interpolation='bilinear'))
    assert image.min() > 30
    assert image.max() < 100


def test_photographs_are_turned_upright_for_predictions_only(tmp_path):
    array = np.zeros((4, 4, 3))
    array[0] = 255  # the sensor's first row
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees clockwise
    path = save(tmp_path / 'photo.png', array, exif=exif)
    upright = load_images([path], EXAMPLE)[0]
    assert (upright[:, -1] == 255).all()
    assert (upright[:, 0] == 0).all()
    stored = decode(path.read_bytes(), Form((4, 4, 3)), upright=False)
    assert (stored[0] == 255).all()


@pytest.mark.parametrize('content', [b'', b'hello', b'\x89PNG\r\n\x1a\n'])
def test_files_that_are_no_images(tmp_path, content):
    path = tmp_path / 'note.png'
    path.write_bytes(content)
    with pytest.raises(UserError, match=r'note\.png: it is no image'):
        load_images([path], EXAMPLE)


def test_of_a_torn_file_only_our_own_words_are_seen(tmp_path, capfd):
    path = save(tmp_path / 'torn.png', np.arange(3072, dtype=np.uint8).reshape(32, 32, 3))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r'or it is damaged\. Give whole PNG or JPEG files'):
        load_images([path], EXAMPLE)
    assert capfd.readouterr() == ('', '')


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r'nowhere\.png: cannot be read: No such file'):
        load_images([tmp_path / 'nowhere.png'], EXAMPLE)
    with pytest.raises(UserError, match='Is a directory'):
        load_images([tmp_path], EXAMPLE)
    with pytest.raises(UserError, match='no image files'):
        load_images([], EXAMPLE)


def test_alpha_that_is_missing(colour):
    with pytest.raises(UserError, match='no alpha channel'):
        load_images([colour[0]], Form((4, 4, 4)))


def test_another_size_is_refused_where_sizes_are_fixed(colour):
    with pytest.raises(ValueError, match='4x4, not 8x8'):
        decode(colour[0].read_bytes(), Form((8, 8, 3)), upright=False)


def test_normalise():
    image = np.arange(2 * 3 * 3 * 2, dtype=np.uint8).reshape(2, 3, 3, 2)
    batch = {'image': jnp.asarray(image), 'label': jnp.array([1, 2])}
    plain = normalise(batch)
    assert plain['image'].dtype == jnp.float32
    np.testing.assert_allclose(plain['image'], image / 255, rtol=1e-6)
    np.testing.assert_array_equal(plain['label'], [1, 2])
    mean, std = (0.1, 0.2), (0.3, 0.4)
    expected = (image / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(jax.jit(normalise)(batch, mean, std)['image'], expected, rtol=2e-5)
    single = normalise({'image': jnp.asarray(image[0])}, (0.5,), (0.5,))
    np.testing.assert_allclose(single['image'], image[0] / 127.5 - 1, rtol=1e-5, atol=1e-6)


def test_normalise_leaves_its_argument_alone():
    batch = {'image': jnp.zeros((1, 2, 2, 1), jnp.uint8)}
    normalise(batch, (0.5,), (0.5,))
    assert batch['image'].dtype == jnp.uint8
