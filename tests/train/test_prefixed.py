"""Runs that keep the features of their frozen prefix are the runs that don't."""

import jax
import numpy as np
import pytest

from tljax import config as config_lib
from tljax import trees
from tljax.errors import RunError
from tljax.models import arguments
from tljax.study import mapped
from tljax.study.runs import Arm, RunSpec
from tljax.train import experiment as experiment_lib
from tljax.train import features
from tljax.train.experiment import Source
from tljax.train.state import own_buffers

HALF = [('head/.*|backbone/hidden/.*', {}), ('.*', None)]
POLICIES = {
    'probe': 'linear_probe',
    'last': [dict(rules=HALF)],
    'phases': [dict(steps=6, rules=[('head/.*', {}), ('.*', None)]), dict(rules=HALF)],
}


def config_of(policy='linear_probe', **keys):
    config = config_lib.default()
    config.model = arguments('convnet', widths=(4, 8), hidden=16, norm='batch')
    config.source.uri = 'somewhere'
    config.data.update(name='handwritten_digits', shots=3)
    config.train.update(steps=12, batch_size=8, eval_every=4, save_every=100)
    config.transfer.policy = policy
    with config.unlocked():
        for key, value in keys.items():
            section, name = key.split('__')
            config[section][name] = value
    return config_lib.resolve(config)


def source_of(config, seed=7):
    scratch = experiment_lib.build(config, None)
    variables = jax.tree.map(np.asarray, scratch.model.init(jax.random.key(seed)))
    rng = np.random.default_rng(0)  # statistics that are not those of a fresh network
    stats = jax.tree.map(
        lambda x: (x + rng.uniform(0.1, 0.3, x.shape)).astype(x.dtype), variables['batch_stats']
    )
    leaves = trees.flatten(variables['params']) | trees.flatten(stats)
    return Source(leaves, {'title': 'made here'})


def experiment_of(policy='linear_probe', **keys):
    config = config_of(policy, **keys)
    return experiment_lib.build(config, source_of(config))


def records(experiment, seeds=(0, 1)):
    arm = Arm(experiment, 4)
    return [arm.run(RunSpec(seed, 0.01, trial=False), lambda n: None) for seed in seeds]


@pytest.mark.slow
@pytest.mark.parametrize('policy', POLICIES)
def test_a_study_run_is_the_same_with_and_without(policy):
    on = records(experiment_of(POLICIES[policy], prefix__cache='on'))
    off = records(experiment_of(POLICIES[policy], prefix__cache='off'))
    for one, two in zip(on, off, strict=True):
        np.testing.assert_allclose(one.validation, two.validation, atol=1e-6)
        assert one.test == pytest.approx(two.test, abs=1e-6)
        assert one.seconds > 0


def losses(experiment, steps=12):
    """The loss of each step, from the phase's own step and from the one behind the prefix."""
    arm = Arm(experiment, 4)
    variables = arm.variables(0)
    (program,) = arm.programs
    frozen = program.split(variables['params'])[1]
    subset, order = arm.order(0)
    state = program.start(variables, 0.05, jax.random.key(1))
    feed = arm.pool.of(subset)
    ready = arm.runners[0].ready(frozen, variables['batch_stats'], feed, arm.validation)
    got = []
    for data, indices in ready.feed.batches(order, 0, steps):
        state, metrics = ready.step(own_buffers(state), ready.fixed, data, indices)
        got.append((float(metrics['loss']), float(metrics['grad_norm'])))
    return np.array(got), state


@pytest.mark.parametrize('accumulate', [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize('policy', ['probe', 'last'])
def test_the_loss_curve_is_that_of_the_whole_model(policy, accumulate):
    keys = dict(train__accumulate=accumulate)
    on, state = losses(experiment_of(POLICIES[policy], prefix__cache='on', **keys))
    off, other = losses(experiment_of(POLICIES[policy], prefix__cache='off', **keys))
    np.testing.assert_allclose(on, off, rtol=2e-4)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # noqa: E731
    jax.tree.map(close, state.trainable, other.trainable)
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, other.batch_stats)
    assert on[0, 0] != on[-1, 0]


@pytest.mark.slow
@pytest.mark.parametrize('store', features.NAMES)
def test_where_features_lie_makes_no_difference(store, tmp_path):
    keys = dict(prefix__cache='on', prefix__store=store, prefix__dir=str(tmp_path / 'kept'))
    first, _ = losses(experiment_of(**keys))
    again, _ = losses(experiment_of(**keys))
    whole, _ = losses(experiment_of(prefix__cache='off'))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, whole, rtol=2e-4)


