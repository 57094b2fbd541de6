"""Early stopping: when a run ends, which model it leaves, and that resuming changes nothing."""

import json

import numpy as np
import pytest

from tljax import config as config_lib
from tljax import trees
from tljax.errors import Interrupted
from tljax.models import arguments
from tljax.train import experiment as experiment_lib
from tljax.train import loop
from tljax.train.metrics import read_metrics
from tljax.train.model_dir import load_card, load_model
from tljax.train.patience import Patience


def by_hand(metrics, limit):
    """Where to stop and what is best, told without looking at the whole history again."""
    best, at, stale = -np.inf, None, 0
    for step, metric in enumerate(metrics):
        if metric > best:
            best, at, stale = metric, step, 0
        else:
            stale += 1
        if limit and stale >= limit:
            return step, at
    return None, at


@pytest.mark.parametrize('limit', [0, 1, 2, 5])
@pytest.mark.parametrize('seed', range(5))
def test_patience_ends_where_a_plain_count_does(limit, seed):
    metrics = np.random.default_rng(seed).integers(0, 4, 30) / 4  # with ties
    patience, ended = Patience(limit), None
    for step, metric in enumerate(metrics):
        patience.see(step, metric)
        if patience.exhausted:
            ended = step
            break
    assert (ended, patience.best_step) == by_hand(metrics, limit)


def test_an_evaluation_that_is_made_again_counts_once():
    patience = Patience(2)
    for step, metric in ((0, 0.5), (10, 0.4), (10, 0.4), (10, 0.4)):
        patience.see(step, metric)
    assert not patience.exhausted
    assert patience.see(0, 0.5)
    assert patience.history == [(0, 0.5)]


def test_what_was_before_the_last_phase_does_not_count():
    patience = Patience(2, begins=20)
    for step, metric in ((0, 0.9), (10, 0.8), (20, 0.7), (30, 0.6)):
        patience.see(step, metric)
        assert not patience.exhausted
    patience.see(40, 0.5)
    assert patience.exhausted
    assert patience.best_step == 0


def test_a_history_survives_json():
    one, other = Patience(3), Patience(3)
    for step, metric in ((0, 0.1), (5, 0.3), (9, 0.3)):
        one.see(step, metric)
    other.load(json.loads(json.dumps(one.to_json())))
    assert other.history == one.history
    other.load(None)
    assert other.history == []


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    """A run that soon gets worse: its learning rate is too high."""
    directory = tmp_path_factory.mktemp('digits') / 'tfds'

    def make(**train):
        config = config_lib.default()
        config.model = arguments('convnet', widths=(4,), hidden=8, norm='batch')
        config.data.update(name='handwritten_digits', shots=4, dir=str(directory), holdout=0.1)
        config.train.update(steps=60, batch_size=8, eval_every=5, save_every=1000, patience=2)
        config.optim.update(name='sgd', lr=0.5, clip=0.0, schedule='constant')
        config.train.update(train)
        return experiment_lib.build(config_lib.resolve(config), None)

    return make


@pytest.fixture(scope='module')
def whole(experiment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    loop.train(experiment(), workdir, quiet=True)
    return workdir


def leaves(workdir):
    return trees.flatten(load_model(workdir / 'model')[0])


def same(one, other):
    assert one.keys() == other.keys()
    return all(one[path].tobytes() == other[path].tobytes() for path in one)


def evaluations(workdir):
    lines = read_metrics(workdir / 'metrics.jsonl')
    return [(x['step'], x['validation/accuracy']) for x in lines if 'validation/accuracy' in x]


def test_a_run_stops_after_its_patience_and_leaves_its_best_model(experiment, whole):
    seen = evaluations(whole)
    ended, best = by_hand([metric for _, metric in seen], 2)
    assert ended == len(seen) - 1
    assert seen[ended][0] < 60, 'this run never gets worse, so that it tests nothing'
    card = load_card(whole / 'model')
    assert (card['steps'], card['best_step']) == (seen[ended][0], seen[best][0])
    variables, _ = load_model(whole / 'model')
    run = loop.Run(experiment(), whole)
    sums = run.validation.evaluate(run.evaluate, variables['params'], variables['batch_stats'])
    assert sums['accuracy'] / sums['weight'] == seen[best][1]


@pytest.mark.slow
def test_how_often_a_run_saves_changes_nothing(experiment, whole, tmp_path):
    loop.train(experiment(save_every=5, keep=1), tmp_path / 'run', quiet=True)
    assert evaluations(tmp_path / 'run') == evaluations(whole)
    assert same(leaves(tmp_path / 'run'), leaves(whole))


@pytest.mark.parametrize('at', [15, 23])
def test_a_resumed_run_stops_at_the_same_step_with_the_same_model(
    experiment, whole, tmp_path, monkeypatch, at
):
    from contextlib import contextmanager

    @contextmanager
    def stopped():
        yield lambda step: step == at

    with monkeypatch.context() as patch:
        patch.setattr(loop, 'stop_requested', stopped)
        with pytest.raises(Interrupted):
            loop.train(experiment(), tmp_path / 'run', quiet=True)
    loop.train(experiment(), tmp_path / 'run', quiet=True)
    assert evaluations(tmp_path / 'run') == evaluations(whole)
    assert same(leaves(tmp_path / 'run'), leaves(whole))


def test_without_patience_the_last_model_is_kept(experiment, whole, tmp_path):
    loop.train(experiment(patience=0, steps=20, eval_every=20), tmp_path / 'run', quiet=True)
    card = load_card(tmp_path / 'run' / 'model')
    assert card['steps'] == 20
    assert 'best_step' not in card
    assert not same(leaves(tmp_path / 'run'), leaves(whole))
