"""The report: honest in every verdict, exact, safe against any text, whole or absent on disk."""

import errno
import html.parser
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from tljax.errors import RunError, UserError
from tljax.study import figures, markdown, page_style, report, sections, wording

VERDICTS = ('helpful', 'harmful', 'equivalent', 'undecided')
VOID = {'meta', 'img', 'br'}
NASTY = '<script>alert("x")</script>\'&amp; | `a` *b* _c_ [d](http://e)\n# f'


@pytest.fixture
def real_pictures():
    """Asked for by tests that need the pictures themselves; the others get short ones."""


@pytest.fixture(autouse=True)
def short_pictures(request, monkeypatch):
    if 'real_pictures' not in request.fixturenames:
        short = {'svg': b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'png': b'\x89PNG'}
        for name in report.PICTURES:
            monkeypatch.setitem(report.PICTURES, name, lambda results, form: short[form])


class Reader(html.parser.HTMLParser):
    """Reads a page as strictly as is needed: every element closed, in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words, self.hidden = [], [], [], ''
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if 'style' not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return ' '.join(' '.join(self.words).replace('\u00a0', ' ').split())


def written(results, directory):
    """The page as a Reader, and the Markdown."""
    index = report.write(results, directory)
    return Reader(index.read_text('utf-8')), (directory / 'report.md').read_text('utf-8')


def answers(results):
    return {a.question: a.answer for a in sections.document(results).answers}


def meaning(results):
    return ' '.join(sections.document(results).meaning)


# ---- what is said in each verdict -------------------------------------------------------------


@pytest.mark.parametrize('verdict', VERDICTS)
def test_verdict_comes_first_everywhere(verdict, made_up, tmp_path):
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


# ---- measures and tables ----------------------------------------------------------------------


def tables(results):
    found = {}
    for section in sections.document(results).sections:
        for block in section.blocks:
            inner = getattr(block, 'blocks', (block,))
            found |= {b.caption: b for b in inner if hasattr(b, 'rows')}
    return found


def test_every_measure_has_numbers_unit_meaning_and_note(made_up):
    results = made_up()
    rows = {row[0]: row for row in tables(results)['Measures of the benefit of transfer'].rows}
    assert len(rows) == len(wording.MEASURES) == 9
    assert all(len(row[4]) > 60 for row in rows.values())
    jump = results['measures']['jumpstart']
    assert rows['Start (jumpstart)'][1] == (
        f'+{jump["mean"]:.3f} [{jump["low"]:.3f}, {jump["high"]:.3f}] rescaled accuracy'
    )
    assert rows['Slope'][1].endswith('rescaled accuracy per doubling of examples')
    assert re.fullmatch(r'[\d.]+\u00d7 \[[\d.]+, [\d.]+\]', rows['Speed-up to 95 %'][1])
    assert rows['Speed-up to 95 %'][4].endswith('\nNote: scratch > 6400 examples in 2 of 10 seeds.')
    assert rows['End of the curve (asymptote)'][4].endswith('scratch: final at budget.')
    # 100 times the stored ratio: stored 0.12 is shown as 12 %.
    shown = float(rows['Area under the curve'][1].split()[0].lstrip('+'))
    assert shown == pytest.approx(100 * results['measures']['area_ratio']['mean'], abs=0.05)
    assert {row[2] for row in rows.values()} == {'10'}


def test_a_measure_that_is_not_known_here_is_shown_all_the_same(made_up):
    results = made_up()
    results['measures']['forgetting'] = {
        'mean': 0.2, 'low': 0.1, 'high': 0.3, 'n': 10, 'note': 'on the source',
    }  # fmt: skip
    row = tables(results)['Measures of the benefit of transfer'].rows[-1]
    assert row == ('forgetting', '+0.20 [0.10, 0.30]', '10', 'above 0', 'Note: on the source.')


@pytest.mark.parametrize(
    ('name', 'low', 'high', 'said'),
    [
        ('jumpstart', 0.1, 0.2, 'transfer starts higher'),
        ('jumpstart', -0.2, -0.1, 'scratch starts higher'),
        ('jumpstart', -0.1, 0.1, 'no difference shown'),
        ('jumpstart', 0.0, 0.1, 'no difference shown'),  # the interval holds 0
        ('speedup_80', 1.1, 1.2, 'transfer needs fewer examples'),
        ('speedup_80', 0.5, 0.9, 'transfer needs more examples'),
        ('speedup_80', 0.9, 1.1, 'no difference shown'),  # 1 is no difference, not 0
        ('negative_transfer_gap', -0.2, -0.1, 'transfer ends with less error'),
        ('negative_transfer_gap', 0.1, 0.2, 'scratch ends with less error'),
        ('slope', None, None, 'no interval, so nothing shown'),
    ],
)
def test_reading(name, low, high, said):
    mean = 0.0 if low is None else (low + high) / 2
    measure = {'mean': mean, 'low': low, 'high': high, 'n': 10, 'note': ''}
    assert wording.reading(name, measure) == said


def test_tuning_shows_trials_choice_and_unfairness(made_up):
    results = made_up()
    rows = tables(results)['Tuning: validation accuracy at the end of a trial'].rows
    assert ('0.003', '0.830', '0.830 (chosen)') in rows
    assert ('0.00949', '0.810 (chosen)', '0.810') in rows
    assert '5 learning rates tried for each arm' in str(sections.document(results))
    results['arms']['scratch']['trials'].pop()
    assert 'the arms were not tuned alike' in str(sections.document(results))
    assert ('0.03', '0.420', 'not tried') in tables(results)[
        'Tuning: validation accuracy at the end of a trial'
    ].rows


def test_manifest_is_counted_and_listed(made_up):
    found = tables(made_up())
    totals = {row[0]: row[1:3] for row in found['Leaves by what was done with them'].rows}
    assert totals == {
        'loaded': ('3', '18,752'),  # 3*3*1*32 + 32 + 3*3*32*64
        'renamed': ('1', '64'),
        'resized': ('1', '2,048'),
        'reset': ('1', '640'),
        'unused': ('1', '320'),
    }
    leaves = {row[0]: row for row in found['Every leaf of the manifest'].rows}
    assert leaves['backbone/norm/scale'][2] == 'backbone/bn/scale'
    assert leaves['backbone/conv1/kernel'][2:4] == ('', '3 \u00d7 3 \u00d7 1 \u00d7 32')
    assert leaves['head/kernel'][1] in ('reset', 'unused')


def test_long_manifest_is_folded_but_complete(made_up, tmp_path):
    results = made_up()
    entries = results['manifest']['entries']
    results['manifest']['entries'] = [
        entries[0] | {'path': f'block{i}/kernel', 'source_path': f'block{i}/kernel'}
        for i in range(100)
    ]
    page, text = written(results, tmp_path)
    assert 'All 100 leaves' in page.text
    for i in range(100):
        assert f'block{i}/kernel' in page.text
        assert f'block{i}/kernel' in text


def test_cost(made_up):
    rows = dict(tables(made_up())['Cost of one run, in wall-clock time'].rows)
    assert rows['Pretraining of the source, once'] == '7.8 s for 38,400 source examples'
    assert rows['Transfer with pretraining'] == '9.1 s'
    assert rows['Break-even'] == 'pays off after 9 target tasks'
    results = made_up()
    results['cost']['break_even_tasks'] = None
    rows = dict(tables(results)['Cost of one run, in wall-clock time'].rows)
    assert rows['Break-even'].startswith('no break-even')


def test_reproduction_is_complete(made_up, tmp_path):
    results = made_up()
    page, text = written(results, tmp_path)
    for part in (results['command'], results['fingerprint'], '0.10.2', '"delta": 0.01', '1 x cpu'):
        assert part in page.text
        assert part in text
    assert '0, 1, 2, 3, 4, 5, 6, 7, 8, 9' in page.text


# ---- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('mean', 'low', 'high', 'shown'),
    [
        (0.8617, 0.8502, 0.8741, '0.862 [0.850, 0.874]'),
        (0.82812, 0.7971, 0.8592, '0.828 [0.797, 0.859]'),
        (0.86, 0.76, 0.96, '0.86 [0.76, 0.96]'),
        (1203.4, 1100.2, 1299.9, '1,203 [1,100, 1,300]'),
        (-0.0378, -0.0442, -0.0313, '\u22120.038 [\u22120.044, \u22120.031]'),
        (0.5, 0.5, 0.5, '0.500 [0.500, 0.500]'),  # no spread: three digits
        (0.0, 0.0, 0.0, '0.000 [0.000, 0.000]'),
        (-1e-9, -0.01, 0.01, '0.000 [\u22120.010, 0.010]'),  # no minus before nothing
        (0.25, None, None, '0.250 (no interval)'),
        (None, None, None, 'not measured'),
    ],
)
def test_digits(mean, low, high, shown):
    measure = {'mean': mean, 'low': low, 'high': high, 'n': 10, 'note': ''}
    assert figures.estimate(measure) == shown


@pytest.mark.parametrize(
    ('value', 'shown'),
    [(59.94, '59.9 s'), (59.96, '1 min'), (3599.4, '59 min 59 s'), (3600, '1 h'), (0, '0 s')],
)
def test_durations_at_their_borders(value, shown):
    assert figures.seconds(value) == shown


def test_both_arms_have_the_same_digits(made_up):
    results = made_up()
    results['arms']['scratch']['final'] |= {'low': 0.8277, 'high': 0.8283}
    transfer, scratch = report.summary.finals(results)
    assert scratch == '0.82800 [0.82770, 0.82830]'
    assert len(transfer) == len(scratch)


def test_gap_unit_follows_the_finals(made_up):
    results = made_up()
    assert wording.gap_unit(results) == 'rescaled accuracy'
    gap = results['measures']['negative_transfer_gap']
    for key in ('mean', 'low', 'high'):
        gap[key] *= 0.9
    assert wording.gap_unit(results) == 'accuracy'
    assert wording.shown(results, 'negative_transfer_gap').endswith('] accuracy')
    results['metric']['gap_unit'] = 'm'
    assert wording.gap_unit(results) == 'rescaled accuracy'


# ---- what is missing --------------------------------------------------------------------------


def strip(results):
    """Everything that may be missing is."""
    results['measures'] = dict.fromkeys(results['measures'])
    for key in ('manifest', 'source', 'cost', 'devices', 'seconds_total', 'question', 'versions'):
        results[key] = None
    results['data'], results['config'], results['notes'] = {}, {}, []
    for arm in results['arms'].values():
        arm |= {'seconds': None, 'asymptote': None, 'lr': None, 'trials': [], 'curve': None}
        arm['final'] = {'mean': 0.8, 'low': None, 'high': None, 'n': 1, 'note': ''}
    return results


def test_what_is_missing_is_said_to_be(made_up, tmp_path):
    results = strip(made_up('undecided', seeds=1))
    page, text = written(results, tmp_path)
    for shown in (page.text, text, report.text_summary(results)):
        assert 'not measured' in shown
        assert not re.search(r'\b(None|nan|NaN|null)\b', shown)
    assert set(answers(results).values()) == {'Not measured', 'Not settled'}
    assert 'what was reused is not known' in page.text
    assert 'provenance is not known' in page.text


def test_metric_that_falls_and_has_no_ceiling(made_up):
    results = made_up()
    results['metric'] = {
        'name': 'loss', 'chance': 2.3026, 'ceiling': None, 'higher_is_better': False,
    }  # fmt: skip
    for arm, shift in (('transfer', -0.3), ('scratch', 0.0)):
        results['arms'][arm]['finals'] = [1.0 + shift] * 10
    results['measures']['negative_transfer_gap'] |= {'mean': -0.3, 'low': -0.4, 'high': -0.2}
    assert list(answers(results)) == [
        'A better start?', 'A better slope?', 'A better end?', 'Fewer examples?',
    ]  # fmt: skip
    assert wording.error_gaps(results) == (pytest.approx([-0.3] * 10), pytest.approx([-0.3] * 10))
    assert (
        wording.shown(results, 'negative_transfer_gap')
        == '\u22120.30 [\u22120.40, \u22120.20] loss'
    )


# ---- the page ---------------------------------------------------------------------------------


def nasty(value):
    """Every text (and key of a free dict) with markup of both languages behind it."""
    if isinstance(value, str):
        return value and value + NASTY  # a note that is not there stays away
    if isinstance(value, dict):
        return {key: nasty(item) for key, item in value.items()}
    return [nasty(item) for item in value] if isinstance(value, list) else value


def injected(results):
    poisoned = nasty(results)
    poisoned['verdict']['name'] = results['verdict']['name']
    for entry, clean in zip(
        poisoned['manifest']['entries'], results['manifest']['entries'], strict=True
    ):
        entry['action'] = clean['action']  # the order of the groups is not at stake here
    return poisoned


def test_no_text_becomes_markup(real_pictures, made_up, tmp_path):
    clean, _ = written(made_up(), tmp_path / 'clean')
    page, text = written(injected(made_up()), tmp_path / 'nasty')
    tags, expected = ([tag for tag, _ in p.elements] for p in (page, clean))
    # Notes of several lines become several spans; nothing else may change.
    assert [t for t in tags if t != 'span'] == [t for t in expected if t != 'span']
    assert page.text.count('<script>alert("x")</script>') > 50  # shown as text
    outside_code = re.sub(r'^(`{3,}).*?^\1$', '', text, flags=re.DOTALL | re.MULTILINE)
    assert '<' not in outside_code
    assert '](http' not in outside_code.replace(r'\](http', '')
    assert not re.search(r'^# f', outside_code, flags=re.MULTILINE)


def test_markdown_tables_keep_their_columns(made_up, tmp_path):
    _, text = written(injected(made_up()), tmp_path)
    outside_code = re.sub(r'^(`{3,}).*?^\1$', '', text, flags=re.DOTALL | re.MULTILINE)
    widths = []
    for line in outside_code.splitlines():
        if line.startswith('| '):
            widths.append(len(re.findall(r'(?<!\\)\|', line)))
        elif widths:
            assert len(set(widths)) == 1, line
            widths = []
    assert '| --- |' in outside_code


def test_code_fence_is_longer_than_any_inside():
    block = markdown._block(sections.Bullets(('a',)), {})
    assert block == ['- a']
    lines = markdown._block(report.sections.provenance.Code('Command', 'a ```` b'), {})
    assert lines[2:] == ['`````', 'a ```` b', '`````']


def test_page_opens_offline_without_scripts(made_up, tmp_path):
    page, _ = written(made_up(), tmp_path)
    assert not {tag for tag, _ in page.elements} & {'script', 'link', 'iframe', 'object', 'base'}
    for _, attributes in page.elements:
        assert not any(name.startswith('on') or name == 'href' for name in attributes)
        assert attributes.get('src', 'data:').startswith('data:image/svg+xml;base64,') or (
            'src' not in attributes
        )
    assert 'url(' not in page_style.CSS
    assert '@import' not in page_style.CSS
    policy = next(a['content'] for t, a in page.elements if 'http-equiv' in a and t == 'meta')
    assert policy.startswith("default-src 'none'")


def test_page_is_accessible(made_up, tmp_path):
    page, _ = written(made_up(), tmp_path)
    elements = page.elements
    assert ('html', {'lang': 'en'}) in elements
    pictures = [attributes for tag, attributes in elements if tag == 'img']
    assert len(pictures) == 2
    assert '0.563 against 0.110' in pictures[0]['alt']
    assert 'Negative transfer gap: \u22120.038' in pictures[1]['alt'].replace('\u00a0', ' ')
    scopes = [attributes.get('scope') for tag, attributes in elements if tag == 'th']
    assert set(scopes) == {'col', 'row'}
    tags = [tag for tag, _ in elements]
    assert tags.count('caption') == tags.count('table') > 5
    headings = {a['id'] for t, a in elements if t == 'h2'}
    assert headings == {a['aria-labelledby'] for t, a in elements if t == 'section'}


def test_text_has_contrast():
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    colours = re.findall(r'--(ink|quiet|accent): (#[0-9a-f]{6})', page_style.CSS)
    assert len(colours) == 7  # ink, quiet, and an accent for each verdict and for none
    for name, colour in colours:  # on white; white on the accents of the badges
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5, (name, colour)


def test_markdown_shows_the_pictures_beside_it(made_up, tmp_path):
    _, text = written(made_up(), tmp_path)
    names = re.findall(r'^!\[.*\]\(([^)]*)\)$', text, flags=re.MULTILINE)
    assert names == ['learning_curves.png', 'paired_finals.png']
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')


# ---- files ------------------------------------------------------------------------------------

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
    assert report.plain(given) == {'a': 0.5, 'b': [0, 1], 'c': [1, 2], 'd': 'x/y', '1': True}
    assert json.dumps(report.plain(given))


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


# ---- the terminal -----------------------------------------------------------------------------


def test_text_summary(made_up, tmp_path):
    results = made_up()
    text = report.text_summary(results, tmp_path)
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
    assert table['report'] == [str(tmp_path / 'index.html')]
    assert max(len(line) for line in lines) <= 100 or len(str(tmp_path)) > 80
    assert 'index.html' not in report.text_summary(results)