def ready_with(experiment, monkeypatch):
    """How many examples' features are computed when a phase is made ready."""
    count = []
    compute = features.Table.ensure

    def counted(table, chosen):
        count.append(int((table.row[np.unique(chosen)] < 0).sum()))
        compute(table, chosen)

    monkeypatch.setattr(features.Table, 'ensure', counted)
    losses(experiment, 1)
    return list(count)


@pytest.mark.slow
def test_features_on_disk_are_taken_up_only_if_nothing_changed(tmp_path, monkeypatch):
    keys = dict(prefix__cache='on', prefix__dir=str(tmp_path))
    first = ready_with(experiment_of(**keys), monkeypatch)
    assert first[0] == 30
    assert ready_with(experiment_of(**keys), monkeypatch) == [0, 0]
    config = config_of(**keys)
    other = experiment_lib.build(config, source_of(config, seed=8))
    assert ready_with(other, monkeypatch) == first  # other weights
    assert ready_with(experiment_of(prefix__dtype='float16', **keys), monkeypatch) == first
    wider = config_of(**keys)
    wider.data.mean, wider.data.std = (0.5,), (0.25,)
    assert ready_with(experiment_lib.build(wider, source_of(wider)), monkeypatch) == first
    for file in tmp_path.glob('*/feature*.npy'):
        file.write_bytes(file.read_bytes()[:200])
    assert ready_with(experiment_of(**keys), monkeypatch) == first  # damaged


def table_at(directory):
    """A table whose features of an example are its number."""
    shapes = {'feature0': jax.ShapeDtypeStruct((2,), np.float32)}

    def compute(chosen):
        return {'feature0': np.stack([chosen, chosen], 1).astype(np.float32)}

    return features.Table(shapes, compute, 4, 20, directory, 'a key')


def test_two_runs_that_share_a_directory_leave_each_other_alone(tmp_path):
    first, second = table_at(tmp_path), table_at(tmp_path)
    for table, chosen in ((first, [0, 1, 2]), (second, [5, 6, 7])):
        table.ensure(np.array(chosen))
    for table, chosen in ((first, [0, 1, 2]), (second, [7, 5])):
        np.testing.assert_array_equal(table.take(np.array(chosen))['feature0'][:, 0], chosen)
    third = table_at(tmp_path)
    third.ensure(np.array([5, 6, 8]))
    np.testing.assert_array_equal(third.take(np.array([8, 6]))['feature0'][:, 1], [8, 6])
    assert len(list(tmp_path.glob('feature0-*.npy'))) == 1


def test_features_of_other_views_are_others(tmp_path, monkeypatch):
    keys = dict(prefix__cache='on', prefix__dir=str(tmp_path), **AUGMENTED)
    assert ready_with(experiment_of(prefix__views=2, **keys), monkeypatch)[0] == 60
    assert ready_with(experiment_of(prefix__views=1, **keys), monkeypatch)[0] == 30


@pytest.mark.slow
def test_a_study_computes_the_features_of_an_example_once(monkeypatch):
    experiment = experiment_of(prefix__cache='on')
    arm, computed = Arm(experiment, 2), []
    room = features.Table._room
    monkeypatch.setattr(
        features.Table, '_room', lambda table, count: computed.append(count) or room(table, count)
    )
    for spec in (RunSpec(0, 0.01, True), RunSpec(0, 0.1, True), RunSpec(1, 0.1, True)):
        arm.run(spec, lambda n: None)
    union = len(np.union1d(arm.order(0)[0], arm.order(1)[0]))
    assert computed == [30, len(arm.validation.subset), union]


@pytest.mark.slow
def test_half_precision_features_take_half_the_bytes():
    whole = experiment_of(prefix__cache='on')
    half = experiment_of(prefix__cache='on', prefix__dtype='bfloat16')
    sizes = []
    for experiment in (whole, half):
        arm = Arm(experiment, 2)
        sizes.append(arm.runners[0].decide(30).nbytes)
    assert sizes == [30 * (16 * 4 + 4), 30 * (16 * 2 + 4)]
    np.testing.assert_allclose(losses(half)[0], losses(whole)[0], rtol=0.02)


