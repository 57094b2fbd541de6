"""Running text of the user's own: encodings, and sequences that are too short."""

import pytest

from tljax import config as config_lib
from tljax.data import open_data
from tljax.errors import UserError

TEXT = '\n\n'.join(f'Grüße Nummer {i}. ' * 300 for i in range(12))


@pytest.fixture
def configure_corpus(tmp_path):
    def make(path, **changes):
        config = config_lib.default().data
        config.update(name='corpus', dir=str(path), prepared=str(tmp_path / 'prepared'))
        config.update({'tokenizer': 'bpe(300)', **changes})
        return config

    return make


def first_text(data):
    split = data.split('train')
    return next(iter(split.records.builder.as_data_source('train')))['text'].decode()


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252'])
def test_encodings(tmp_path, configure_corpus, encoding):
    (tmp_path / 'a.txt').write_text(TEXT, encoding=encoding)
    data = open_data(configure_corpus(tmp_path / 'a.txt'), 0)
    assert first_text(data).startswith('Grüße Nummer 0. Grüße')
    assert any('guessed' in note for note in data.account['notes']) == (encoding == 'cp1252')


def test_an_encoding_that_is_given(tmp_path, configure_corpus):
    (tmp_path / 'a.txt').write_text(TEXT, encoding='cp1252')
    data = open_data(configure_corpus(tmp_path / 'a.txt', encoding='latin-1'), 0)
    assert first_text(data).startswith('Grüße Nummer 0. Grüße')
    with pytest.raises(UserError, match='no encoding'):
        open_data(configure_corpus(tmp_path / 'a.txt', encoding='koi9'), 0)


@pytest.mark.parametrize(('name', 'least'), [('corpus', 2), ('table', 3)])
def test_a_length_without_room_for_a_word_is_refused(tmp_path, configure_corpus, name, least):
    (tmp_path / 'a.txt').write_text(TEXT)
    lines = ['text,label', *(f'hello number {i},{"ab"[i % 2]}' for i in range(30))]
    (tmp_path / 'a.csv').write_text('\n'.join(lines))
    path = tmp_path / ('a.txt' if name == 'corpus' else 'a.csv')
    changes = {'name': name, 'text': 'text', 'label': 'label'} if name == 'table' else {}
    with pytest.raises(
        UserError, match=rf'config\.data\.length is {least - 1}.*{least} is the least'
    ):
        open_data(configure_corpus(path, length=least - 1, **changes), 0)
    assert open_data(configure_corpus(path, length=least, **changes), 0).split('train')
