"""Every parameter-efficient method keeps the freezing contract, on every kind of architecture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import peft_models
import pytest
import small_models

from tljax import config as config_lib
from tljax import trees
from tljax.tasks.classification import Classification
from tljax.train import optimizer
from tljax.train import state as state_lib
from tljax.train import step as step_lib
from tljax.transfer import policies

TASK = Classification(('a', 'b', 'c'))
BATCH = 8
QUICK = {('convnet', 'lora')}
SEQUENCES = ('lora', 'dora', 'adapter(size=4)', 'ia3', 'prefix(length=3)', 'prompt(length=3)')
PLACES = {
    'vit': SEQUENCES,
    'bert': SEQUENCES,
    'gpt2': SEQUENCES,
    'wav2vec2': SEQUENCES,
    'convnet': ('lora', 'dora', 'ia3'),
    'cifar_resnet': ('lora', 'dora', 'ia3'),
    'resnet': ('lora',),
    'bit': ('lora',),
    'alexnet': ('lora',),
    'squeezenet': ('dora',),
    'efficientnet_lite': ('ia3',),
}
CASES = small_models.sampled(
    [(name, method) for name, methods in PLACES.items() for method in methods], QUICK, every=14
)


@functools.lru_cache(maxsize=2)
def made(name, method):
    model = peft_models.build(name, method)
    batch = small_models.batch_of(name, BATCH)
    return model, small_models.scattered(model), {k: jnp.asarray(v) for k, v in batch.items()}


def decisions_of(model, policy):
    (phase,) = policies.phases(policy, 10, model.outline())
    return policies.decide(phase, list(trees.flatten(model.shapes()['params'])))


def started(model, variables, decisions):
    """A step, and what it takes."""
    optim = config_lib.default().optim
    optim.update(weight_decay=0.1, clip=1.0, schedule='constant')
    trained = {path: value is not None for path, value in decisions.items()}
    trainable, frozen = trees.partition(variables['params'], trained)
    loss_of = step_lib.loss_program(model, decisions, step_lib.task_objective(TASK))
    tx = optimizer.direction(optim, decisions)
    step = step_lib.make_train_step(loss_of, tx, optimizer.schedule(optim, 2))
    stats, fixed = variables['batch_stats'], {'frozen': frozen, 'reference': {}}
    state = state_lib.create(trainable, stats, tx, 0.01, jax.random.key(0))
    return loss_of, step, state, fixed


@pytest.mark.parametrize(('name', 'method'), CASES)
def test_the_freezing_contract(name, method):
    model, variables, batch = made(name, method)
    decisions, injected = decisions_of(model, method), set(model.outline().injected)
    chosen = {path for path, value in decisions.items() if value is not None}
    assert chosen == injected | set(model.outline().head)
    loss_of, step, state, fixed = started(model, variables, decisions)
    assert set(trees.flatten(state.trainable)) == chosen
    check_gradients(loss_of, variables, state.trainable, fixed, batch)

    leaves = len(jax.tree.leaves(state.trainable))
    assert trees.nbytes(state.opt_state) == 2 * trees.nbytes(state.trainable) + 4 * leaves
    before = jax.tree.map(np.array, (variables, fixed['frozen']))
    run = jax.jit(step)
    for _ in range(2):
        state, metrics = run(state, fixed, batch)
    assert np.isfinite(float(metrics['loss']))
    assert int(state.bad_step) == -1
    jax.tree.map(np.testing.assert_array_equal, fixed['frozen'], before[1])
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, before[0]['batch_stats'])
    old = trees.flatten(before[0]['params'])
    for path, leaf in trees.flatten(state.trainable).items():
        assert np.any(np.asarray(leaf) != old[path]), path


def check_gradients(loss_of, variables, trainable, fixed, batch):
    """The gradient of the split program is that of the whole one."""
    key, stats = jax.random.key(3), variables['batch_stats']
    split = jax.jit(jax.grad(loss_of, has_aux=True))(trainable, fixed, stats, batch, key)[0]
    holes = {**fixed, 'frozen': jax.tree.map(lambda leaf: None, variables['params'])}
    unsplit = jax.jit(jax.grad(lambda params: loss_of(params, holes, stats, batch, key)[0]))
    whole, split = trees.flatten(unsplit(variables['params'])), trees.flatten(split)
    everything = max(float(jnp.linalg.norm(leaf)) for leaf in whole.values())
    for path, leaf in split.items():
        off = float(jnp.linalg.norm((leaf - whole[path]).reshape(-1)))
        assert off <= 1e-3 * float(jnp.linalg.norm(whole[path].reshape(-1))) + 1e-5 * everything


def flops(name, method, policy):
    model, variables, batch = made(name, method)
    _, step, state, fixed = started(model, variables, decisions_of(model, policy))
    return jax.jit(step).lower(state, fixed, batch).compile().cost_analysis()['flops']


@pytest.mark.slow
def test_no_gradient_of_a_frozen_kernel_is_computed():
    """Of forward, backward to activations and backward to kernels, the last falls away."""
    small = flops('vit', 'lora(rank=1)', 'injected')
    whole = flops('vit', 'lora(rank=1)', 'full')
    assert small < 0.75 * whole


def test_norms_are_trained_beside_adapters_if_wanted():
    model = peft_models.build('vit', 'adapter(size=4, norms=True)')
    outline = model.outline()
    decisions = decisions_of(model, 'adapter(size=4, norms=True)')
    chosen = {path for path, value in decisions.items() if value is not None}
    assert chosen == {*outline.injected, *outline.head, *outline.norms}


@pytest.mark.parametrize('policy', ['full', 'layerwise_decay(decay=0.5)', 'bitfit', 'linear_probe'])
def test_policies_that_inject_nothing_train_what_rules_inject(policy):
    model = peft_models.build('vit', 'lora', '.*/mlp/up')
    decisions = decisions_of(model, policy)
    rates = {path: decisions[path] for path in model.outline().injected}
    assert len(rates) == 6
    assert None not in rates.values()
    if policy.startswith('layerwise'):
        assert rates['backbone/block0/mlp/up/lora_a'] == decisions['backbone/block0/mlp/up/kernel']
