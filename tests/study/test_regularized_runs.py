"""Regularisers in runs: both arms, every policy, resumed, mapped, behind a kept prefix."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax import config as config_lib
from tljax import trees
from tljax.errors import Interrupted, UserError
from tljax.models import merge
from tljax.study import mapped
from tljax.study.runs import Arm, RunSpec
from tljax.train import experiment as experiment_lib
from tljax.train import loop, programs, sources
from tljax.train.model_dir import load_model
from tljax.train.reference import RunReference, ablation, fisher, logistic
from tljax.transfer import regularizers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('one_device')]
MODEL = dict(name='convnet', widths=(4, 3), hidden=8, norm='batch', dropout=0.3)
SOURCE_OUTPUTS = 6
EVERY = ('l2_sp', 'delta', 'bss', 'lwf', 'co_tuning', 'stoch_norm', 'r_drop', 'mixup', 'cutmix')
STATIC = ('l2_sp', "delta(attention='none')", 'bss', 'lwf', 'stoch_norm', 'r_drop', 'mixup')


@pytest.fixture
def build(small_config):
    """An experiment whose source has a head of another size; and the source."""

    def make(regularize, source=True, policy='full', **sections):
        config = config_lib.plain(small_config(**sections))
        config['model'] = MODEL
        config['transfer'].update(regularize=regularize, reset=('head/.*',), policy=policy)
        config = config_lib.resolve(config)
        plain = experiment_lib.build(config_of(config, regularize=()), None)
        model = experiment_lib.models.build(MODEL, plain.data.example, SOURCE_OUTPUTS)
        leaves = experiment_lib.flat_variables(jax.device_get(model.init(jax.random.key(99))))
        rng = np.random.default_rng(0)
        leaves = {
            path: leaf + 0.2 * rng.uniform(size=leaf.shape).astype(np.float32)
            for path, leaf in sorted(leaves.items())
        }
        given = experiment_lib.Source(leaves, {}) if source else None
        return experiment_lib.build(config, given), model, leaves

    return make


def config_of(config, **transfer):
    changed = config_lib.plain(config)
    changed['transfer'] = {**changed['transfer'], **transfer}
    return config_lib.resolve(changed)


def source_logits(model, leaves, experiment, positions):
    """What the source says of training examples, and its features."""
    values = [
        trees.map_with_path(lambda path, _: jnp.asarray(leaves[path]), tree)
        for tree in model.shapes().values()
    ]
    module = merge(model.graph(train=False), *values)
    image = experiment.data.split('train').arrays()['image'][positions]
    batch = experiment.prepare({'image': jnp.asarray(image)})
    return np.asarray(module(batch), np.float64), np.asarray(module.features(batch), np.float64)


def test_a_scratch_arm_has_what_is_not_about_the_source(build):
    transfer, _, leaves = build(EVERY)
    scratch, _, _ = build(EVERY, source=False)
    assert tuple(r.name for r in transfer.setting.regularizers) == EVERY
    assert [r.name for r in scratch.setting.regularizers] == ['r_drop', 'mixup', 'cutmix']
    assert 'source_head/kernel' in transfer.param_paths()
    np.testing.assert_array_equal(transfer.loaded['source_head/kernel'], leaves['head/kernel'])
    assert not any(path.startswith('source_head') for path in scratch.param_paths())
    assert scratch.reference == {}


@pytest.mark.slow
def test_a_run_with_all_of_them_trains_and_saves_a_model_as_without(build, tmp_path):
    experiment, _, _ = build(EVERY)
    directory = loop.train(experiment, tmp_path, quiet=True)
    variables, _ = load_model(directory)
    plain, _, _ = build(())
    shapes = jax.tree.map(lambda leaf: leaf.shape, plain.model.shapes())
    assert jax.tree.map(lambda leaf: leaf.shape, variables) == shapes


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(build, tmp_path, monkeypatch):
    experiment, _, _ = build(EVERY, train={'eval_every': 4, 'save_every': 4})
    whole, _ = load_model(loop.train(experiment, tmp_path / 'whole', quiet=True))

    with monkeypatch.context() as patch:
        patch.setattr(loop, 'stop_requested', lambda: _Stop(5))
        with pytest.raises(Interrupted):
            loop.train(experiment, tmp_path / 'parts', quiet=True)
    parts, _ = load_model(loop.train(experiment, tmp_path / 'parts', quiet=True))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


class _Stop:
    """Asks for an end at one step."""

    def __init__(self, at):
        self.at = at

    def __enter__(self):
        return lambda step: step == self.at

    def __exit__(self, *_):
        return None


@pytest.mark.slow
@pytest.mark.parametrize(
    'policy',
    [
        pytest.param('gradual', marks=pytest.mark.matrix),
        'bitfit',
        pytest.param('linear_probe', marks=pytest.mark.matrix),
        pytest.param('head_then_full', marks=pytest.mark.matrix),
        pytest.param('layerwise_decay(decay=0.5)', marks=pytest.mark.matrix),
    ],
)
def test_they_work_under_every_policy_and_leave_frozen_leaves_alone(build, policy):
    experiment, _, _ = build(EVERY, policy=policy)
    arm = Arm(experiment, 4)
    record = arm.run(RunSpec(3, 0.01, trial=True), lambda _: None)
    assert record.bad_step == -1
    assert np.isfinite(record.validation).all()


def test_what_they_need_beside_the_model_never_moves_and_is_not_baked_in(build):
    experiment, _, _ = build(EVERY)
    program = programs.program(experiment, experiment.phases[0])
    arm = Arm(experiment, 4)
    reference = arm.runners[0].reference(arm.pool.of(arm.order(0)[0]))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), reference)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), program.reference)
    names = set(reference)
    assert names == {'variables', 'relation', 'attention'}


@pytest.mark.matrix
def test_mapped_runs_give_what_single_runs_give(build):
    experiment, _, _ = build(STATIC)
    arm = Arm(experiment, 4)
    assert mapped.fits(arm)
    specs = [RunSpec(seed, lr, trial=True) for seed, lr in ((1, 0.01), (2, 0.02))]
    together = [record for _, record in mapped.run(arm, specs, lambda _: None)]
    alone = [arm.run(spec, lambda _: None) for spec in specs]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.validation, other.validation, atol=0.02)
        assert one.bad_step == other.bad_step == -1


def test_runs_that_look_at_their_examples_first_are_not_mapped(build):
    for regularize in (('co_tuning',), ('delta',)):
        assert not mapped.fits(Arm(build(regularize)[0], 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    'regularize',
    [
        pytest.param(('lwf', "delta(attention='none')"), marks=pytest.mark.matrix),
        ('co_tuning', 'delta'),
    ],
)
def test_behind_a_kept_prefix_the_loss_is_the_same(build, regularize):
    losses = {}
    for cache in ('on', 'off'):
        experiment, _, _ = build(regularize, policy='linear_probe', prefix={'cache': cache})
        arm = Arm(experiment, 4)
        subset, order = arm.order(0)
        variables = arm.variables(0)
        runner, program = arm.runners[0], arm.programs[0]
        state = program.start(variables, 0.05, jax.random.key(0))
        feed = arm.pool.of(subset)
        frozen = program.split(variables['params'])[1]
        ready = runner.ready(frozen, state.batch_stats, feed, arm.validation)
        found = []
        for data, indices in ready.feed.batches(order, 0, 6):
            state, metrics = ready.step(state, ready.fixed, data, indices)
            found.append({name: float(value) for name, value in metrics.items()})
        losses[cache] = found
    for one, other in zip(losses['on'], losses['off'], strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_allclose(value, other[name], rtol=2e-4, atol=1e-6, err_msg=name)


def test_l2_sp_remembers_the_source_through_phases(build):
    experiment, _, leaves = build(('l2_sp(alpha=1.0)',), policy='head_then_full')
    first, second = (programs.program(experiment, p) for p in experiment.phases)
    variables = jax.jit(experiment.init)(jax.random.key(0), experiment.loaded)
    state = first.start(variables, 0.1, jax.random.key(1))
    moved = jax.tree.map(lambda leaf: leaf + 1.0, state.trainable)  # the head
    state = dataclasses.replace(state, trainable=moved)
    params = trees.combine(moved, first.split(variables['params'])[1])
    state = second.enter(state, params)
    grads = jax.tree.map(jnp.zeros_like, state.trainable)
    further = jax.tree.map(lambda leaf: leaf + 0.5, state.trainable)
    starts = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if 'start' in jax.tree_util.keystr(path) and 'hidden' in jax.tree_util.keystr(path)
        if 'kernel' in jax.tree_util.keystr(path)
    ]
    np.testing.assert_array_equal(starts[0], leaves['backbone/hidden/kernel'])
    updates, _ = second.tx.update(grads, state.opt_state, further)
    assert float(jnp.abs(trees.flatten(updates)['backbone/hidden/kernel']).sum()) > 0


def test_l2_sp_draws_what_a_phase_left_out_to_the_source_again(build):
    alone = dict(steps=2, rules=[('head/.*', {}), ('.*', None)])
    whole = [('.*', {})]
    policy = [dict(steps=2, rules=whole), alone, dict(rules=whole)]
    experiment, _, leaves = build(('l2_sp(alpha=1.0)',), policy=policy)
    first, second, third = (programs.program(experiment, p) for p in experiment.phases)
    variables = jax.jit(experiment.init)(jax.random.key(0), experiment.loaded)
    state = first.start(variables, 0.1, jax.random.key(1))
    params = jax.tree.map(lambda leaf: leaf + 1.0, variables['params'])  # trained by the first
    state = third.enter(second.enter(state, params), params)
    starts = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
    }
    kernels = [leaf for path, leaf in starts.items() if "start['backbone']['hidden']['k" in path]
    np.testing.assert_array_equal(kernels[0], leaves['backbone/hidden/kernel'])


# What is measured before the first update


def test_the_relation_is_the_mean_of_what_the_source_says_of_a_class(build):
    experiment, model, leaves = build(('co_tuning(temperature=2)',))
    arm = Arm(experiment, 4)
    subset = arm.order(5)[0]
    found = np.asarray(RunReference(experiment)(arm.pool.of(subset))['relation'])
    labels = experiment.data.split('train').labels()[subset]
    logits, _ = source_logits(model, leaves, experiment, subset)
    soft = np.exp(logits / 2)
    soft /= soft.sum(-1, keepdims=True)
    expected = np.stack([soft[labels == c].mean(0) for c in range(found.shape[0])])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(found.sum(-1), np.ones(len(found)), rtol=1e-5)


def test_attention_is_the_softmax_of_what_leaving_a_channel_out_costs(build):
    experiment, model, leaves = build(("delta(attention='ablation')",))
    arm = Arm(experiment, 4)
    subset = arm.order(5)[0]
    found = RunReference(experiment)(arm.pool.of(subset))['attention']
    assert [len(weights) for weights in found] == [4, 3, 8]
    labels = experiment.data.split('train').labels()[subset]
    _, features = source_logits(model, leaves, experiment, subset)
    head = logistic(features, labels, experiment.task.outputs)

    def loss(features):
        logits = features @ head['kernel'] + head['bias']
        log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return -log[np.arange(len(labels)), labels].mean()

    # A channel of the last stage is a column of the features.
    rises = [
        loss(features * (np.arange(8) != channel)[None, :]) - loss(features) for channel in range(8)
    ]
    np.testing.assert_allclose(found[-1], np.exp(rises) / np.exp(rises).sum(), rtol=1e-3)
    # One of the first: its normalisation gives nothing.
    rises = []
    for channel in range(4):
        changed = {path: leaf.copy() for path, leaf in leaves.items()}
        for name in ('scale', 'bias'):
            changed[f'backbone/norms/0/{name}'][channel] = 0
        rises.append(loss(source_logits(model, changed, experiment, subset)[1]) - loss(features))
    np.testing.assert_allclose(found[0], np.exp(rises) / np.exp(rises).sum(), rtol=1e-3)


def test_attention_to_second_order_is_the_fisher_information_of_a_mask(build):
    experiment, model, leaves = build(('delta',))
    arm = Arm(experiment, 4)
    subset = arm.order(5)[0]
    found = RunReference(experiment)(arm.pool.of(subset))['attention']
    labels = experiment.data.split('train').labels()[subset]
    _, features = source_logits(model, leaves, experiment, subset)
    head = logistic(features, labels, experiment.task.outputs)
    kernel = head['kernel'].astype(np.float64)
    logits = features @ kernel + head['bias']
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total = np.zeros(8)
    for row, share in zip(features, shares, strict=True):
        for c, probability in enumerate(share):
            slope = row * (kernel @ (share - np.eye(len(share))[c]))  # of -log p_c by each mask
            total += probability * slope**2 / 2 / len(features)
    np.testing.assert_allclose(found[-1], np.exp(total) / np.exp(total).sum(), rtol=1e-3)
    for weights in found:
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)


def test_the_second_order_goes_with_what_ablation_finds():
    rng = np.random.default_rng(0)
    features, kernel = rng.normal(size=(200, 6)), rng.normal(size=(6, 3))
    features *= np.array([0.1, 0.3, 0.5, 1, 2, 3])
    labels = (features @ kernel + rng.gumbel(size=(200, 3))).argmax(-1)

    def logits_of(masks):
        return (jnp.float32(features) * masks[0]) @ jnp.float32(kernel)

    whole, weight = (jnp.ones((200, 6)),), jnp.ones(200)
    exact = ablation(logits_of, whole, jax.nn.one_hot(labels, 3), weight)[0]
    near = fisher(logits_of, whole, weight)[0]
    assert np.corrcoef(exact, near)[0, 1] > 0.8
    without = fisher(logits_of, whole, weight * (np.arange(200) < 100))[0]
    kept = jnp.float32(features[:100])
    part = (jnp.ones((100, 6)),)
    half = fisher(lambda masks: (kept * masks[0]) @ jnp.float32(kernel), part, weight[:100])[0]
    np.testing.assert_allclose(without, half, rtol=1e-4)


def test_a_class_without_an_example_is_far_below():
    rows = np.random.default_rng(0).normal(size=(20, 3))
    head = logistic(rows, np.repeat([0, 2], 10), 4)
    logits = rows @ head['kernel'] + head['bias']
    assert (logits[:, [1, 3]].max(1) < logits[:, [0, 2]].min(1) - 10).all()
    assert np.isfinite(logistic(rows, np.zeros(20, int), 4)['kernel']).all()


# Mistakes


def test_what_is_about_a_source_needs_one(small_config):
    config = small_config()
    config.transfer.regularize = ('mixup', 'l2_sp')
    with pytest.raises(UserError, match=r'regularize has l2_sp.*source.uri is empty'):
        sources.check_keys(config)
    config.transfer.regularize = ('mixup',)
    sources.check_keys(config)


def test_a_wrong_name_is_told_before_anything_is_trained(small_config):
    config = small_config()
    config.transfer.regularize = ('mixap',)
    with pytest.raises(UserError, match=r'config.transfer.regularize: no .mixap'):
        experiment_lib.build(config, None)
    assert regularizers.KEY == 'config.transfer.regularize'
