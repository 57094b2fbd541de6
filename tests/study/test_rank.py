"""rank: what it finds of sources that are known to be good and bad."""

import dataclasses

import numpy as np
import pytest

from tljax.errors import UserError
from tljax.study import rank, ranked
from tljax.study.compatibility import Finding
from tljax.study.report import ranking as report

RANDOM = ('random:convnet(widths=(4,), hidden=8)', 'random:convnet(widths=(4, 8), hidden=16)')


@pytest.fixture(scope='module')
def ranking(small_config, tmp_path_factory):
    config = small_config(
        rank={'sources': RANDOM, 'scores': ('logme', 'ridge_loo'), 'resamples': 8}
    )
    return rank.rank(config, tmp_path_factory.mktemp('rank'), quiet=True)


def test_the_order_is_that_of_the_deciding_score(ranking):
    values = [one.scores['logme'] for one in ranking.scored]
    assert values == sorted(values, reverse=True)
    assert ranking.names == ('logme', 'ridge_loo')
    for one in ranking.scored:
        assert one.halves_H.shape == (8,)
        assert one.untrained is None  # it is untrained itself
        assert {'features', 'logme', 'ridge_loo', 'probe'} <= one.seconds.keys()
        assert 0 <= one.probe.low <= one.probe.mean <= one.probe.high <= 1


def test_the_results_say_how_sure_the_order_is(ranking):
    content = ranked.results(ranking, 'python launch.py rank')
    first, second = content['sources']
    assert first['first_share'] + second['first_share'] == pytest.approx(1)
    assert first['behind'] is None
    gap = first['interval']['mean'] - second['interval']['mean']
    assert second['behind']['mean'] == pytest.approx(gap)
    assert second['behind']['low'] <= gap <= second['behind']['high']
    assert content['agreement'] == {'ridge_loo': None}  # two sources have no order to speak of
    assert content['examples'] == 40
    assert content['validation'] == 239
    text = report.text_summary(content)
    assert first['name'] in text.splitlines()[0]
    assert ('Not told apart' in text) == (second['behind']['low'] <= 0)


def test_the_report_has_every_source_and_is_written_whole(ranking, tmp_path):
    content = ranked.results(ranking, 'python launch.py rank')
    report.write(content, tmp_path / 'report')
    page = (tmp_path / 'report' / 'index.html').read_text()
    for one in content['sources']:
        assert one['name'] in page
    text = (tmp_path / 'report' / 'report.md').read_text()
    assert '`launch.py compare` measures' in text  # code, without backslashes
    said = content['recommendation']
    assert said['source'] == content['sources'][0]['name']
    assert said['policy'] == 'full'  # untrained models know nothing
    assert said['sentence'] in page
    assert said['sentence'] in ' '.join(report.text_summary(content).split())
    assert {'index.html', 'report.md', 'results.json'} == {
        path.name for path in (tmp_path / 'report').iterdir()
    }


def disqualified(one):
    finding = Finding('disqualified', 'leakage', 'It has seen them.', '', '')
    return dataclasses.replace(one, findings=[finding])


def test_what_is_disqualified_is_counted_nowhere(ranking):
    """However high its score is: the other is the only one to start from, and ahead of none."""
    first, second = ranking.scored
    left = dataclasses.replace(ranking, scored=[second, disqualified(first)])
    content = ranked.results(left, 'python launch.py rank')
    said = report.sentence(content)
    assert said.startswith(f'Start from {second.contender.name}: the only one')
    assert f'(left out: {first.contender.name}, disqualified for leakage)' in said
    assert [one['first_share'] for one in content['sources']] == [None, None]
    answers = {answer.question: answer for answer in report.document(content).answers}
    assert answers['By how much?'].answer == 'not measured'
    assert 'disqualified for leakage' in report.text_summary(content)


def test_an_untrained_model_is_not_started_from_beside_a_trained_one(ranking):
    first, second = ranking.scored
    trained = dataclasses.replace(
        second, contender=dataclasses.replace(second.contender, name='real', spec='package:real')
    )
    mixed = dataclasses.replace(ranking, scored=[first, trained])
    content = ranked.results(mixed, 'python launch.py rank')
    assert content['eligible'] == ['real']
    assert content['sources'][1]['behind'] is None
    assert content['sources'][0]['behind']['mean'] <= 0
    said = report.sentence(content)
    assert said.startswith('Start from real: the only one')
    assert f'{first.contender.name}, untrained' in said
    content['sources'][0]['behind'] = {'mean': -0.2, 'low': -0.3, 'high': -0.1}
    said = report.sentence(content)
    assert f'Untrained, yet above it: {first.contender.name}.' in said
    assert 'Not told apart' not in said


def test_what_a_source_knows_of_the_classes(ranking):
    (one, _), names = ranking.scored, ranking.scored[0].extracted.experiment.data.label_names
    assert ranked.known_classes(one) is None  # an untrained model has no classes
    right_NxS = np.eye(len(names))[one.extracted.train.labels_N]
    train = dataclasses.replace(one.extracted.train, probabilities_NxS=right_NxS)
    extracted = dataclasses.replace(one.extracted, train=train)

    def known(labels):
        card = {'title': 'a', 'config': {}, 'label_names': labels}
        return ranked.known_classes(dataclasses.replace(one, card=card, extracted=extracted))

    assert known(names)['same_order']
    assert known(names)['head']['mean'] == 1
    other = known((*names[1:], names[0]))
    assert (other['shared'], other['same_order'], other['head']) == (len(names), False, None)
    assert known(names[:3])['shared'] == 3


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'by': 'logmee'}, "config.rank.by: no score 'logmee'. Did you mean 'logme'"),
        ({'scores': ('logme', 'x')}, "config.rank.scores: no score 'x'"),
        ({'sources': ()}, 'config.rank.sources is empty'),
    ],
)
def test_mistakes(small_config, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        rank.rank(small_config(rank={'sources': RANDOM[:1], **changes}), tmp_path, quiet=True)


def test_agreement_is_one_for_the_same_order_and_minus_one_for_its_reverse():
    class One:
        def __init__(self, a, b):
            self.scores = {'a': a, 'b': b}

    values = np.array([3.0, 1.0, 2.0])
    same = [One(value, 2 * value) for value in values]
    assert ranked.agreement(same, 'a', 'b') == pytest.approx(1)
    reverse = [One(value, -value) for value in values]
    assert ranked.agreement(reverse, 'a', 'b') == pytest.approx(-1)
    assert ranked.agreement([*same, One(None, 1.0)], 'a', 'b') == pytest.approx(1)
    assert ranked.agreement(same[:2], 'a', 'b') is None
    assert ranked.agreement([One(value, 1.0) for value in values], 'a', 'b') is None
