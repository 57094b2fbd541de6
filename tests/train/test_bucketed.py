"""Runs whose batches are cut to their longest text are the runs at full length."""

import numpy as np
import pytest
import small_texts

from tljax import trees
from tljax.errors import Interrupted
from tljax.study import mapped
from tljax.study.runs import Arm, RunSpec
from tljax.train import experiment as experiment_lib
from tljax.train import gradients, loop
from tljax.train.feed import Feed
from tljax.train.model_dir import load_model

BUCKETS = dict(data__buckets=2, data__length=40, data__shots=0)


@pytest.fixture(scope='module', autouse=True)
def quickly():
    with small_texts.quickly():
        yield


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    """experiment(policy, section__key=value, ...): with a source drawn at random, or scratch."""
    directory = tmp_path_factory.mktemp('texts')
    small_texts.write(directory)

    def make(policy='full', scratch=False, **keys):
        config = small_texts.config_of(
            'classification', directory, policy, **{**BUCKETS, 'prefix__cache': 'off', **keys}
        )
        config.model.update(positions=40, layers=1)
        return experiment_lib.build(config, None if scratch else small_texts.source_of(config))

    return make


def run(experiment):
    return Arm(experiment, 4).run(RunSpec(1, 0.1, trial=False), lambda _: None)


def lengths_seen(experiment):
    """How long the batches of a run are."""
    arm = Arm(experiment, 2)
    subset, order = arm.order(1)
    batches = arm.pool.of(subset).batches(order, 0, experiment.config.train.steps)
    return [data['tokens'].shape[1] for data, _ in batches]


def check_same(one, other):
    assert one.steps == other.steps
    np.testing.assert_allclose(one.validation, other.validation, atol=1e-5)
    assert one.test == pytest.approx(other.test, abs=1e-5)
    assert one.bad_step == other.bad_step == -1


LOSS = dict(task__metric='auc')  # which a small change of a logit can change


def test_a_run_is_the_same_at_full_length(experiment, monkeypatch):
    made = experiment(**LOSS)
    assert set(lengths_seen(made)) == {24, 40}
    cut = run(made)
    assert len(set(cut.validation)) > 1
    with monkeypatch.context() as patch:
        patch.setattr(Feed, 'bucket', lambda feed, chosen: None)
        assert set(lengths_seen(made)) == {40}
        check_same(run(made), cut)


@pytest.mark.slow
def test_kept_features_and_mapped_runs_are_the_same(experiment):
    kept = run(experiment('linear_probe', prefix__cache='on', **LOSS))
    arm = Arm(experiment('linear_probe', **LOSS), 4)
    specs = [RunSpec(seed, 0.1, trial=False) for seed in (1, 2)]
    together = dict(mapped.run(arm, specs, lambda _: None))
    alone = arm.run(specs[0], lambda _: None)
    check_same(together[specs[0]], alone)
    check_same(kept, alone)


@pytest.mark.slow
def test_streamed_is_as_held_in_memory(experiment):
    one, other = (experiment('linear_probe', data__in_memory=held) for held in ('off', 'on'))
    check_same(run(one), run(other))


def test_both_arms_see_the_same(experiment):
    transfer, scratch = experiment(), experiment(scratch=True)
    for seed in (0, 3):
        (subset, order), (other, same) = transfer.order(seed), scratch.order(seed)
        np.testing.assert_array_equal(subset, other)
        assert order.fingerprint() == same.fingerprint()
        assert order.fingerprint() != experiment(data__buckets=0).order(seed)[1].fingerprint()


@pytest.mark.slow
def test_gradients_of_blocks_are_the_same(experiment, monkeypatch):
    made = experiment()
    cut = gradients.relative(made)
    monkeypatch.setattr(Feed, 'bucket', lambda feed, chosen: None)
    np.testing.assert_allclose(gradients.relative(made), cut, rtol=1e-4)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(experiment, tmp_path, monkeypatch):
    made = experiment('linear_probe', train__steps=10, train__save_every=4, train__eval_every=10)
    whole, _ = load_model(loop.train(made, tmp_path / 'whole', quiet=True))
    for at in (3, 7):
        with monkeypatch.context() as patch:
            patch.setattr(loop, 'stop_requested', lambda at=at: Stop(at))
            with pytest.raises(Interrupted):
                loop.train(made, tmp_path / 'parts', quiet=True)
    parts, _ = load_model(loop.train(made, tmp_path / 'parts', quiet=True))
    whole, parts = trees.flatten(whole['params']), trees.flatten(parts['params'])
    for path, leaf in whole.items():
        np.testing.assert_array_equal(parts[path], leaf, err_msg=path)


class Stop:
    """Asks for an end at one step."""

    def __init__(self, at):
        self.at = at

    def __enter__(self):
        return lambda step: step == self.at

    def __exit__(self, *_):
        return None
