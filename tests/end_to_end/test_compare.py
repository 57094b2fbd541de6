"""compare: from the command line to a report, resumed, and with the promised keys."""

import json
import signal

import pytest

from tljax.study.runs import evaluation_steps

pytestmark = pytest.mark.slow

SMALL = (
    '--config=configs/digits.py',
    '--config.train.steps=40',
    '--config.study.seeds=3',
    '--config.study.trials=2',
    '--config.study.tuning_seeds=1',
    '--config.study.eval_points=8',
)
MEASURES = (
    'jumpstart',
    'probe_jumpstart',
    'slope',
    'speedup_50',
    'speedup_80',
    'speedup_95',
    'asymptote',
    'area_ratio',
    'negative_transfer_gap',
)


@pytest.fixture(scope='module')
def source(launch, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('source') / 'source'
    launch.ok('train', '--config=configs/digits.py:source', f'--workdir={workdir}', '--quiet')
    return f'--config.source.workdir={workdir}'


@pytest.fixture(scope='module')
def compared(launch, source, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('compare') / 'run'
    return workdir, launch.ok('compare', *SMALL, source, f'--workdir={workdir}')


def test_results_hold_what_is_promised(compared):
    workdir, done = compared
    results = json.loads((workdir / 'report' / 'results.json').read_text())
    assert results['verdict']['name'] in ('helpful', 'harmful', 'equivalent', 'undecided')
    for arm in ('transfer', 'scratch'):
        assert {'final', 'seconds', 'examples'} <= results['arms'][arm].keys()
        assert results['arms'][arm]['examples'] == 40 * 32
        assert results['arms'][arm]['curve']['x'][0] == 0
    for name in MEASURES:
        assert {'mean', 'low', 'high', 'n', 'note'} <= results['measures'][name].keys(), name
    assert results['measures']['jumpstart']['low'] > 0.2
    assert len(results['fingerprint']) == 64
    assert results['config']['train']['steps'] == 40
    assert {'jax', 'flax', 'optax', 'python'} <= results['versions'].keys()
    assert results['seeds'] == [0, 1, 2]
    assert results['verdict']['sentence'] in ' '.join(done.stdout.split())
    assert (workdir / 'report' / 'report.md').stat().st_size > 1000
    assert b'<html' in (workdir / 'report' / 'index.html').read_bytes()


def test_a_second_call_reuses_every_run(launch, source, compared):
    workdir, _ = compared
    before = {path: path.stat().st_mtime_ns for path in (workdir / 'runs').iterdir()}
    assert len(before) == 2 * (2 * 1 + 3)
    launch.ok('compare', *SMALL, source, f'--workdir={workdir}')
    assert before == {path: path.stat().st_mtime_ns for path in (workdir / 'runs').iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    'number',
    [
        pytest.param(signal.SIGKILL, id='kill', marks=pytest.mark.matrix),
        pytest.param(signal.SIGINT, id='ctrl-c'),
    ],
)
def test_a_stopped_study_goes_on_and_finds_the_same(launch, source, compared, tmp_path, number):
    workdir = tmp_path / 'run'
    arguments = ('compare', *SMALL, source, f'--workdir={workdir}')
    runs = workdir / 'runs'
    launch.stopped(
        *arguments, when=lambda: runs.exists() and len(list(runs.iterdir())) >= 3, number=number
    )
    assert not (workdir / 'report').exists()
    launch.ok(*arguments)
    for path in sorted((compared[0] / 'runs').iterdir()):
        one, other = json.loads(path.read_text()), json.loads((runs / path.name).read_text())
        assert one['validation'] == other['validation'], path.name
        assert one['test'] == other['test'], path.name


@pytest.mark.matrix  # tests/study/test_runs.py has it in small
def test_mapped_runs_find_what_runs_one_after_another_find(launch, source, compared, tmp_path):
    workdir = tmp_path / 'run'
    launch.ok('compare', *SMALL, source, '--config.study.vectorize=on', f'--workdir={workdir}')
    for path in sorted((compared[0] / 'runs').iterdir()):
        one = json.loads(path.read_text())
        other = json.loads((workdir / 'runs' / path.name).read_text())
        assert one['steps'] == other['steps']
        # One example more or less of 299, where a score is a tie to float tolerance.
        assert one['validation'] == pytest.approx(other['validation'], abs=0.0068), path.name
        if one['test'] is not None:
            assert one['test'] == pytest.approx(other['test'], abs=0.0034), path.name


def test_compare_without_a_source_says_so(launch, tmp_path):
    said = launch.refused(
        'compare', *SMALL, '--config.source.uri=', f'--workdir={tmp_path / "run"}'
    )
    assert 'config.source.uri' in said


def test_evaluation_steps_begin_at_0_and_end_at_the_end():
    for steps, count in ((1, 8), (7, 8), (200, 24), (100_000, 24)):
        points = evaluation_steps(steps, count)
        assert points[0] == 0
        assert points[-1] == steps
        assert points == sorted(set(points))
        assert len(points) <= count + 2
