"""What a report says in each verdict, and in the terminal; it is whole or absent on disk."""

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from tljax.errors import RunError, UserError
from tljax.study.report import comparison as report
from tljax.study.report import output, sections, wording

VERDICTS = ('helpful', 'harmful', 'equivalent', 'undecided')
pytestmark = pytest.mark.usefixtures('short_pictures')


def answers(results):
    return {a.question: a.answer for a in sections.document(results).answers}


def meaning(results):
    return ' '.join(sections.document(results).meaning)


@pytest.mark.parametrize('verdict', VERDICTS)
def test_verdict_comes_first_everywhere(written, verdict, made_up, tmp_path):
    results = made_up(verdict)
    sentence = results['verdict']['sentence']
    page, text = written(results, tmp_path)
    assert [tag for tag, _ in page.elements].count('h1') == 1
    body = page.text[page.text.index(results['title'], len(results['title'])) :]
    assert body.removeprefix(results['title']).strip().startswith(sentence)
    assert text.startswith(f'# {sentence}\n')
    assert f'**{verdict.capitalize()}.**' in text
    assert report.text_summary(results).startswith(f'{verdict.upper()}: {sentence[:40]}')
    assert ('header', {'class': f'verdict {verdict}'}) in page.elements
    saved = json.loads((tmp_path / 'results.json').read_text())
    assert saved['verdict']['name'] == verdict


def test_helpful(made_up):
    text = meaning(made_up('helpful'))
    assert '0.862 [' in text
    assert '0.828 [' in text
    assert "lies on transfer's side" in text
    assert 'small' not in text
    assert answers(made_up('helpful'))['A higher end?'] == 'Yes'


def test_harmful_says_so_even_when_the_start_is_higher(made_up):
    results = made_up('harmful')
    text = meaning(results)
    assert "lies on scratch's side" in text
    assert 'made the end worse' in text
    assert 'Train from scratch' in text
    assert answers(results) == {
        'A higher start?': 'Yes',
        'A higher slope?': 'No, lower',
        'A higher end?': 'No, lower',
        'Fewer examples?': 'Yes',
    }
    assert (
        wording.reading('negative_transfer_gap', results['measures']['negative_transfer_gap'])
        == 'scratch ends with less error'
    )


def test_equivalent_names_the_margin_and_what_differs_on_the_way(made_up):
    results = made_up('equivalent')
    text = meaning(results)
    assert 'within 0.01 rescaled accuracy' in text
    assert 'study.delta' in text
    assert 'On the way there they do differ: transfer starts higher' in text
    assert answers(results)['A higher end?'] == 'No, the same'


def test_undecided_is_not_called_equal(made_up):
    results = made_up('undecided')
    text = meaning(results)
    assert 'undecided is not the same as no effect' in text
    assert 'not enough to call them equal' in text
    assert 'no difference that matters' not in text
    assert answers(results)['A higher end?'] == 'Not settled'
    gap = results['measures']['negative_transfer_gap']
    assert wording.reading('negative_transfer_gap', gap) == 'no difference shown'


@pytest.mark.parametrize(
    ('sentence', 'more', 'expected'),
    [
        ('About 21 more seeds would settle it.', 21, None),  # said once is enough
        ('It is open.', 21, 'about 21 more seeds would settle it'),
        ('It is open.', 1, 'about 1 more seed would settle it'),
        ('It is open.', None, 'cannot be told from these runs'),
    ],
)
def test_undecided_says_what_would_settle_it(sentence, more, expected, made_up):
    results = made_up('undecided')
    results['verdict'].update(sentence=sentence, more_seeds=more)
    text = meaning(results)
    assert expected in text if expected else 'settle' not in text


@pytest.mark.parametrize(('verdict', 'what'), [('helpful', 'benefit'), ('harmful', 'harm')])
def test_a_winner_by_less_than_the_margin_is_called_small(verdict, what, made_up):
    results = made_up(verdict)
    results['config']['study']['delta'] = 0.2
    assert f'The {what} is small, though: it stays within 0.2' in meaning(results)


def test_unknown_verdict_is_refused_but_the_numbers_are_kept(made_up, tmp_path):
    results = made_up()
    results['verdict']['name'] = 'great'
    with pytest.raises(ValueError, match='great'):
        report.write(results, tmp_path)
    assert os.listdir(tmp_path) == ['results.json']


@pytest.mark.parametrize(('seeds', 'warned'), [(1, True), (4, True), (5, False), (10, False)])
def test_few_seeds_are_called_a_smoke_test(seeds, warned, made_up):
    text = meaning(made_up('undecided', seeds=seeds))
    assert ('smoke test' in text) == warned
    assert ('brackets are 95 % intervals' in text) == (seeds > 1)


