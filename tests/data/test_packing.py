"""Documents packed into sequences: every token once, none from another document."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.data.own.corpus import documents
from tljax.data.text import packing
from tljax.data.text import tokenizer as tokenizers
from tljax.data.text.packing import PackedForm

TOKENIZER = tokenizers.trained(['the cat sat on the mat', 'a dog and a cat'] * 3, 290)
TEXTS = st.text('abc dehnot\n', max_size=60)


def targets(packed):
    """(token, token before it) of all that is to be predicted, in their order."""
    found = []
    for tokens, segments in zip(packed['tokens'], packed['segments'], strict=True):
        same = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
        found += list(zip(tokens[1:][same].tolist(), tokens[:-1][same].tolist(), strict=True))
    return found


@given(st.lists(TEXTS, max_size=6), st.integers(3, 40))
@settings(max_examples=60, deadline=None)
def test_every_token_is_predicted_once_from_the_one_before_it(texts, length):
    packed = PackedForm(TOKENIZER, length).packed(texts)
    library, wanted = TOKENIZER.made(), []
    for text in texts:
        tokens = library.encode(text, add_special_tokens=False).ids
        wanted += list(zip(tokens, [TOKENIZER.start, *tokens], strict=False))
    assert targets(packed) == wanted
    assert all(array.shape[1:] == (length,) for array in packed.values())


@given(st.lists(TEXTS, min_size=1, max_size=6), st.integers(3, 40))
@settings(max_examples=60, deadline=None)
def test_positions_begin_anew_in_each_segment_and_every_word_counts(texts, length):
    packed = PackedForm(TOKENIZER, length).packed(texts)
    for segments, positions in zip(packed['segments'], packed['positions'], strict=True):
        for segment in set(segments.tolist()) - {0}:
            assert positions[segments == segment].tolist() == list(
                range((segments == segment).sum())
            )
    assert (packed['words'][packed['positions'] == 0] == 0).all()
    # A word longer than a sequence is cut, and then counted by parts.
    counted = packed['words'].max(1).sum() if len(packed['words']) else 0
    words = [word for text in texts for word in text.split()]
    assert counted >= len(words)
    if max((len(word) for word in words), default=0) <= length - 2:
        assert counted == len(words)


@pytest.mark.parametrize(
    ('length', 'vocabulary', 'size'), [(16, 290, 512), (64, 2048, 128), (1024, 50257, 1)]
)
def test_an_evaluation_holds_no_more_logits_than_fit(length, vocabulary, size):
    tokenizer = dataclasses.replace(TOKENIZER, vocabulary=vocabulary)
    form = PackedForm(tokenizer, length)
    assert form.at_once == size
    assert size == 1 or size * length * vocabulary <= packing.LOGITS


def test_words_are_what_stands_between_white_space():
    library = TOKENIZER.made()
    tokens, words = packing.tokenized(library, 'the  cat,\n sat')
    spelt: dict[int, str] = {}
    for token, word in zip(tokens, words, strict=True):
        spelt[word] = spelt.get(word, '') + library.decode([token])
    assert [spelt[n].strip() for n in (1, 2, 3)] == ['the', 'cat,', 'sat']


def test_a_long_word_is_cut_where_it_must_be():
    assert [(p.start, p.stop) for p in packing.pieces([1] * 5, 2)] == [(0, 2), (2, 4), (4, 5)]


@pytest.mark.parametrize('text', ['', '\n\n', '   '])
def test_texts_without_words_are_no_documents(text):
    assert list(documents(text)) == []


def test_documents_of_running_text_end_at_empty_lines():
    text = '\n\n'.join(f'paragraph {n} ' + 'word ' * 100 for n in range(30))
    found = list(documents(text))
    assert len(found) > 2
    assert ''.join(part for _, part in found) == text
    lines = text.split('\n')
    for line, part in found:
        assert lines[line - 1] == part.split('\n')[0]
        assert part.startswith('paragraph')
    assert np.diff([line for line, _ in found]).min() > 0
