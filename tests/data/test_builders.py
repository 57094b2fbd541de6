"""Our two TFDS sets."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from tljax.data import open_data
from tljax.data.builders import printed_digits


@pytest.fixture(scope='module')
def printed():
    return printed_digits.render(1000, seed=5)


def test_same_seed_same_pixels(printed):
    again = printed_digits.render(1000, seed=5)[0]
    other = printed_digits.render(1000, seed=6)[0]
    np.testing.assert_array_equal(printed[0], again)
    assert (printed[0] != other).any(axis=(1, 2, 3)).mean() > 0.99


def test_form_is_that_of_handwritten_digits(printed):
    images, labels = printed
    assert images.shape == (1000, 8, 8, 1)
    assert images.dtype == np.uint8
    # 0 to 16 black pixels in a 4x4 block, times 255/16, is what handwritten_digits has as well.
    assert set(np.unique(images)) == {round(level * 255 / 16) for level in range(17)}
    assert np.bincount(labels).tolist() == [100] * 10
    # Fitted to the bounding box: ink in the first and last row.
    assert (images[:, 0].max(axis=(1, 2)) > 0).all()
    assert (images[:, -1].max(axis=(1, 2)) > 0).all()


ONE = """
 .##o
 ..oo
   oo
   oo
   oo
   oo
   oo
 .####o
"""
FOUR = """
    #o
   o#o
  .#.o
  # .o
 oo .o
 ##o##o
 ....#.
    .o
"""


@pytest.mark.parametrize(('digit', 'expected'), [(1, ONE), (4, FOUR)])
def test_digits_look_like_digits(digit, expected):
    """DejaVu Sans, undistorted: upright, not mirrored, hole open. Pictures checked by eye."""
    contours = printed_digits.outline('DejaVuSans.ttf', digit)
    image = printed_digits.draw(contours, np.eye(2))
    lines = [''.join(' .o#'[value // 64] for value in row).rstrip() for row in image]
    assert lines == expected.strip('\n').split('\n')


def test_every_font_is_used_and_found():
    assert len(set(printed_digits.FONTS)) == 16
    for font in printed_digits.FONTS:
        points = np.concatenate(printed_digits.outline(font, 8))
        assert points[:, 1].max() - points[:, 1].min() == pytest.approx(1)


def test_printed_tells_about_handwritten():
    """The premise of the embedded default: far above chance (0.1), and far from solved.

    With 10,000 printed digits it is 0.69; on printed digits themselves 1.00.
    """
    images, labels = printed_digits.render(3000, seed=0)
    digits = load_digits()
    hand = (digits.images[:1197] * (255 / 16)).reshape(-1, 64)
    nearest = KNeighborsClassifier(5).fit(images.reshape(-1, 64).astype(float), labels)
    assert 0.55 < nearest.score(hand, digits.target[:1197]) < 0.8


def test_printed_splits(configure):
    data = open_data(configure('printed_digits', holdout=0.0), seed=0)
    train, test = data.split('train'), data.split('test')
    assert (len(train), len(test)) == (10_000, 2_000)
    assert np.bincount(train.labels()).tolist() == [1000] * 10
    assert np.bincount(test.labels()).tolist() == [200] * 10
    images, test_images = train.arrays()['image'], test.arrays()['image']
    expected, _ = printed_digits.render(10_000, (printed_digits.SEED, 0))
    np.testing.assert_array_equal(images, expected)
    seen = {image.tobytes() for image in images}
    assert not [image for image in test_images if image.tobytes() in seen]
    assert 'synthetic' in data.description.lower()
    assert 'fonts' in data.synthetic


def test_handwritten_is_scikit_learns_in_file_order(configure):
    data = open_data(configure(holdout=0.0), seed=0)
    digits = load_digits()
    levels = np.array([round(level * 255 / 16) for level in range(17)], np.uint8)
    for name, part in (('train', slice(0, 1197)), ('test', slice(1197, 1797))):
        arrays = data.split(name).arrays()
        np.testing.assert_array_equal(
            arrays['image'][..., 0], levels[digits.images[part].astype(int)]
        )
        np.testing.assert_array_equal(arrays['label'], digits.target[part])
    assert data.synthetic == ''


PREPARE = """
import sys
from tljax.data import prepared
builder = prepared.open_builder('handwritten_digits', sys.argv[1])
assert builder.info.splits['train'].num_examples == 1197
assert len(builder.as_data_source('test')) == 600
assert 'tensorflow' not in sys.modules
"""


def test_processes_may_prepare_at_the_same_time(tmp_path):
    """On a cluster every process finds the set missing; all must end with a complete one."""
    command = [sys.executable, '-c', PREPARE, str(tmp_path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in running:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        assert out == ''  # stdout is for results
    assert [path.name for path in (tmp_path / 'handwritten_digits').iterdir()] == ['1.0.0']
