"""The train step: what is trained moves as it should, what is frozen costs nothing and stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tljax import config as config_lib
from tljax import trees
from tljax.models import Model, merge
from tljax.tasks.classification import Classification
from tljax.train import optimizer
from tljax.train import state as state_lib
from tljax.train import step as step_lib
from tljax.transfer import policies

WIDTH, DEPTH, BATCH = 256, 4, 32


class Deep(nnx.Module):
    """Many wide layers and a small head, so that costs can be told apart by counting."""

    def __init__(self, rngs, norm=False, dropout=0.0):
        self.backbone = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(DEPTH)])
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.5, rngs=rngs) if norm else None
        self.head = nnx.Linear(WIDTH, 2, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, batch, rngs=None):
        x = batch['x']
        for layer in self.backbone:
            x = nnx.relu(layer(x))
        if self.norm:
            x = self.norm(x)
        return self.head(self.dropout(x, rngs=rngs))


TASK = Classification(('a', 'b'))
HEAD_ONLY = [('head/.*', {}), ('.*', None)]


def optim(**changes):
    section = config_lib.default().optim
    section.update(schedule='constant', **changes)
    return section


def batch_of(seed=0, size=BATCH):
    rng = np.random.default_rng(seed)
    return {
        'x': rng.normal(size=(size, WIDTH)).astype(np.float32),
        'label': rng.integers(0, 2, size).astype(np.int32),
    }


def setup(rules, model=None, accumulate=1, section=None, lr=0.01):
    model = model or Model(Deep)
    section = section or optim()
    variables = model.init(jax.random.key(0))
    decisions = policies.decide(policies.Phase(0, 10, rules), trees.flatten(variables['params']))
    tx = optimizer.direction(section, decisions)
    loss_of = step_lib.loss_program(model, decisions, step_lib.task_objective(TASK))
    schedule = optimizer.schedule(section, 10)
    update = step_lib.make_train_step(loss_of, tx, schedule, accumulate=accumulate)

    def step(state, frozen, batch):
        return update(state, {'frozen': frozen, 'reference': {}}, batch)

    trained = {path: value is not None for path, value in decisions.items()}
    trainable, frozen = trees.partition(variables['params'], trained)
    state = state_lib.create(trainable, variables['batch_stats'], tx, lr, jax.random.key(1))
    return step, state, frozen, decisions


def flops(step, *args):
    return jax.jit(step).lower(*args).compile().cost_analysis()['flops']


FORWARD = 2 * BATCH * WIDTH * WIDTH * DEPTH


@pytest.mark.parametrize(
    ('accumulate', 'clip'), [(1, 0.0), (1, 1.0), (4, 1.0)], ids=['plain', 'clipped', 'accumulated']
)
def test_frozen_backbone_costs_no_backward_pass_and_no_optimizer_bytes(accumulate, clip):
    step, state, frozen, _ = setup(HEAD_ONLY, accumulate=accumulate, section=optim(clip=clip))
    measured = flops(step, state, frozen, batch_of())
    # One pass forward through the backbone and little else; a backward pass would add twice that.
    assert FORWARD <= measured < 1.2 * FORWARD
    full_step, full_state, nothing, _ = setup([('.*', {})], accumulate=accumulate)
    assert flops(full_step, full_state, nothing, batch_of()) > 2.5 * FORWARD
    head = (WIDTH * 2 + 2) * 4
    assert trees.nbytes(state.trainable) == head
    assert trees.nbytes(state.opt_state) == 2 * head + 2 * 4  # two moments; a count a leaf
    compiled = jax.jit(step, donate_argnums=0).lower(state, frozen, batch_of()).compile()
    # What a step writes anew: temporaries of activations, never a copy of the backbone.
    backbone = trees.nbytes(frozen)
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * backbone


def test_memory_of_a_frozen_run_is_that_of_forward_and_of_what_is_trained():
    size, model = 512, Model(Deep)  # activations of a layer are larger than its kernel
    step, state, frozen, _ = setup(HEAD_ONLY)
    batch = batch_of(size=size)
    compiled = jax.jit(step, donate_argnums=0).lower(state, frozen, batch).compile()
    params = trees.combine(state.trainable, frozen)
    graph = model.graph(train=False)
    forward = jax.jit(lambda p, b: merge(graph, p, {})(b)).lower(params, batch).compile()
    bound = forward.memory_analysis().temp_size_in_bytes
    bound += size * WIDTH * 4  # the features, which the head's gradient reads
    bound += 8 * trees.nbytes(state.trainable) + size * 64
    assert compiled.memory_analysis().temp_size_in_bytes <= bound
    everything, whole, nothing, _ = setup([('.*', {})])
    full = jax.jit(everything, donate_argnums=0).lower(whole, nothing, batch).compile()
    assert full.memory_analysis().temp_size_in_bytes > 1.5 * bound


def test_frozen_leaves_are_equal_bit_for_bit_and_the_rest_moves():
    step, state, frozen, _ = setup(HEAD_ONLY, section=optim(clip=1.0, weight_decay=0.1))
    before = jax.tree.map(np.array, (state.trainable, frozen))
    step = jax.jit(step)
    for seed in range(3):
        state, metrics = step(state, frozen, batch_of(seed))
    assert all(
        np.any(np.array(a) != b)
        for a, b in zip(jax.tree.leaves(state.trainable), jax.tree.leaves(before[0]), strict=True)
    )
    jax.tree.map(np.testing.assert_array_equal, frozen, before[1])
    assert int(state.step) == 3
    assert float(metrics['lr']) == pytest.approx(0.01)


def test_grad_norm_is_that_of_the_trainable_leaves():
    step, state, frozen, _ = setup(HEAD_ONLY)
    _, metrics = jax.jit(step)(state, frozen, batch_of())

    def loss(params):
        graph = Model(Deep).graph(train=True)
        module = nnx.merge(
            graph,
            {**params, 'backbone': {int(k): v for k, v in params['backbone'].items()}},
            copy=True,
        )
        return TASK.loss(module, batch_of(), jax.random.key(0))[0]

    grads = jax.grad(loss)(trees.combine(state.trainable, frozen))
    assert float(metrics['grad_norm']) == pytest.approx(
        float(optax.tree.norm(grads['head'])), rel=1e-5
    )


def test_accumulated_gradient_is_that_of_the_whole_batch():
    ends = []
    for accumulate in (1, 4):
        step, state, frozen, _ = setup(
            [('.*', {})], accumulate=accumulate, section=optim(name='sgd')
        )
        state, metrics = jax.jit(step)(state, frozen, batch_of())
        ends.append((state.trainable, metrics['loss'], metrics['grad_norm']))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *ends)


def test_split_step_and_whole_tree_transformation_end_in_the_same_parameters():
    rules = [
        ('backbone/[01]/.*', None),
        ('backbone/.*', dict(lr=0.1)),
        ('head/kernel', dict(lr=2.0, wd=3.0)),
        ('head/.*', {}),
    ]
    section = optim(clip=0.5, weight_decay=0.1, warmup_steps=3)
    section.schedule = 'cosine'
    step, state, frozen, decisions = setup(rules, section=section)
    params = trees.combine(state.trainable, frozen)
    section.lr = 0.01
    tx = optimizer.whole_tree(section, decisions, 10)
    opt_state = tx.init(params)
    graph = Model(Deep).graph(train=True)

    def loss(params, batch):
        return TASK.loss(merge(graph, params, {}), batch, jax.random.key(0))[0]

    step = jax.jit(step)
    for seed in range(5):
        state, _ = step(state, frozen, batch_of(seed))
        updates, opt_state = tx.update(jax.grad(loss)(params, batch_of(seed)), opt_state, params)
        params = optax.apply_updates(params, updates)
    ours = trees.combine(state.trainable, frozen)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), ours, params)
    start = setup(rules)[1].trainable
    assert (
        np.abs(np.array(ours['backbone']['2']['kernel'] - start['backbone']['2']['kernel'])).max()
        > 1e-4
    )


@pytest.mark.parametrize('frozen_norm', [True, False])
def test_batch_statistics_move_only_outside_frozen_subtrees(frozen_norm):
    model = Model(lambda rngs: Deep(rngs, norm=True))
    rules = HEAD_ONLY if frozen_norm else [('backbone/.*', None), ('.*', {})]
    step, state, frozen, _ = setup(rules, model)
    before = np.array(state.batch_stats['norm']['mean'])
    after = jax.jit(step)(state, frozen, batch_of())[0].batch_stats['norm']['mean']
    assert np.array_equal(after, before) == frozen_norm


def test_frozen_batch_norm_normalises_with_its_running_statistics():
    model = Model(lambda rngs: Deep(rngs, norm=True))
    step, state, frozen, _ = setup(HEAD_ONLY, model)
    moved = jax.tree.map(lambda leaf: leaf + 1.0, state.batch_stats)
    import dataclasses

    loss = jax.jit(step)(state, frozen, batch_of())[1]['loss']
    other = jax.jit(step)(dataclasses.replace(state, batch_stats=moved), frozen, batch_of())[1]
    assert abs(float(loss - other['loss'])) > 1e-4


def test_dropout_differs_by_step_and_repeats_by_seed():
    model = Model(lambda rngs: Deep(rngs, dropout=0.5))
    step, state, frozen, _ = setup(HEAD_ONLY, model, lr=0.0)
    step = jax.jit(step)
    second, first_metrics = step(state, frozen, batch_of())
    _, second_metrics = step(second, frozen, batch_of())
    _, again = step(state, frozen, batch_of())
    assert float(first_metrics['loss']) != float(second_metrics['loss'])
    assert float(first_metrics['loss']) == float(again['loss'])


def test_non_finite_loss_is_remembered_and_nothing_moves():
    step, state, frozen, _ = setup(HEAD_ONLY)
    step = jax.jit(step)
    state, _ = step(state, frozen, batch_of())
    good = jax.tree.map(np.array, state.trainable)
    bad = batch_of()
    bad['x'][0, 0] = np.nan
    for batch in (bad, batch_of(1), bad):
        state, _ = step(state, frozen, batch)
    assert int(state.bad_step) == 1
    assert int(state.step) == 4
    jax.tree.map(np.testing.assert_array_equal, state.trainable, good)


def test_optimizer_state_is_kept_where_a_leaf_stays_trainable():
    _, state, frozen, _ = setup(HEAD_ONLY)
    step, *_ = setup(HEAD_ONLY)
    state, _ = jax.jit(step)(state, frozen, batch_of())
    _, wider, _, _ = setup([('.*', {})])
    carried = state_lib.carry_over(state.opt_state, wider.opt_state)
    (adam,) = [part for part in carried if hasattr(part, 'mu')]
    (old,) = [part for part in state.opt_state if hasattr(part, 'mu')]
    np.testing.assert_array_equal(adam.mu['head']['kernel'], old.mu['head']['kernel'])
    assert float(jnp.abs(adam.mu['head']['kernel']).max()) > 0
    assert float(jnp.abs(adam.mu['backbone']['0']['kernel']).max()) == 0
    assert int(adam.count['head']['kernel']) == 1
    assert int(adam.count['backbone']['0']['kernel']) == 0


def test_adam_is_optax_adam_and_a_fresh_leaf_starts_fresh():
    ours, theirs = optimizer.scale_by_adam(), optax.scale_by_adam()
    params = {'a': jnp.ones(3), 'b': jnp.ones(2)}
    mine, other = ours.init(params), theirs.init(params)
    rng = np.random.default_rng(0)
    for _ in range(5):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
        one, mine = ours.update(grads, mine)
        two, other = theirs.update(grads, other)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, two)
    wider = ours.init({**params, 'c': jnp.ones(1)})
    carried = state_lib.carry_over(mine, wider)
    updates, _ = ours.update({**grads, 'c': jnp.full(1, 7.0)}, carried)
    assert float(updates['c'][0]) == pytest.approx(1.0, rel=1e-5)  # as at a first step


def test_an_update_that_overflows_is_not_made():
    step, state, frozen, _ = setup(HEAD_ONLY, section=optim(name='sgd', momentum=0.0), lr=jnp.inf)
    after, _ = jax.jit(step)(state, frozen, batch_of())
    assert int(after.bad_step) == 0
    jax.tree.map(np.testing.assert_array_equal, after.trainable, state.trainable)
