"""Tokenizers, from files and trained, and texts as tokens of one length."""

import json

import numpy as np
import pytest

from tljax.data.text import tokenizer as tokenizers
from tljax.data.text.form import TextForm
from tljax.errors import UserError

TEXTS = ['the cat sat on the mat', 'a dog and a cat', 'the mat of the dog'] * 3


def ids(tokenizer, text):
    return tokenizer.made().encode(text).ids


def test_training_twice_gives_one_tokenizer():
    one, two = (tokenizers.trained(TEXTS, 300) for _ in range(2))
    assert one == two
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != tokenizers.trained(TEXTS, 265).fingerprint


def test_every_text_comes_back_byte_for_byte():
    tokenizer = tokenizers.trained(TEXTS, 300)
    text = 'Ünseen\n\twords, 日本 \x00 too'
    assert tokenizer.made().decode(ids(tokenizer, text)) == text
    assert max(ids(tokenizer, text)) < 300


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(UserError, match=r'bpe\(258\) is too small.*259'):
        tokenizers.trained(TEXTS, 258)


def test_files(tmp_path):
    trained = tokenizers.trained(TEXTS, 300)
    (tmp_path / 'tokenizer.json').write_text(trained.text)
    read = tokenizers.read(tmp_path)
    assert ids(read, 'the cat') == ids(trained, 'the cat')
    assert read == tokenizers.read(tmp_path / 'tokenizer.json')
    assert tokenizers.beside(tmp_path / 'model.safetensors') == tmp_path / 'tokenizer.json'


@pytest.mark.parametrize('lower', [True, False])
def test_wordpieces_of_bert(tmp_path, lower):
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'cat', '##s', 'Cat']
    (tmp_path / 'vocab.txt').write_text('\n'.join(words))
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'do_lower_case': lower}))
    tokens = tokenizers.read(tmp_path).made().encode('the Cats').tokens
    assert tokens == ['[CLS]', 'the', 'cat' if lower else 'Cat', '##s', '[SEP]']


def test_no_tokenizer_and_a_damaged_one(tmp_path):
    with pytest.raises(UserError, match='no tokenizer at'):
        tokenizers.read(tmp_path)
    assert tokenizers.beside(tmp_path / 'model.safetensors') is None
    (tmp_path / 'tokenizer.json').write_text('{"model": 3}')
    with pytest.raises(UserError, match='cannot be read'):
        tokenizers.read(tmp_path)


def test_long_texts_are_cut_and_short_ones_padded():
    tokenizer = tokenizers.trained(TEXTS, 300)
    form = TextForm(tokenizer, 6)
    long = form.read({'text': b'the cat sat on the mat of the dog'})
    assert long['mask'].tolist() == [1] * 6
    assert long['tokens'][[0, -1]].tolist() == [tokenizer.first_of(['[CLS]']), 2]
    short = form.read({'text': b'cat'})
    known = short['mask'].sum()
    assert known < 6
    assert (short['mask'][:known] == 1).all()
    assert (short['tokens'][known:] == tokenizer.pad).all()
    assert {name: part.shape for name, part in form.parts.items()} == {
        name: array.shape for name, array in long.items()
    }


def test_pairs_have_types_and_damaged_bytes_are_read():
    form = TextForm(tokenizers.trained(TEXTS, 300), 12, ('text', 'text_b'))
    pair = form.read({'text': b'the cat', 'text_b': b'a dog'})
    second = np.flatnonzero(pair['types'])
    assert pair['types'][second].tolist() == [1] * len(second)
    assert 0 < second[0] < second[-1] < pair['mask'].sum() + 1
    assert form.read({'text': b'\xff\xfe', 'text_b': b''})['mask'].sum() > 3
    assert form.texts(['the cat'])['tokens'].shape == (1, 12)
