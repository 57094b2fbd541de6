"""Pictures that two sets share: what is found, what is not, and by an oracle of plain loops."""

import sys

import cv2
import numpy as np
import pytest
from scenes import as_jpeg, scene, scenes
from sklearn.datasets import load_digits

from tljax.data.duplicates import pictures
from tljax.data.duplicates.pictures import matches, prints
from tljax.errors import UserError

RNG = np.random.default_rng(0)
COPIES = {
    'jpeg': lambda p: as_jpeg(p, 30),
    'smaller': lambda p: cv2.resize(p, (48, 48), interpolation=cv2.INTER_AREA),
    'larger': lambda p: cv2.resize(p, (200, 200), interpolation=cv2.INTER_CUBIC),
    'squeezed': lambda p: cv2.resize(p, (96, 60), interpolation=cv2.INTER_AREA),
    'grey': lambda p: cv2.cvtColor(p, cv2.COLOR_RGB2GRAY),
    'one channel': lambda p: cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[..., None],
    'with alpha': lambda p: np.concatenate([p, np.full((*p.shape[:2], 1), 255, np.uint8)], 2),
    'paler': lambda p: (0.8 * p + 20).astype(np.uint8),
    'noisy': lambda p: np.clip(p + RNG.normal(0, 8, p.shape), 0, 255).astype(np.uint8),
}


def pairs(found):
    return [(match.left, match.right) for match in found]


@pytest.fixture(scope='module')
def originals():
    return prints(scenes(24))


@pytest.mark.parametrize('kind', COPIES)
def test_copies_are_found_and_others_are_not(originals, kind):
    others = scenes(24, first=100)
    copies = [COPIES[kind](picture) for picture in scenes(24)[::3]]
    found = matches(originals, prints([*others, *copies]))
    assert pairs(found) == [(3 * k, 24 + k) for k in range(8)]
    assert not any(match.exact for match in found)
    assert all(pictures.ALIKE <= match.similarity <= 1 for match in found)


def test_identical_pictures_are_exact_and_need_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagehash', None)
    left, right = scenes(4), [scene(50), scene(2).copy(), scene(2)[:, :95]]
    found = matches(prints(left, near=False), prints(right, near=False))
    assert found == [(2, 1, 1.0, True)]
    with pytest.raises(UserError, match=r"imagehash.*pip install 'tljax\[duplicates\]'"):
        prints(left)


def test_grey_and_its_single_channel_are_the_same_bytes_but_shapes_count():
    one = np.arange(64, dtype=np.uint8).reshape(8, 8)
    left, right = prints([one], near=False), prints([one[..., None]], near=False)
    assert pairs(matches(left, right)) == [(0, 0)]
    assert not matches(left, prints([one.reshape(4, 16)], near=False))


def test_blank_pictures_are_like_nothing():
    blank = np.full((16, 16, 3), 9, np.uint8)
    nearly = blank.copy()
    nearly[3, 3] = 10
    left = prints([blank, scene(1)])
    assert left.blank_N.tolist() == [True, False]
    assert matches(left, prints([blank, nearly, scene(1)])) == [(1, 2, 1.0, True)]


def test_a_mirrored_picture_is_another(originals):
    assert not matches(originals, prints([np.ascontiguousarray(p[:, ::-1]) for p in scenes(24)]))


def test_of_several_the_most_alike_counts():
    picture = scene(3)
    left = prints([as_jpeg(picture, 15), as_jpeg(picture, 90), scene(4)])
    assert pairs(matches(left, prints([as_jpeg(picture, 85)]))) == [(1, 0)]
    # The same bytes go before anything that is only alike.
    left = prints([as_jpeg(picture, 90), picture])
    assert matches(left, prints([picture])) == [(1, 0, 1.0, True)]


def test_nothing_is_found_among_nothing(originals):
    assert matches(prints([]), originals) == []
    assert matches(originals, prints([])) == []


@pytest.mark.parametrize(
    'wrong', [np.zeros((8, 8), np.float32), np.zeros((8,), np.uint8), np.zeros((0, 8), np.uint8)]
)
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match='a picture is'):
        prints([wrong])


def test_the_hash_is_that_of_the_paper():
    """The 64 lowest frequencies of the cosine transform against their median, in float64."""
    k = np.arange(32)
    cosines = np.cos(np.pi * np.outer(k[:8], 2 * k + 1) / 64)
    for seed in range(6):
        picture = scene(seed, 32, 32)
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)
        low = cosines @ grey @ cosines.T
        wanted = low > np.median(low)
        found = prints([picture]).hashes_N[0]
        bits = np.array([int(found) >> (63 - n) & 1 for n in range(64)]).reshape(8, 8)
        # OpenCV's and Pillow's grey differ by one step, which can turn a bit at the median.
        assert (bits != wanted).sum() <= 2


def test_near_matches_are_those_of_plain_loops():
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**63, 400).astype(np.uint64)
    thumbs = rng.normal(size=(400, 16)).astype(np.float32)
    for row in range(300, 400):  # copies of others, some bits turned, some thumbnails shaken
        flips = sum(1 << int(b) for b in rng.choice(64, rng.integers(0, 14), replace=False))
        hashes[row] = int(hashes[row - 300]) ^ flips
        thumbs[row] = thumbs[row - 300] + rng.normal(size=16) * rng.choice([0.01, 0.1, 0.4])
    thumbs /= np.linalg.norm(thumbs, axis=1, keepdims=True)
    blank = rng.random(400) < 0.1

    def part(rows):
        digests = tuple(b'%d' % row for row in rows)
        return pictures.Prints(digests, hashes[rows], thumbs[rows], blank[rows])

    wanted = {}
    for right in range(300, 400):
        best = pictures.ALIKE
        for left in range(300):
            distance = bin(int(hashes[left]) ^ int(hashes[right])).count('1')
            alike = float(np.dot(thumbs[left].astype(float), thumbs[right].astype(float)))
            if not (blank[left] or blank[right]) and distance <= pictures.RADIUS and alike >= best:
                wanted[right - 300], best = left, alike
    assert 10 < len(wanted) < 90
    found = matches(part(np.arange(300)), part(np.arange(300, 400)))
    assert {match.right: match.left for match in found} == wanted


def test_small_simple_pictures_do_not_all_look_the_same():
    """Hundreds of these digits have hashes that are near; no two are the same picture."""
    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    train, test = prints(images[:1197]), prints(images[1197:])
    distances = np.bitwise_count(test.hashes_N[:, None] ^ train.hashes_N[None, :])
    assert (distances <= pictures.RADIUS).sum() > 300
    assert len(matches(train, test)) <= 1