@pytest.mark.parametrize(
    ('policy', 'keys', 'worth', 'said'),
    [
        ('linear_probe', {}, True, 'it saves 65%'),
        ('linear_probe', {'prefix__cache': 'off'}, False, 'config.prefix.cache is off'),
        ('full', {}, False, 'every leaf is trained'),
        ('linear_probe', {'data__shots': 0, 'train__steps': 1}, False, 'it would save only 0%'),
        ([dict(rules=[('backbone/convs/1/.*', None), ('.*', {})])], {}, False, 'nothing in front'),
    ],
)
def test_the_decision_and_its_reason(policy, keys, worth, said):
    experiment = experiment_of(policy, **keys)
    arm = Arm(experiment, 2)
    decision = arm.runners[0].decide(len(arm.order(0)[0]))
    assert decision.worth == worth
    assert said in decision.reason


@pytest.mark.slow
def test_moving_statistics_in_front_are_named_as_the_end():
    norms = [dict(rules=[('backbone/convs/.*', None), ('.*', {})])]
    experiment = experiment_of(norms)
    decision = Arm(experiment, 2).runners[0].decide(30)
    assert not decision.worth
    assert 'saves' not in decision.reason or 'would save only' in decision.reason


def test_frozen_leaves_are_not_read_by_the_step_behind_the_prefix():
    experiment = experiment_of(prefix__cache='on')
    arm = Arm(experiment, 2)
    (program,), (runner,) = arm.programs, arm.runners
    variables = arm.variables(0)
    frozen = program.split(variables['params'])[1]
    subset, order = arm.order(0)
    ready = runner.ready(frozen, variables['batch_stats'], arm.pool.of(subset), arm.validation)
    state = program.start(variables, 0.05, jax.random.key(1))
    data, indices = next(ready.feed.batches(order, 0, 1))
    cost = ready.step.lower(state, ready.fixed, data, indices).compile().cost_analysis()
    head = 16 * 10 + 10
    assert cost['flops'] < 60 * 8 * head  # three passes over the head, and Adam
    # What is fixed: batch statistics that pass through, no kernel.
    assert trees.nbytes(list(ready.fixed)) == trees.nbytes(variables['batch_stats'])


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(RunError, match=r'config\.prefix\.dir'):
        losses(experiment_of(prefix__cache='on', prefix__dir=str(tmp_path / 'file' / 'below')), 1)


AUGMENTED = dict(data__augment=('crop', 'flip'), train__steps=24)


def test_augmentation_in_front_switches_it_off_unless_views_are_kept():
    experiment = experiment_of(prefix__cache='on', **AUGMENTED)
    decision = Arm(experiment, 2).runners[0].decide(30)
    assert not decision.worth
    assert 'random numbers' in decision.reason
    kept = experiment_of(prefix__cache='on', prefix__views=2, **AUGMENTED)
    decision = Arm(kept, 2).runners[0].decide(30)
    assert decision.worth
    assert 'in 2 views' in decision.reason
    assert decision.nbytes == 2 * 30 * (16 * 4 + 4)


@pytest.mark.slow
def test_kept_views_train_as_the_same_views_made_anew():
    keys = dict(prefix__views=2, **AUGMENTED)
    on, _ = losses(experiment_of(prefix__cache='on', **keys), 16)
    off, _ = losses(experiment_of(prefix__cache='off', **keys), 16)
    np.testing.assert_allclose(on, off, rtol=2e-4)
    plain, _ = losses(experiment_of(prefix__cache='off'), 16)
    assert np.abs(plain - off).max() > 1e-3


@pytest.mark.slow
def test_mapped_runs_keep_views_too():
    arm = Arm(experiment_of(prefix__cache='on', prefix__views=3, **AUGMENTED), 4)
    specs = [RunSpec(0, 0.01, False), RunSpec(1, 0.03, False)]
    together = [record for _, record in mapped.run(arm, specs, lambda n: None)]
    for spec, record in zip(specs, together, strict=True):
        single = arm.run(spec, lambda n: None)
        np.testing.assert_allclose(record.validation, single.validation, atol=1.5 / 239)
