"""What speaks against a source of texts: shared texts, and tokens that are not its own."""

import csv
import json
import sys

import numpy as np
import pytest

from tljax import config as config_lib
from tljax.data import open_data
from tljax.data.text.tokenizer import trained
from tljax.study import compatibility

WORDS = ('noon', 'meeting', 'notes', 'bring', 'please', 'letter', 'answer', 'garden', 'river')


def prose(seed, words=40):
    return ' '.join(np.random.default_rng(seed).choice(WORDS, words))


def edited(text):
    first, _, rest = text.partition(' ')
    return f'{first}s {rest}'


def corpus(directory, documents, name='notes.txt'):
    """The data of a file with these documents: the first for training, the last for tests."""
    directory.mkdir(exist_ok=True)
    text = '\n'.join(f' = {n} = \n\n {document}\n' for n, document in enumerate(documents))
    (directory / name).write_text(text)
    config = config_lib.default()
    config.data.update(name='corpus', dir=str(directory / name), tokenizer='bpe(300)', length=16)
    config.data.update(prepared=str(directory / 'prepared'), holdout=0.2)
    return config, open_data(config.data, 0)


def leaks(findings):
    return [f for f in findings if f.topic == 'leakage']


def test_documents_that_splits_share_are_told(tmp_path):
    alone = [prose(n) for n in range(20)]
    _, data = corpus(tmp_path / 'clean', alone)
    assert not leaks(compatibility.check_target(data))
    _, data = corpus(tmp_path / 'twice', [*alone, *map(edited, alone)])
    found = leaks(compatibility.check_target(data))
    assert {f.level for f in found} == {'warning'}
    assert all(' documents (' in f.what and 'nearly' in f.what for f in found)
    assert 'pictures' not in compatibility.listed(found)
    # What is told of is so: both rows hold the same document but for a word.
    split = data.split('train').records
    texts = {
        spec: [stored['text'].decode() for stored in other.records.stored('text')]
        for spec, other in ((s.records.spec, s) for s in data.splits.values())
    }
    assert split.spec in texts
    for finding in found:
        for pair in finding.examples:
            left = texts[pair['left_split']][pair['left_row']].split()[4:]
            right = texts[pair['right_split']][pair['right_row']].split()[4:]
            assert left == right


def test_without_the_library_a_note_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'datasketch', None)
    _, data = corpus(tmp_path, [prose(n) for n in range(12)])
    (found,) = leaks(compatibility.check_target(data))
    assert found.level == 'note'
    assert 'Only identical documents were looked for' in found.what


def test_a_source_that_has_read_the_documents_is_told(tmp_path):
    documents = [prose(n) for n in range(20)]
    config, data = corpus(tmp_path / 'target', documents)
    _, source = corpus(tmp_path / 'source', [*documents[:12], *(prose(n) for n in range(50, 70))])
    card = {'name': 'imaginary', 'modality': 'text', 'licence': 'MIT'}
    found = leaks(compatibility.check(config, card, data, source_data=source))
    assert found
    told = {f.examples[0]['right']: f for f in found}
    assert told['train'].level == 'note'
    assert 'It knows these documents already' in told['train'].why
    for name in told.keys() - {'train'}:
        assert told[name].level == 'disqualified'
        assert 'Test on documents' in told[name].do


def test_labelled_texts_are_compared_too(tmp_path):
    rows = [(prose(n), 'ab'[n % 2]) for n in range(20)]
    rows += [(edited(text), label) for text, label in rows]
    with (tmp_path / 'mail.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('body', 'kind'), *rows])
    config = config_lib.default()
    config.data.update(name='table', dir=str(tmp_path / 'mail.csv'), text='body', label='kind')
    config.data.update(prepared=str(tmp_path / 'prepared'), tokenizer='bpe(300)', length=16)
    found = leaks(compatibility.check_target(open_data(config.data, 0)))
    assert found
    assert all(' texts (' in f.what for f in found)


@pytest.mark.parametrize('own', [True, False])
def test_other_tokens_than_the_source_has_learnt_disqualify_it(tmp_path, own):
    documents = [prose(n) for n in range(12)]
    config, data = corpus(tmp_path / 'target', documents)
    model = tmp_path / 'model'
    model.mkdir()
    (model / 'card.json').write_text(json.dumps({'config': {'data': {}}}))
    text = data.form.tokenizer.text if own else trained(['zebra'] * 3, 270).text
    (model / 'tokenizer.json').write_text(text)
    config.source.uri = str(model)
    card = {'name': 'imaginary', 'modality': 'text', 'licence': 'MIT'}
    found = compatibility.check(config, card, data)
    assert (compatibility.worst(found) == 'disqualified') != own
    assert ('was trained with another' in compatibility.listed(found)) != own
    assert 'classes' not in compatibility.listed(found)
