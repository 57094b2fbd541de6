"""Leaks that real sets have, in ../shared/data: every pair named here was looked at."""

import csv
import os
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest

from tljax.data.duplicates import pictures, sounds, texts

REALDATA = Path(os.environ.get('TLJAX_REALDATA', Path(__file__).parents[3] / 'shared' / 'data'))
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(
        not REALDATA.is_dir(), reason=f'no folder {REALDATA}; TLJAX_REALDATA names it'
    ),
]


def pictures_in(folder, flag=cv2.IMREAD_COLOR_RGB):
    files = sorted((REALDATA / folder).glob('*/*'))
    return files, pictures.prints([cv2.imread(str(file), flag) for file in files])


def test_slices_of_heads_are_in_training_and_testing():
    """Published as two splits without identical files; a tenth is the same in another contrast."""
    folder = 'medical/mri_brain_tumor_4class/'
    train_files, train = pictures_in(folder + 'training', cv2.IMREAD_GRAYSCALE)
    test_files, test = pictures_in(folder + 'testing', cv2.IMREAD_GRAYSCALE)
    found = pictures.matches(train, test)
    assert (len(train), len(test)) == (800, 240)
    assert 18 <= len(found) <= 24
    assert not any(match.exact for match in found)
    kinds = [(train_files[m.left].parent.name, test_files[m.right].parent.name) for m in found]
    assert all(one == other for one, other in kinds)


def test_cats_are_there_twice_and_no_cat_is_a_dog():
    files, cats = pictures_in('dogs_cats_breeds/cat')
    _, dogs = pictures_in('dogs_cats_breeds/dog')
    assert pictures.matches(dogs, cats) == []

    def part(rows):
        chosen = tuple(cats.digests[row] for row in rows)
        return pictures.Prints(
            chosen, cats.hashes_N[rows], cats.thumbs_NxP[rows], cats.blank_N[rows]
        )

    even, odd = np.arange(0, len(files), 2), np.arange(1, len(files), 2)
    found = pictures.matches(part(even), part(odd))
    names = {(files[even[m.left]].name, files[odd[m.right]].name): m.exact for m in found}
    assert names == {
        ('Cat1014.jpg', 'Cat1015.jpg'): True,
        ('Cat1064.jpg', 'Cat1037.jpg'): False,
        ('Cat1049.jpg', 'Cat1045.jpg'): True,
    }


def test_mails_are_sent_twice():
    csv.field_size_limit(10**9)
    with (REALDATA / 'text/spamassassin/emails.csv').open(encoding='utf-8') as file:
        bodies = [row['body'] for row in csv.DictReader(file)]
    left, right = bodies[::2], bodies[1::2]
    found = texts.matches(left, right)
    assert len(found) == 168
    sets = [texts.shingles(texts.words(text)) for text in left]
    for match in found[::8]:
        wanted = texts.shingles(texts.words(right[match.right]))
        assert match.exact or match.similarity == max(texts.resemblance(s, wanted) for s in sets)


def test_digits_that_one_speaker_says_twice_are_two_recordings():
    recordings = []
    for file in sorted((REALDATA / 'speech_digits_de_en').rglob('*.wav')):
        with wave.open(str(file)) as opened:
            recordings.append(np.frombuffer(opened.readframes(opened.getnframes()), np.int16))
            assert opened.getframerate() == 16_000
    assert len(recordings) == 840
    assert sounds.matches(recordings[::2], recordings[1::2], 16_000) == []
    some = recordings[::12]
    copies = [(0.4 * s[300:]).astype(np.int16) for s in some]
    found = sounds.matches(recordings, copies, 16_000)
    assert len(found) >= 0.95 * len(some)
    assert all(match.left == 12 * match.right for match in found)
