"""The numbers of a report: measures, arms, manifest, cost; digits; what is missing."""

import re

import pytest

from tljax.study.report import comparison as report
from tljax.study.report import figures, sections, wording

pytestmark = pytest.mark.usefixtures('short_pictures')


def answers(results):
    return {a.question: a.answer for a in sections.document(results).answers}


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


def test_long_manifest_is_folded_but_complete(written, made_up, tmp_path):
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


def test_reproduction_is_complete(written, made_up, tmp_path):
    results = made_up()
    page, text = written(results, tmp_path)
    for part in (results['command'], results['fingerprint'], '0.10.2', '"delta": 0.01', '1 x cpu'):
        assert part in page.text
        assert part in text
    assert '0, 1, 2, 3, 4, 5, 6, 7, 8, 9' in page.text


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


def test_what_is_missing_is_said_to_be(written, made_up, tmp_path):
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
