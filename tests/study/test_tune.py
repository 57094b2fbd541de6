"""tune: rounds, range tests, what counts as overfitting, and a whole small search."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from tljax.data import Data
from tljax.errors import Interrupted, UserError
from tljax.study import halving, judging, range_test, tune
from tljax.study.bench import Bench, Candidate
from tljax.study.watched import Curves, sampled
from tljax.tasks.classification import Classification
from tljax.train import experiment as experiment_lib
from tljax.train import loop, sources
from tljax.train.metrics import read_metrics

TASK = Classification(('a', 'b'))


# Rounds.


@pytest.mark.parametrize('rate', [2, 3, 4])
@pytest.mark.parametrize('count', [1, 2, 5, 9, 18, 40])
def test_each_round_keeps_one_of_rate_for_rate_times_the_steps(count, rate):
    plan = halving.rungs(count, 1000, rate)
    assert plan[0].candidates == count
    assert plan[-1].steps == 1000
    assert 1 <= plan[-1].candidates <= rate
    for before, after in itertools.pairwise(plan):
        assert after.candidates == math.ceil(before.candidates / rate)
        assert after.steps == pytest.approx(before.steps * rate, rel=0.1)


def test_fewer_rounds_begin_with_more_steps():
    assert [r.steps for r in halving.rungs(18, 900, 3, 2)] == [300, 900]
    assert [r.candidates for r in halving.rungs(18, 900, 3, 2)] == [18, 6]


@pytest.mark.parametrize('budget', [900, 1800, 2700, 4000, 5399])
def test_as_many_candidates_as_the_budget_pays_for(budget):
    def cost(count):
        return halving.cost(halving.rungs(count, 900, 3))

    count = halving.fitting(18, budget, cost)
    assert cost(count) <= budget
    assert all(cost(more) > budget for more in range(count + 1, 19))


def test_a_budget_below_one_run_is_refused():
    with pytest.raises(UserError, match=r'tune\.budget \(899 steps\) is too small.* takes 900'):
        halving.fitting(18, 899, lambda count: halving.cost(halving.rungs(count, 900, 3)))


def test_survivors_are_the_best_and_of_equals_the_first():
    scores = [(0.5, -1.0), (0.7, -2.0), (0.7, -1.0), (float('nan'), 0.0), (0.5, -1.0)]
    assert halving.survivors(scores, 5) == [2, 1, 0, 4, 3]


# Range tests.


def losses_of(lrs, begins, lowest, diverges):
    """Flat, then falling in log of the learning rate, then rising."""
    x = np.log10(lrs)
    fall = np.clip((x - np.log10(begins)) / (np.log10(lowest) - np.log10(begins)), 0, 1)
    rise = np.clip(x - np.log10(lowest), 0, None)
    return np.where(lrs > diverges, np.nan, 2.0 - fall + rise**2)


def test_the_bounds_are_those_of_a_loss_whose_shape_is_known():
    lrs = range_test.learning_rates(400)
    found = range_test.read(lrs.tolist(), losses_of(lrs, 1e-4, 1e-1, 1.0).tolist())
    # A tenth of the fall is done at 10**-3.7; smoothing comes a few steps late.
    assert found.low == pytest.approx(10**-3.7, rel=0.5)
    assert found.high == pytest.approx(0.1 / range_test.BELOW, rel=0.5)
    assert len(found.losses) == int((lrs <= 1.0).sum())
    assert np.isfinite(found.losses).all()


def test_bounds_that_would_lie_too_close_are_taken_apart():
    lrs = range_test.learning_rates(400)
    found = range_test.read(lrs.tolist(), losses_of(lrs, 0.02, 0.1, 1.0).tolist())
    assert found.low == pytest.approx(found.high / range_test.APART)


@pytest.mark.parametrize('value', [2.0, float('nan')])
def test_without_a_fall_there_are_no_bounds(value, small_config):
    lrs = range_test.learning_rates(40)
    found = range_test.read(lrs.tolist(), [value] * 40)
    assert math.isnan(found.low)
    assert 'no learning rate' in found.note
    config = small_config()
    assert tune.learning_rates(config, found) == [0.0003, 0.003, 0.03]  # the study's


def test_smoothing_is_an_unbiased_moving_average():
    values = np.random.default_rng(0).normal(size=30)
    s = range_test.SMOOTHING
    for n, found in enumerate(range_test.smoothed(values), 1):
        weights = s ** np.arange(n)[::-1]
        assert found == pytest.approx((weights * values[:n]).sum() / weights.sum())


# What curves say.


def curve(train, valid, train_loss=None, valid_loss=None):
    flat = [1.0] * len(train)
    return {
        'steps': [10 * i for i in range(len(train))],
        'train': {'accuracy': train, 'loss': train_loss or flat},
        'validation': {'accuracy': valid, 'loss': valid_loss or flat},
    }


FALLING, RISING = [2.0, 1.0, 0.5, 0.1], [2.0, 1.0, 1.1, 1.5]
CASES = {
    'sound': curve([0.5, 0.7, 0.8, 0.9], [0.5, 0.6, 0.7, 0.7], FALLING, FALLING),
    'overfitted': curve([0.5, 0.8, 0.9, 1.0], [0.5, 0.8, 0.75, 0.7], FALLING, RISING),
    'overconfident': curve([0.5, 0.8, 0.9, 1.0], [0.5, 0.7, 0.7, 0.7], FALLING, RISING),
    'unstable': curve([0.5, 0.8, 0.5, 0.4], [0.5, 0.8, 0.5, 0.4], RISING, RISING),
    'diverged': curve([0.5, 0.8, None, None], [0.5, 0.8, None, None]),
}


@pytest.mark.parametrize('word', CASES)
def test_each_word_has_its_curve(word):
    found = judging.diagnosis(CASES[word], TASK, 0.01, bad=False)
    assert found['word'] == word
    assert set(CASES) == set(judging.WORDS)


def test_gap_and_fall_are_those_of_the_curve():
    found = judging.diagnosis(CASES['overfitted'], TASK, 0.01, bad=False)
    assert found['gap'] == pytest.approx(0.3)
    assert found['fall'] == pytest.approx(0.1)
    assert found['best_step'] == 10
    assert 'best at step 10 and got 0.1 worse' in found['sentence']


def test_a_fall_within_delta_is_none():
    assert judging.diagnosis(CASES['overfitted'], TASK, 0.11, bad=False)['word'] == 'overconfident'


def test_a_fall_of_the_metric_while_the_loss_falls_is_luck():
    lucky = curve([0.5, 0.8, 0.9, 1.0], [0.5, 0.72, 0.71, 0.7], FALLING, FALLING)
    found = judging.diagnosis(lucky, TASK, 0.01, bad=False)
    assert (found['word'], found['fall']) == ('sound', pytest.approx(0.02))
    assert 'luck rather than overfitting' in found['sentence']


def test_what_recovers_is_not_overfitted():
    dipped = curve([0.4, 0.2, 0.3, 0.45], [0.43, 0.12, 0.25, 0.38])
    assert judging.diagnosis(dipped, TASK, 0.01, bad=False)['word'] == 'unstable'


def test_lower_is_better_turns_everything_around():
    class Error:
        metric, higher_is_better = 'accuracy', False

    turned = curve([0.5, 0.2, 0.1, 0.0], [0.5, 0.2, 0.25, 0.3], FALLING, RISING)
    found = judging.diagnosis(turned, Error, 0.01, bad=False)
    assert (found['word'], found['best_step']) == ('overfitted', 10)
    assert found['gap'] == pytest.approx(0.3)


def run_of(valid, loss, bad_step=-1):
    values = {'accuracy': valid, 'loss': loss}
    return Curves(list(range(len(valid))), values, values, 0.0, bad_step)


def test_candidates_are_judged_where_train_would_leave_the_model():
    run = run_of([0.5, 0.9, 0.7], [1.0, 0.3, 0.6])
    assert judging.score([run], TASK, patience=False) == (0.7, -0.6)
    assert judging.score([run], TASK, patience=True) == (0.9, -0.3)
    both = [run, run_of([0.5, 0.5, 0.5], [1.0, 1.0, 1.0])]
    assert judging.score(both, TASK, patience=False) == pytest.approx((0.6, -0.8))


@pytest.mark.parametrize('run', [run_of([0.5, None], [1.0, None]), run_of([0.5, 0.9], [1, 1], 3)])
def test_what_went_wrong_is_ranked_last(run):
    assert judging.score([run_of([0.5], [1.0]), run], TASK, patience=True) == (-math.inf, -math.inf)


def test_a_sample_of_many_training_examples_is_spread_evenly():
    subset = np.arange(5000)[::-1]
    found = sampled(subset)
    assert len(found) == 1024
    assert len(set(np.diff(found))) <= 2
    assert sampled(subset[:1000]) is not None
    assert len(sampled(subset[:1000])) == 1000


# A whole search.

SEARCH = dict(
    policies=('linear_probe', 'full'),
    lrs=2,
    lr_low=0.01,
    lr_high=0.3,
    weight_decays=(0.0, 0.01),
    rate=2,
    eval_points=4,
)
KEEP = ('of', 'steps', 'train', 'validation', 'bad_step')


@pytest.fixture
def config(small_config, small_source, monkeypatch):
    """A search on digits that would notice if test were read."""

    def guarded(data, name):
        assert name != 'test', 'the test split was read'
        return split(data, name)

    split = Data.split
    monkeypatch.setattr(Data, 'split', guarded)
    monkeypatch.setattr(sources, 'load', lambda *args, **kwargs: small_source)

    def make(**changes):
        made = small_config(tune={**SEARCH, **changes})
        made.source.uri = 'somewhere'
        return made

    return make


def records(workdir):
    found = {}
    for path in sorted((workdir / 'runs').iterdir()):
        content = json.loads(path.read_text())
        found[path.name] = {key: content[key] for key in KEEP if key in content}
    return found


@pytest.mark.slow
def test_a_search_reads_no_test_and_its_best_is_what_train_gives(config, small_source, tmp_path):
    content = tune.tune(config(), tmp_path / 'run', 'a command', quiet=True)
    assert [r['candidates'] for r in content['rounds']] == [8, 4, 2]
    assert [r['steps'] for r in content['rounds']] == [3, 6, 12]
    assert sorted(content['ranking']) == list(range(8))
    best = content['candidates'][content['best']]
    assert best['round'] == 3
    assert len(records(tmp_path / 'run')) == 8 + 4 + 2
    for name in ('index.html', 'report.md', 'curves.png', 'results.json'):
        assert (tmp_path / 'run' / 'report' / name).stat().st_size > 500, name
    written = json.loads((tmp_path / 'run' / 'report' / 'results.json').read_text())
    assert written['overrides'] == content['overrides']

    trained = config()
    trained.transfer.policy = best['policy']
    trained.optim.update(lr=best['lr'], weight_decay=best['weight_decay'])
    made = experiment_lib.build(trained, small_source)
    loop.train(made, tmp_path / 'trained', quiet=True)
    last = read_metrics(tmp_path / 'trained' / 'metrics.jsonl')[-1]
    assert last['step'] == 12
    assert last['validation/accuracy'] == pytest.approx(best['validation'][-1], abs=1e-6)
    assert last['validation/loss'] == pytest.approx(
        best['curve']['validation']['loss'][-1], rel=1e-4
    )


@pytest.mark.slow
def test_a_stopped_search_goes_on_and_finds_the_same(config, tmp_path, monkeypatch):
    from contextlib import contextmanager

    whole = tune.tune(config(lr_low=0.0, range_steps=10), tmp_path / 'whole', 'c', quiet=True)
    asked = iter([*[False] * 45, *[True] * 1000])

    @contextmanager
    def stopped():
        yield lambda step: next(asked)

    with monkeypatch.context() as patch:
        patch.setattr(tune, 'stop_requested', stopped)
        with pytest.raises(Interrupted, match='finished runs are kept'):
            tune.tune(config(lr_low=0.0, range_steps=10), tmp_path / 'run', 'c', quiet=True)
    assert 0 < len(records(tmp_path / 'run')) < len(records(tmp_path / 'whole'))
    assert not (tmp_path / 'run' / 'report').exists()
    (tmp_path / 'run' / 'runs' / 'range2.json').write_text('damaged')
    again = tune.tune(config(lr_low=0.0, range_steps=10), tmp_path / 'run', 'c', quiet=True)
    assert records(tmp_path / 'run') == records(tmp_path / 'whole')
    changing = ('seconds', 'seconds_total')
    assert strip(again, changing) == strip(whole, changing)


def strip(value, names):
    if isinstance(value, dict):
        return {key: strip(item, names) for key, item in value.items() if key not in names}
    return [strip(item, names) for item in value] if isinstance(value, list) else value


def test_candidates_within_a_budget_are_drawn_the_same_each_time_from_every_policy(config):
    names = ['linear_probe', 'full', 'bitfit']
    every = tune.grid(config(), names, {})
    assert len(every) == len(set(every)) == 12
    assert every[0] == Candidate('linear_probe', 0.01, 0.0)
    for count in range(3, 13):
        found = tune.drawn(config(), names, {}, count)
        assert found == tune.drawn(config(), names, {}, count)
        assert len(set(found)) == count
        assert [c for c in every if c in found] == found
        per_policy = [sum(c.policy == name for c in found) for name in names]
        assert max(per_policy) - min(per_policy) <= 1
    seeds = set()
    for seed in range(5):
        other = config()
        other.seed = seed
        seeds.add(tuple(tune.drawn(other, names, {}, 3)))
    assert len(seeds) > 1


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(policies=('ful',)), "config.tune.policies: no 'ful'. Did you mean 'full'"),
        (dict(policies=('full', 'full')), 'each once'),
        (dict(policies=()), 'takes names of policies'),
        (dict(policies=('layerwise_decay(decoy=1)',)), "no argument 'decoy'"),
        (dict(policies=('norm_only', 'gradual(first=1)')), "no argument 'first'"),
        (dict(budget=11), 'tune.budget (11 steps) is too small'),
        (dict(lr_low=0.5), 'tune.lr_low (0.5) must be below tune.lr_high (0.3)'),
        (dict(weight_decays=()), 'tune.weight_decays'),
        (dict(weight_decays=(0.1, -0.1)), 'tune.weight_decays'),
        (dict(weight_decays=('0.1',)), 'tune.weight_decays'),
        (dict(rate=1), 'tune.rate'),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(config, tmp_path, changes, said):
    with pytest.raises(UserError) as caught:
        tune.tune(config(**changes), tmp_path / 'run', 'c', quiet=True)
    assert said in str(caught.value)
    assert not (tmp_path / 'run').exists()


def test_policies_whose_phases_need_steps_get_fewer_rounds(config, small_source):
    made = config(policies=('gradual', 'full'))
    made.train.steps = 8
    bench = Bench(made, small_source)
    plan, count = tune.planned(bench, tune.outlines(bench, ['gradual', 'full']))
    stages = len(bench.first.model.outline().stages)
    assert count == 8
    assert stages == 3
    assert [rung.steps for rung in plan] == [4, 8]  # and not 2, 4, 8
    plan, _ = tune.planned(bench, tune.outlines(bench, ['full']))
    assert [rung.steps for rung in plan] == [4, 8]
    plan, _ = tune.planned(bench, tune.outlines(bench, ['full', 'bitfit']))
    assert [rung.steps for rung in plan] == [2, 4, 8]


def test_without_a_source_everything_trains_from_scratch(config, monkeypatch, tmp_path):
    monkeypatch.setattr(sources, 'load', lambda *args, **kwargs: None)
    made = config(lrs=1, weight_decays=(0.0,))
    made.source.uri = ''
    content = tune.tune(made, tmp_path / 'run', 'c', quiet=True)
    assert [c['policy'] for c in content['candidates']] == ['full']
    assert content['candidates'][0]['lr'] == made.optim.lr
    assert any('no source' in note for note in content['notes'])


def test_a_record_of_another_config_is_run_again(config, small_source, tmp_path):
    made = config(lrs=1, weight_decays=(0.0,), policies=('linear_probe',))
    tune.tune(made, tmp_path / 'run', 'c', quiet=True)
    (path,) = (tmp_path / 'run' / 'runs').iterdir()
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, 'of': 'another'}))
    tune.tune(made, tmp_path / 'run', 'c', quiet=True)
    again = json.loads(path.read_text())
    assert again['of'] == content['of']
    assert again['validation'] == content['validation']
    assert dataclasses.asdict(Curves(**{k: v for k, v in again.items() if k != 'of'}))
