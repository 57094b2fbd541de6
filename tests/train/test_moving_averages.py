"""Moving averages: the formula, what is evaluated and saved, phases, and resuming bit for bit."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax import config as config_lib
from tljax import trees
from tljax.errors import Interrupted, UserError
from tljax.models import arguments
from tljax.train import experiment as experiment_lib
from tljax.train import loop
from tljax.train import state as state_lib
from tljax.train.model_dir import load_model

DECAY = 0.6


@pytest.mark.parametrize(
    ('step', 'decay'), [(0, 0.1), (1, 2 / 11), (3, 4 / 13), (20, 0.6), (10**6, 0.6)]
)
def test_the_average_is_that_of_the_formula(step, decay):
    old, new = np.float32(2.0), np.float32(-1.0)
    found = state_lib.averaged({'w': jnp.array(old)}, {'w': jnp.array(new)}, 0.6, jnp.int32(step))
    np.testing.assert_allclose(found['w'], decay * old + (1 - decay) * new, rtol=1e-6)


def test_what_does_not_change_equals_its_average_bit_for_bit():
    values = jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)
    averages = {'w': values}
    for step in range(20):
        averages = state_lib.averaged(averages, {'w': values}, 0.99, jnp.int32(step))
    assert averages['w'].tobytes() == values.tobytes()


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    directory = tmp_path_factory.mktemp('digits') / 'tfds'

    def make(policy='full', source=False, **optim):
        config = config_lib.default()
        config.model = arguments('convnet', widths=(4,), hidden=8, norm='batch')
        config.data.update(name='handwritten_digits', shots=4, dir=str(directory), holdout=0.1)
        config.train.update(steps=9, batch_size=8, eval_every=4, save_every=100)
        config.optim.update(name='sgd', lr=0.05, ema=DECAY)
        config.optim.update(optim)
        config.transfer.policy = policy
        plain = experiment_lib.build(config_lib.resolve(config), None)
        if not source:
            return plain
        variables = jax.device_get(plain.model.init(jax.random.key(9)))
        leaves = {p: np.asarray(x) for p, x in experiment_lib.flat_variables(variables).items()}
        return experiment_lib.build(
            config_lib.resolve(config), experiment_lib.Source(leaves, {}), data=plain.data
        )

    return make


def steps_of(experiment, tmp_path):
    """Each step's raw variables and averages, as a run passes through them."""
    run = loop.Run(experiment, tmp_path / 'run')
    seen = []
    for step in range(experiment.config.train.steps):
        phase = experiment.phase_at(step)
        if phase != run.program.phase:
            run.switch(phase)
        ready = run.prepared() if run.ready is None else run.ready
        run.ready = ready
        data, indices = next(iter(ready.feed.batches(run.order, step, step + 1)))
        run.state, _ = ready.step(run.state, ready.fixed, data, indices)
        raw = {'params': run.params(), 'batch_stats': run.state.batch_stats}
        seen.append(jax.device_get((flat(raw), flat(run.variables()))))
    return seen


def flat(variables):
    return experiment_lib.flat_variables(variables)


def start_of(experiment):
    init_key, _ = experiment_lib.run_keys(experiment.config.seed)
    return jax.device_get(flat(jax.jit(experiment.init)(init_key, experiment.loaded)))


def test_parameters_and_statistics_are_averaged_over_the_steps(experiment, tmp_path):
    made = experiment()
    average = {path: leaf.astype(np.float64) for path, leaf in start_of(made).items()}
    for step, (raw, served) in enumerate(steps_of(made, tmp_path)):
        decay = min(DECAY, (1 + step) / (10 + step))
        average = {p: decay * average[p] + (1 - decay) * raw[p] for p in average}
        for path, leaf in average.items():
            np.testing.assert_allclose(served[path], leaf, rtol=1e-4, atol=1e-6, err_msg=path)
    assert any(np.abs(raw[path] - served[path]).max() > 1e-4 for path in raw)


def test_averages_do_not_change_the_training_itself(experiment, tmp_path):
    with_them = steps_of(experiment(), tmp_path)[-1][0]
    without = steps_of(experiment(ema=0.0), tmp_path)[-1]
    for path in with_them:
        np.testing.assert_array_equal(with_them[path], without[0][path], err_msg=path)
        np.testing.assert_array_equal(without[0][path], without[1][path], err_msg=path)