def test_synthetic_data_is_said_at_the_top(made_up):
    results = made_up()
    assert 'Synthetic data: the source images are rendered from fonts' in meaning(results)
    results['data']['synthetic'] = ''
    assert 'ynthetic' not in meaning(results)


FILES = {'index.html', 'report.md', 'results.json', 'learning_curves.png', 'paired_finals.png'}


def test_writes_the_files_and_the_same_bytes_again(real_pictures, made_up, tmp_path):
    index = report.write(made_up(), tmp_path / 'run' / 'report')
    assert index == tmp_path / 'run' / 'report' / 'index.html'
    files = {path.name: path.read_bytes() for path in index.parent.iterdir()}
    assert set(files) == FILES
    assert len(files['learning_curves.png']) > 10_000
    report.write(made_up(), str(index.parent))
    assert {path.name: path.read_bytes() for path in index.parent.iterdir()} == files
    assert oct(index.stat().st_mode) == oct(_ordinary_mode(tmp_path))


def _ordinary_mode(tmp_path):
    """Of a file written in the plain way: others may read a report where they may read files."""
    plain = tmp_path / 'plain'
    plain.write_text('')
    return plain.stat().st_mode


def test_results_json_holds_every_digit(made_up, tmp_path):
    results = made_up()
    report.write(results, tmp_path)
    assert json.loads((tmp_path / 'results.json').read_text()) == results


def test_numpy_and_tuples_become_json():
    given = {
        'a': np.float32(0.5),
        'b': np.arange(2),
        'c': (1, np.int64(2)),
        'd': Path('x/y'),
        1: True,
    }
    assert output.plain(given) == {'a': 0.5, 'b': [0, 1], 'c': [1, 2], 'd': 'x/y', '1': True}
    assert json.dumps(output.plain(given))


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), np.float32('nan'), {1, 2}, 1j])
def test_what_json_cannot_hold_is_named_and_nothing_is_written(bad, made_up, tmp_path):
    results = made_up()
    results['measures']['slope']['low'] = bad
    with pytest.raises(RunError, match=r'results\.measures\.slope\.low is'):
        report.write(results, tmp_path / 'report')
    assert not (tmp_path / 'report').exists()


def test_a_file_where_the_directory_should_be(made_up, tmp_path):
    (tmp_path / 'report').write_text('mine')
    with pytest.raises(UserError, match='report cannot be written') as error:
        report.write(made_up(), tmp_path / 'report')
    assert str(tmp_path / 'report') in str(error.value)
    assert '--workdir' in str(error.value)
    assert (tmp_path / 'report').read_text() == 'mine'


@pytest.mark.parametrize(
    ('number', 'kind'),
    [(errno.EACCES, UserError), (errno.EROFS, UserError), (errno.ENOSPC, RunError)],
)
def test_failed_write_leaves_the_old_report(number, kind, made_up, tmp_path, monkeypatch):
    report.write(made_up('helpful'), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(kind) as error:
        report.write(made_up('harmful'), tmp_path)
    assert str(tmp_path / 'results.json') in str(error.value)
    assert os.strerror(number) in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_stop_while_writing_leaves_no_partial_file(made_up, tmp_path, monkeypatch):
    def stop(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', stop)
    with pytest.raises(KeyboardInterrupt):
        report.write(made_up(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_numbers_are_kept_when_a_picture_fails(made_up, tmp_path, monkeypatch):
    def fail(results, form):
        raise ZeroDivisionError

    monkeypatch.setitem(report.PICTURES, 'learning_curves', fail)
    with pytest.raises(ZeroDivisionError):
        report.write(made_up(), tmp_path)
    assert os.listdir(tmp_path) == ['results.json']


def test_text_summary(made_up):
    results = made_up()
    text = report.text_summary(results)
    assert text.isascii()
    lines = text.splitlines()
    assert lines[0] == f'HELPFUL: {results["verdict"]["sentence"]}'
    table = {
        re.split(r' {2,}', line)[0]: re.split(r' {2,}', line)[1:] for line in lines[2:] if line
    }
    assert table[''] == ['transfer', 'scratch']
    final = table['test accuracy at the end']
    assert final[0].startswith('0.862 [')
    assert final[1].startswith('0.828 [')
    start = table['validation accuracy at the start']
    assert start[0].startswith('0.563 [')
    assert start[1].startswith('0.110 [')
    assert table['training of one run'] == ['1.3 s', '1.3 s']
    assert table['jumpstart'][0].startswith('+0.504 [')
    assert re.fullmatch(
        r"[\d.]+x \[[\d.]+, [\d.]+\] to 95 % of scratch's end", table['speed-up'][0]
    )
    assert table['cost'] == ['pretraining 7.8 s; pays off after 9 target tasks']
    assert max(len(line) for line in lines) <= 100
