"""Texts that two sets share, against resemblance computed for every pair."""

import sys

import numpy as np
import pytest

from tljax.data.duplicates import texts
from tljax.errors import UserError

VOCABULARY = [a + b + c for a in 'bdfgklmn' for b in 'aeiou' for c in 'lmnrst']


def prose(rng, words):
    return ' '.join(rng.choice(VOCABULARY, words))


def edited(rng, text, edits):
    words = text.split()
    for place in rng.choice(len(words), edits, replace=False):
        words[place] = str(rng.choice(VOCABULARY))
    return ' '.join(words)


def test_the_same_words_are_exact_whatever_case_and_punctuation():
    left = ['one two three four', 'Hello, World']
    found = texts.matches(left, ['hello world!', 'ONE  two\nthree, four', 'two'], near=False)
    assert found == [(1, 0, 1.0, True), (0, 1, 1.0, True)]
    # Word borders count: they are no string of letters.
    assert not texts.matches(['ab c'], ['a bc'], near=False)


@pytest.mark.parametrize('text', ['', '...', ' \n'])
def test_texts_without_words_are_like_nothing(text):
    assert not texts.matches([text, 'a b c d'], [text])


def test_near_texts_are_those_that_all_pairs_give():
    rng = np.random.default_rng(0)
    left = [prose(rng, 150) for _ in range(60)]
    edits = [0, 1, 3, 5, 9, 30] * 10
    right = [edited(rng, text, n) for text, n in zip(left, edits, strict=True)]
    right += [prose(rng, 150) for _ in range(20)]

    def triples(text):
        words = text.split()
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    wanted = {}
    for j, text in enumerate(right):
        for i, other in enumerate(left):
            a, b = triples(text), triples(other)
            if len(a & b) / len(a | b) >= texts.ALIKE:
                wanted[j] = i, len(a & b) / len(a | b)
    found = texts.matches(left, right)
    assert {m.right: (m.left, pytest.approx(m.similarity)) for m in found} == wanted
    assert {m.right for m in found if m.exact} == set(range(0, 60, 6))
    assert 30 <= len(found) < 60


def test_it_is_the_same_every_time():
    rng = np.random.default_rng(1)
    left = [prose(rng, 80) for _ in range(30)]
    right = [edited(rng, text, 3) for text in left]
    assert texts.matches(left, right) == texts.matches(left, right)


def test_short_texts_are_compared_whole():
    assert not texts.matches(['good morning'], ['good evening'])
    assert texts.matches(['good morning'], ['Good morning.']) == [(0, 0, 1.0, True)]


def test_without_the_library_only_the_same_words_are_found(monkeypatch):
    monkeypatch.setitem(sys.modules, 'datasketch', None)
    assert texts.matches(['a b'], ['a b'], near=False)
    with pytest.raises(UserError, match=r"datasketch.*pip install 'tljax\[duplicates\]'"):
        texts.matches(['a b'], ['a c'])
