"""rank, and compare --sources: from the command line to a report."""

import json

import pytest

pytestmark = pytest.mark.slow

SMALL = ('--config=configs/digits.py', '--config.model.widths=(8, 8)', '--config.train.steps=20')
RANDOM = 'random:convnet(widths=(8, 8), hidden=64)'


@pytest.fixture(scope='module')
def models(launch, tmp_path_factory):
    """One that has seen printed digits, and one that has seen the target's own."""
    found = {}
    for variant in ('source', 'zero_to_four'):
        found[variant] = tmp_path_factory.mktemp('models') / variant
        launch.ok(
            'train',
            f'--config=configs/digits.py:{variant}',
            SMALL[1],
            '--config.train.steps=60',
            f'--workdir={found[variant]}',
            '--quiet',
        )
    return found


@pytest.fixture(scope='module')
def sources(models):
    return f'--sources={models["source"]},{RANDOM},{models["zero_to_four"]}'


def test_a_source_that_has_seen_the_target_is_last_and_said_so(launch, sources, tmp_path):
    workdir = tmp_path / 'rank'
    done = launch.ok('rank', *SMALL, sources, f'--workdir={workdir}', '--quiet')
    content = json.loads((workdir / 'report' / 'results.json').read_text())
    names = [one['name'] for one in content['sources']]
    assert names[-1] == 'zero_to_four'
    assert content['sources'][-1]['worst'] == 'disqualified'
    assert 'pictures' in ' '.join(content['sources'][-1]['warnings'])
    assert f'Start from {names[0]}' in done.stdout
    # The model is each source's own, whatever the config's.
    assert {tuple(one['model']['widths']) for one in content['sources']} == {(8, 8)}
    assert all(len(one['scores']) == 12 for one in content['sources'])
    page = (workdir / 'report' / 'index.html').read_text()
    assert all(name in page for name in names)


def test_compare_trains_the_ranked_ones_and_judges_the_ranking(launch, sources, tmp_path):
    few = ('--config.study.seeds=2', '--config.study.trials=1', '--config.study.eval_points=3')
    words = ('compare', *SMALL, *few, sources, f'--workdir={tmp_path / "contest"}', '--quiet')
    launch.ok(*words)
    content = json.loads((tmp_path / 'contest' / 'report' / 'results.json').read_text())
    assert content['trained'] == 2  # what is random is a control of the ranking only
    assert content['ranked'] == 3
    finals = {one['name']: one['transfer']['mean'] for one in content['sources']}
    assert content['best'] == max(finals, key=finals.get)
    first = content['sources'][0]['name']
    assert content['regret'] == pytest.approx(max(finals.values()) - finals[first])
    assert content['worth']['logme']['tau']['mean'] is None  # two sources are no order


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (('rank',), 'config.rank.sources is empty'),
        (('rank', '--sources=nowhere'), 'nowhere'),
        (('rank', f'--sources={RANDOM}', '--top=2'), '--top belongs to the command compare'),
        (('compare', '--top=2'), '--top goes with --sources'),
        (('compare', f'--sources={RANDOM}', '--top=1'), '--top is 1'),
        (('rank', f'--sources={RANDOM}', '--config.rank.by=logmee'), "Did you mean 'logme'"),
        (('train', f'--sources={RANDOM}'), '--sources belongs to the command'),
    ],
)
def test_mistakes(launch, tmp_path, words, said):
    command, *rest = words
    message = launch.refused(command, *SMALL, *rest, f'--workdir={tmp_path}')
    assert said in message