def test_averages_go_through_phases_and_frozen_leaves_stay(experiment, tmp_path):
    made = experiment('head_then_full', source=True)
    first, boundary = start_of(made), made.phases[0].end
    average = {path: leaf.astype(np.float64) for path, leaf in first.items()}
    for step, (raw, served) in enumerate(steps_of(made, tmp_path)):
        decay = min(DECAY, (1 + step) / (10 + step))
        for path in average:
            if step < boundary and not path.startswith('head/'):
                assert served[path].tobytes() == first[path].tobytes(), path
                continue
            average[path] = decay * average[path] + (1 - decay) * raw[path]
            np.testing.assert_allclose(
                served[path], average[path], rtol=1e-4, atol=1e-6, err_msg=path
            )


def test_statistics_that_a_phase_freezes_are_served_as_they_were_frozen(experiment, tmp_path):
    # As the leaves around them are, and as a kept prefix has them when it evaluates.
    probe = [('head/.*', {}), ('.*', None)]
    policy = [dict(steps=4, rules=[('.*', {})]), dict(rules=probe)]
    seen = steps_of(experiment(policy, source=True), tmp_path)
    frozen = [path for path in seen[0][0] if not path.startswith('head/')]
    assert any((seen[3][0][path] != seen[3][1][path]).any() for path in frozen)
    for raw, served in seen[4:]:
        for path in frozen:
            np.testing.assert_array_equal(served[path], raw[path], err_msg=path)


def leaves(workdir):
    return trees.flatten(load_model(workdir / 'model')[0])


def test_the_averages_are_what_a_run_saves_and_resumes_bit_for_bit(
    experiment, tmp_path, monkeypatch
):
    made = experiment()
    wanted = steps_of(made, tmp_path)[-1][1]
    loop.train(made, tmp_path / 'whole', quiet=True)
    whole = leaves(tmp_path / 'whole')
    for path, leaf in wanted.items():
        kind = 'batch_stats' if f'batch_stats/{path}' in whole else 'params'
        np.testing.assert_array_equal(whole[f'{kind}/{path}'], leaf, err_msg=path)

    @contextmanager
    def stopped():
        yield lambda step: step == 5

    with monkeypatch.context() as patch:
        patch.setattr(loop, 'stop_requested', stopped)
        with pytest.raises(Interrupted):
            loop.train(made, tmp_path / 'resumed', quiet=True)
    loop.train(made, tmp_path / 'resumed', quiet=True)
    resumed = leaves(tmp_path / 'resumed')
    assert all(resumed[path].tobytes() == whole[path].tobytes() for path in whole)


@pytest.mark.slow
def test_studies_evaluate_the_averages_mapped_or_not(experiment):
    from tljax.study import mapped
    from tljax.study.runs import Arm, RunSpec

    made = experiment('head_then_full', source=True)
    arm, spec = Arm(made, 4), RunSpec(seed=3, lr=0.05, trial=False)
    seen = []
    metric = Arm.metric

    def spy(self, evaluate, feed, params, batch_stats):
        seen.append(jax.device_get(flat({'params': params, 'batch_stats': batch_stats})))
        return metric(self, evaluate, feed, params, batch_stats)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arm, 'metric', spy)
        alone = arm.run(spec, lambda steps: None)
    raw = Arm(experiment('head_then_full', source=True, ema=0.0), 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arm, 'metric', spy)
        raw.run(spec, lambda steps: None)
    half = len(seen) // 2
    assert np.abs(seen[half - 1]['head/bias'] - seen[-1]['head/bias']).max() > 1e-5
    ((_, together),) = mapped.run(arm, [spec], lambda steps: None)
    assert together.steps == alone.steps
    assert together.validation == pytest.approx(alone.validation, abs=0.012)
    assert together.test == pytest.approx(alone.test, abs=0.012)


@pytest.mark.parametrize('ema', [1.0, -0.1, float('nan')])
def test_a_decay_outside_0_to_1_is_refused(experiment, ema):
    with pytest.raises(UserError, match=r'optim\.ema'):
        experiment(ema=ema)
