"""tune: from the command line to a report whose advice train takes."""

import json
import shlex

import pytest

pytestmark = pytest.mark.slow

SMALL = (
    '--config=configs/digits.py',
    '--config.model.widths=(8, 8)',
    '--config.train.steps=18',
    '--config.train.eval_every=18',
)
SEARCH = (
    '--config.tune.policies=("full", "surgical(block=\'first\')")',
    '--config.tune.lrs=2',
    '--config.tune.weight_decays=(0.0,)',
    '--config.tune.range_steps=12',
    '--config.tune.eval_points=4',
)


@pytest.fixture(scope='module')
def source(launch, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('source')
    launch.ok(
        'train',
        '--config=configs/digits.py:source',
        SMALL[1],
        '--config.train.steps=60',
        f'--workdir={workdir}',
        '--quiet',
    )
    return f'--config.source.uri={workdir / "model"}'


@pytest.fixture(scope='module')
def tuned(launch, source, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('tune') / 'run'
    return workdir, launch.ok('tune', *SMALL, *SEARCH, source, f'--workdir={workdir}')


def content_of(workdir):
    return json.loads((workdir / 'report' / 'results.json').read_text())


def test_the_report_says_what_overfitted_and_what_to_train(tuned):
    workdir, done = tuned
    content = content_of(workdir)
    assert [(r['candidates'], r['steps']) for r in content['rounds']] == [(4, 6), (2, 18)]
    page = (workdir / 'report' / 'index.html').read_text()
    text = (workdir / 'report' / 'report.md').read_text()
    best = content['candidates'][content['best']]
    for part in (*content['overrides'], best['policy'], 'gap', 'fall'):
        assert part in text, part
    assert page.count('data:image/svg+xml;base64,') == 2
    assert 'The test split was not read' in text
    assert f'Train it with: {" ".join(content["overrides"])}' in done.stdout
    assert set(content['ranges']) == {'full', "surgical(block='first')"}
    for candidate in content['candidates']:
        curve, found = candidate['curve'], candidate['diagnosis']
        train, valid = curve['train']['accuracy'], curve['validation']['accuracy']
        assert found['gap'] == pytest.approx(train[-1] - valid[-1])
        assert found['fall'] == pytest.approx(max(valid) - valid[-1])
    assert not list(workdir.rglob('evaluation-test*'))


def test_train_takes_the_advice_and_reaches_what_was_promised(launch, source, tuned, tmp_path):
    content = content_of(tuned[0])
    words = shlex.split(' '.join(content['overrides']))
    words = [word for word in words if 'patience' not in word]
    launch.ok('train', *SMALL, source, *words, f'--workdir={tmp_path / "run"}', '--quiet')
    measured = json.loads(launch.ok('evaluate', f'--workdir={tmp_path / "run"}').stdout)
    best = content['candidates'][content['best']]
    assert measured['accuracy'] == pytest.approx(best['validation'][-1], abs=1e-6)


def test_a_second_call_runs_nothing_and_finds_the_same(launch, source, tuned):
    workdir, _ = tuned
    before = {path: path.stat().st_mtime_ns for path in (workdir / 'runs').iterdir()}
    old = content_of(workdir)
    launch.ok('tune', *SMALL, *SEARCH, source, f'--workdir={workdir}')
    assert before == {path: path.stat().st_mtime_ns for path in (workdir / 'runs').iterdir()}
    assert content_of(workdir) == old


def test_another_search_in_the_same_workdir_is_refused(launch, source, tuned):
    workdir, _ = tuned
    arguments = ('tune', *SMALL, *SEARCH, source, f'--workdir={workdir}')
    assert 'tune.rate: 3 -> 2' in launch.refused(*arguments, '--config.tune.rate=2')
    assert 'holds no trained model' in launch.refused('evaluate', f'--workdir={workdir}')


def test_a_policy_that_does_not_exist_is_refused(launch, source, tmp_path):
    words = ('--config.tune.policies=("linear_prob",)', f'--workdir={tmp_path / "x"}')
    said = launch.refused('tune', *SMALL, source, *words)
    assert "config.tune.policies: no 'linear_prob'. Did you mean 'linear_probe'" in said
    assert not (tmp_path / 'x').exists()
