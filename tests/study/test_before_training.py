"""What is done before the first update: statistics estimated, a block chosen; and schedules."""

import jax
import numpy as np
import pytest

from tljax import config as config_lib
from tljax import trees
from tljax.errors import UserError
from tljax.study import mapped
from tljax.study.runs import Arm, RunSpec
from tljax.train import experiment as experiment_lib
from tljax.train import gradients, norms, programs
from tljax.train.experiment import run_keys
from tljax.train.loop import Run, train
from tljax.train.model_dir import load_model

MODEL = dict(name='convnet', widths=(4, 3), hidden=8, norm='batch', dropout=0.3)


@pytest.fixture(scope='module')
def source_of():
    """A source for a config, drawn at random, its statistics unlike any batch's."""

    def make(config):
        model = experiment_lib.build(config, None).model
        variables = jax.device_get(model.init(jax.random.key(99)))
        leaves = experiment_lib.flat_variables(variables)
        rng = np.random.default_rng(0)
        return experiment_lib.Source(
            {
                path: leaf + 0.2 * rng.uniform(size=leaf.shape).astype(np.float32)
                for path, leaf in sorted(leaves.items())
            },
            {},
        )

    return make


@pytest.fixture
def build(small_config, source_of):
    def make(**sections):
        config = small_config(**sections)
        config = config_lib.plain(config)
        config['model'] = MODEL
        config = config_lib.resolve(config)
        source = source_of(config)
        return experiment_lib.build(config, source), source.leaves

    return make


def examples(experiment, positions):
    split = experiment.data.split('train')
    images = split.arrays()['image'][positions].astype(np.float64) / 255
    mean, std = experiment.config.data.mean, experiment.config.data.std
    return (images - np.array(mean or 0.0)) / np.array(std or 1.0), split.labels()[positions]


