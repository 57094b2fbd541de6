"""Every policy on every architecture keeps the freezing contract, step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from tljax import config as config_lib
from tljax import trees
from tljax.errors import UserError
from tljax.models.build import MODELS
from tljax.tasks.classification import Classification
from tljax.train import optimizer
from tljax.train import state as state_lib
from tljax.train import step as step_lib
from tljax.transfer import policies

TASK = Classification(('a', 'b', 'c'))
SLOW_TO_COMPILE = ('bit', 'efficientnet_lite', 'resnet')
CHANGES = {'alexnet': dict(hidden=16)}
STEPS, BATCH = 2, 8
# Each with the phase that is tried: the one that trains least, but where every phase is alike.
CALLS = {
    'linear_probe': 0,
    'gradual': 1,
    'discriminative(rates=(0, 0.5, 1))': 0,
    'layerwise_decay(decay=0.5)': 0,
    'surgical(block="first")': 0,
    'surgical(block="last", head=False)': 0,
    'bitfit': 0,
    'norm_only': 0,
}
FEW = ('linear_probe', 'surgical(block="last", head=False)', 'norm_only')


PAIRS = [
    (name, call) for name in sorted(MODELS) for call in (FEW if name in SLOW_TO_COMPILE else CALLS)
]
CASES = small_models.sampled(PAIRS, [('convnet', call) for call in CALLS], every=28)


@functools.lru_cache(maxsize=1)
def made(name):
    model = small_models.build(name, **CHANGES.get(name, {}))
    batch = small_models.batch_of(name, BATCH)
    return model, small_models.scattered(model), {k: jnp.asarray(v) for k, v in batch.items()}


@functools.lru_cache(maxsize=4)
def forward_flops(name):
    model, variables, batch = made(name)
    evaluate = step_lib.make_eval_step(model, TASK)
    batch = {**batch, 'weight': jnp.ones(BATCH)}
    return flops(evaluate, variables['params'], variables['batch_stats'], batch)


def norm(leaf):
    return float(jnp.sqrt(jnp.square(leaf).sum()))


def flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()['flops']


def section():
    optim = config_lib.default().optim
    optim.update(weight_decay=0.1, clip=1.0, schedule='constant')
    return optim


def decisions_of(model, call):
    outline = model.outline()
    if call == 'norm_only' and not outline.norms:
        with pytest.raises(UserError, match='no normalisation layers'):
            policies.phases(call, 100, outline)
        pytest.skip('nothing is normalised')
    laid = policies.phases(call, 100, outline)
    paths = list(trees.flatten(model.shapes()['params']))
    return policies.decide(laid[CALLS[call]], paths)


@pytest.mark.parametrize(('name', 'call'), CASES)
def test_the_freezing_contract(name, call):
    model, variables, batch = made(name)
    decisions = decisions_of(model, call)
    trained = {path: value is not None for path, value in decisions.items()}
    trainable, frozen = trees.partition(variables['params'], trained)
    loss_of = step_lib.loss_program(model, decisions, step_lib.task_objective(TASK))
    tx, optim = optimizer.direction(section(), decisions), section()
    step = step_lib.make_train_step(loss_of, tx, optimizer.schedule(optim, STEPS))
    fixed = {'frozen': frozen, 'reference': {}}
    state = state_lib.create(trainable, variables['batch_stats'], tx, 0.01, jax.random.key(0))

    check_gradients(loss_of, variables, trainable, fixed, batch, trained)
    check_optimizer_state(state, trainable)
    before = jax.tree.map(np.array, (variables, frozen))
    compiled = jax.jit(step).lower(state, fixed, batch).compile()
    for _ in range(STEPS):
        state, metrics = compiled(state, fixed, batch)
    assert np.isfinite(float(metrics['loss']))
    assert int(state.bad_step) == -1
    check_what_moved(state, fixed, before, decisions)
    if call == 'linear_probe':
        # Forward, the head's own gradient, and next to nothing else.
        assert compiled.cost_analysis()['flops'] < 1.25 * forward_flops(name) + 1e5


def check_gradients(loss_of, variables, trainable, fixed, batch, trained):
    """The gradient of the split program is that of the whole one."""
    key, stats = jax.random.key(3), variables['batch_stats']
    split = jax.jit(jax.grad(loss_of, has_aux=True))(trainable, fixed, stats, batch, key)[0]
    holes = {**fixed, 'frozen': jax.tree.map(lambda leaf: None, variables['params'])}
    unsplit = jax.jit(jax.grad(lambda params: loss_of(params, holes, stats, batch, key)[0]))
    whole = trees.flatten(unsplit(variables['params']))
    split = trees.flatten(split)
    assert split.keys() == {path for path, is_trained in trained.items() if is_trained}
    # By norms, since a value beside a ReLU's edge may fall to either side of it.
    everything = max(norm(leaf) for leaf in split.values())
    for path, leaf in split.items():
        off, length = norm(leaf - whole[path]), norm(whole[path])
        assert off <= 1e-3 * length + 1e-5 * everything, path


def check_optimizer_state(state, trainable):
    """Two moments and a count for each trained leaf, and none for the frozen ones."""
    leaves = jax.tree.leaves(trainable)
    assert trees.nbytes(state.opt_state) == 2 * trees.nbytes(trainable) + 4 * len(leaves)


def check_what_moved(state, fixed, before, decisions):
    """Frozen leaves and their statistics are equal bit for bit, and everything else moved."""
    variables, frozen = before
    jax.tree.map(np.testing.assert_array_equal, fixed['frozen'], frozen)
    old = trees.flatten(variables['params'])
    for path, leaf in trees.flatten(state.trainable).items():
        assert np.any(np.asarray(leaf) != old[path]), path
    still = step_lib.frozen_modules(decisions, variables['batch_stats'])
    new = trees.flatten(state.batch_stats)
    for path, leaf in trees.flatten(variables['batch_stats']).items():
        if path.rpartition('/')[0] in still:
            np.testing.assert_array_equal(new[path], leaf, err_msg=path)
        else:
            assert np.any(np.asarray(new[path]) != leaf), path
