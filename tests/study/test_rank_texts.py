"""rank for the next word: which score decides, and what the report says of texts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import small_texts

from tljax.data.text.tokenizer import trained
from tljax.errors import UserError
from tljax.ranking import SCORES
from tljax.study import rank, ranked
from tljax.study.compatibility import Finding, texts
from tljax.study.report import ranking as report

SIZES = 'width=8, layers=1, heads=2, vocabulary=270, positions=16'
RANDOM = (f'random:gpt2({SIZES}, hidden=8)', f'random:gpt2({SIZES}, hidden=12, tied=False)')


@pytest.fixture(scope='module', autouse=True)
def quickly():
    with small_texts.quickly():
        yield


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp('texts')
    small_texts.write(directory)
    keys = dict(source__uri='', rank__sources=RANDOM, rank__resamples=6)
    return small_texts.config_of('language_modelling', directory, **keys)


@pytest.fixture(scope='module')
def content(config, tmp_path_factory):
    found = rank.rank(config, tmp_path_factory.mktemp('rank'), quiet=True)
    return ranked.results(found, 'python launch.py rank')


def test_every_score_of_tokens_is_there_and_the_others_say_why_not(content):
    of_tokens = [name for name, one in SCORES.items() if 'tokens' in one.kinds]
    assert content['scores'] == of_tokens
    assert content['not_defined'].keys() == SCORES.keys() - set(of_tokens)
    for one in content['sources']:
        assert np.isfinite([one['scores'][name] for name in of_tokens]).all()
        assert one['why_not'] == {}


def test_the_likelihood_decides_and_its_interval_is_over_sequences(content):
    assert content['by'] == 'log_likelihood'
    first, second = content['sources']
    assert first['interval']['mean'] > second['interval']['mean']
    assert first['interval']['low'] < first['interval']['mean'] < first['interval']['high']
    assert second['behind']['low'] <= second['behind']['mean'] <= second['behind']['high']
    # An untrained head takes each of 270 tokens for about as likely; a word has some of them.
    assert first['interval']['mean'] < -np.log(270)
    assert (content['examples'], first['probe']['n']) == (8, content['validation'])


def test_the_report_speaks_of_sequences(content, tmp_path):
    report.write(content, tmp_path)
    text = (tmp_path / 'report.md').read_text() + report.text_summary(content)
    assert 'by log_likelihood on 8 sequences' in text
    assert 'random halves of the sequences' in text
    assert 'nats a word' in text
    assert 'positions of validation sequences' in text
    reasons, rest = text.partition('What is not defined')[2].split('## Time', 1)
    assert 'gbc is not defined for the next token at each position' in reasons
    text = text.partition('What is not defined')[0] + rest
    for word in ('label', 'class', 'picture', 'image'):
        assert word not in text, word
    assert json.loads((tmp_path / 'results.json').read_text())['kind'] == 'tokens'


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'by': 'leep'}, r'leep is not defined for the next token .* Take one of logme, ridge_loo'),
        ({'by': 'log_likelihoood'}, "Did you mean 'log_likelihood'"),
    ],
)
def test_mistakes(config, tmp_path, changes, said):
    other = config.copy_and_resolve_references()
    other.rank.update(changes)
    with pytest.raises(UserError, match=said):
        rank.rank(other, tmp_path, quiet=True)


def test_a_score_that_does_not_compare_the_sources_is_said_to(content):
    apart = {**content, 'by': 'logme', 'comparable': ['log_likelihood']}
    assert report.sentence(apart).endswith(
        'logme does not compare all of them: see what speaks against.'
    )
    assert 'does not compare' not in report.sentence(content)


def scored(level='note', **scores):
    return SimpleNamespace(scores=scores, findings=[Finding(level, 'text', '', '', '')])


def test_what_decides():
    known, unknown = scored(log_likelihood=-3.0, logme=1.0), scored(log_likelihood=None, logme=2.0)
    assert rank.decided('', 'tokens', [known, known]) == 'log_likelihood'
    assert rank.decided('', 'tokens', [known, unknown]) == 'logme'
    useless = scored('disqualified', log_likelihood=None, logme=2.0)
    assert rank.decided('', 'tokens', [known, useless]) == 'log_likelihood'
    assert rank.decided('knn', 'tokens', [known, known]) == 'knn'
    assert rank.decided('', 'classes', [scored(logme=1.0)]) == 'logme'


def test_sources_of_several_tokenizers_are_told():
    small, large = trained(['the cat'] * 3, 262), trained(['the cat'] * 3, 300)
    both = {'a': small, 'b': large, 'c': trained(['the cat'] * 3, 262)}
    (found,) = texts.between_sources(both, 'tokens')
    assert found.what == 'The sources read texts with 2 tokenizers: a, c; b.'
    assert 'log_likelihood is by word' in found.why
    assert not texts.between_sources(both, 'classes')  # labels are the same for all
    assert not texts.between_sources({'a': small, 'c': both['c']}, 'tokens')
    assert not texts.between_sources({'a': None, 'b': None}, 'tokens')