def convolved(x, kernel, bias):
    """A 3x3 convolution with zeros around, place by place."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    out = np.zeros((*x.shape[:3], kernel.shape[-1])) + bias
    for i in range(3):
        for j in range(3):
            out += padded[:, i : i + height, j : j + width] @ kernel[i, j]
    return out


def batch_moments(x, leaves):
    """Mean and variance of each convolution's output, normalised by the batch's own."""
    moments = {}
    for n in (0, 1):
        kernel, bias = (leaves[f'backbone/convs/{n}/{name}'] for name in ('kernel', 'bias'))
        x = convolved(x, kernel, bias)
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        moments[f'backbone/norms/{n}/mean'], moments[f'backbone/norms/{n}/var'] = mean, var
        scale, shift = (leaves[f'backbone/norms/{n}/{name}'] for name in ('scale', 'bias'))
        x = np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + shift, 0)
        x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))
    return moments


def expected_statistics(experiment, leaves, arm, seed):
    subset, order = arm.order(seed)
    assert len(subset) == 40
    batches = [
        batch_moments(examples(experiment, subset[order.batch(step)])[0], leaves)
        for step in range(5)
    ]
    return {path: np.mean([moments[path] for moments in batches], 0) for path in batches[0]}


@pytest.mark.parametrize('seed', [pytest.param(0, marks=pytest.mark.slow), 3])
def test_statistics_are_the_mean_over_an_epoch_of_the_subset(build, seed):
    experiment, leaves = build(transfer={'adapt_norm': True, 'reset': ('head/.*',)})
    arm = Arm(experiment, 6)
    variables = arm.variables(seed)
    expected = expected_statistics(experiment, leaves, arm, seed)
    got = trees.flatten(variables['batch_stats'])
    assert got.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(got[path], value, rtol=1e-4, atol=1e-5)
        assert np.all(np.abs(np.asarray(got[path]) - leaves[path]) > 1e-3)
    plain = Arm(build(transfer={'reset': ('head/.*',)})[0], 6).variables(seed)
    for path, leaf in trees.flatten(plain['batch_stats']).items():
        np.testing.assert_array_equal(leaf, leaves[path])
    jax.tree.map(np.testing.assert_array_equal, variables['params'], plain['params'])


def test_a_frozen_run_keeps_the_statistics_it_began_with(build, tmp_path):
    transfer = {'adapt_norm': True, 'reset': ('head/.*',), 'policy': 'linear_probe'}
    experiment, leaves = build(transfer=transfer)
    expected = expected_statistics(experiment, leaves, Arm(experiment, 6), 0)
    variables, _ = load_model(train(experiment, tmp_path, quiet=True))
    for path, leaf in trees.flatten(variables['batch_stats']).items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-4, atol=1e-5)
    for path in ('backbone/convs/0/kernel', 'backbone/norms/1/scale'):
        np.testing.assert_array_equal(trees.flatten(variables['params'])[path], leaves[path])


def test_mapped_studies_leave_adapted_runs_to_be_run_one_by_one(build):
    adapted, _ = build(transfer={'adapt_norm': True})
    plain, _ = build()
    scratch = experiment_lib.build(adapted.config, None)
    assert mapped.fits(Arm(plain, 6))
    assert not mapped.fits(Arm(adapted, 6))
    assert not mapped.fits(Arm(scratch, 6))  # both arms in one way, so that times compare
    assert not norms.wanted(scratch)
    record = Arm(adapted, 6).run(RunSpec(0, 0.1, False), lambda steps: None)
    assert record.bad_step == -1


def test_a_model_without_statistics_has_none_to_adapt(small_config, source_of):
    config = config_lib.plain(small_config(transfer={'adapt_norm': True}))
    config['model'] = dict(MODEL, norm='none')
    config = config_lib.resolve(config)
    leaves = source_of(config).leaves
    with pytest.raises(UserError, match=r'adapt_norm is set, but convnet keeps no batch stat'):
        experiment_lib.check_fit(config, leaves)


@pytest.mark.slow
def test_relative_gradients_are_those_of_the_whole_subset(build):
    experiment, leaves = build()
    got = gradients.relative(experiment)
    subset = experiment.data.subset(0)
    images, labels = examples(experiment, subset)
    graph, task = experiment.model.graph(train=False), experiment.task
    variables = experiment.init(run_keys(0)[0])
    batch = {'image': images.astype(np.float32), 'label': labels}

    def loss(params):
        from tljax.models import merge

        module = merge(graph, params, variables['batch_stats'])
        log_p = jax.nn.log_softmax(module(batch))
        return -log_p[np.arange(len(labels)), labels].mean()

    assert task.label_smoothing == 0
    grads = trees.flatten(jax.device_get(jax.grad(loss)(variables['params'])))
    blocks = ('backbone/convs/0', 'backbone/norms/0'), ('backbone/convs/1', 'backbone/norms/1')
    for names, ratio in zip((*blocks, ('backbone/hidden',)), got, strict=True):
        paths = [path for path in grads if path.startswith(names)]
        above = sum(np.sum(np.square(grads[path].astype(np.float64))) for path in paths)
        below = sum(np.sum(np.square(leaves[path].astype(np.float64))) for path in paths)
        assert ratio == pytest.approx(np.sqrt(above / below), rel=1e-3)


def test_the_block_with_the_largest_gradient_is_trained(build):
    transfer = {'policy': "surgical(block='auto')"}
    experiment, _ = build(transfer=transfer)
    index = int(np.argmax(gradients.relative(experiment)))
    (phase,) = experiment.phases
    chosen = experiment.model.outline().blocks[index]
    assert [pattern for pattern, value in phase.rules if value is not None] == [*chosen, 'head/.*']


def test_a_head_at_zero_lets_the_gradient_through_for_the_measurement_only(build):
    experiment, _ = build(transfer={'reset': ('head/.*',)})
    init = experiment.init

    class AtZero:
        def __getattr__(self, name):
            return getattr(experiment, name)

        def init(self, key, loaded=None):
            return jax.tree.map(lambda leaf: leaf, init(key, loaded)) | {
                'params': trees.map_with_path(
                    lambda path, leaf: 0 * leaf if path == 'head/kernel' else leaf,
                    init(key, loaded)['params'],
                )
            }

    assert all(value > 1e-4 for value in gradients.relative(AtZero()))


@pytest.mark.parametrize('restart', [True, False])
def test_schedules_restart_in_each_phase_or_go_on(build, restart):
    experiment, _ = build(
        transfer={'policy': 'head_then_full(share=0.5)'},
        optim={'restart': restart, 'schedule': 'cosine', 'lr': 0.1, 'warmup_steps': 2},
    )
    steps, seen = experiment.config.train.steps, []
    variables = experiment.init(run_keys(0)[0])
    data, params, state = experiment.data.split('train').arrays(), variables['params'], None
    batch = {name: leaf[:8] for name, leaf in data.items()}
    for phase in experiment.phases:
        program = programs.program(experiment, phase)
        if state is None:
            state = program.start(variables, 0.1, run_keys(0)[1])
        else:
            state = program.enter(state, params)
        frozen = program.split(params)[1]
        step = jax.jit(program.step)
        for _ in range(phase.steps):
            state, metrics = step(state, program.fixed(frozen), batch)
            seen.append(float(metrics['lr']))
        params = trees.combine(state.trainable, frozen)

    def rates(length):
        rise = [0.05, 0.1]
        fall = 0.05 * (1 + np.cos(np.pi * np.arange(length - 2) / (length - 2)))
        return [*rise, *fall]

    expected = 2 * rates(steps // 2) if restart else rates(steps)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_from_scratch_takes_nothing_from_the_source(build):
    experiment, _ = build(transfer={'policy': 'from_scratch'})
    assert experiment.loaded == {}
    assert experiment.card is None
    assert experiment.manifest is None
    fresh = experiment.model.init(run_keys(0)[0])
    jax.tree.map(np.testing.assert_array_equal, experiment.init(run_keys(0)[0]), fresh)


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_not_stopped(build, tmp_path):
    transfer = {'adapt_norm': True, 'policy': "surgical(block='auto')"}
    experiment, _ = build(transfer=transfer, train={'save_every': 5})
    whole, _ = load_model(train(experiment, tmp_path / 'whole', quiet=True))
    stopped = Run.go

    def stop_at_five(self, ckpts, writer, progress, stop):
        return stopped(self, ckpts, writer, progress, lambda step: step == 5)

    from tljax.errors import Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, 'go', stop_at_five)
        with pytest.raises(Interrupted):
            train(experiment, tmp_path / 'parts', quiet=True)
    parts, _ = load_model(train(experiment, tmp_path / 'parts', quiet=True))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
