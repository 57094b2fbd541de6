"""The train step and the evaluation step: pure functions, to be jitted or mapped by the caller."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from tljax import trees
from tljax.models import Model, batch_stats_of, merge
from tljax.tasks import Task
from tljax.train.state import TrainState, averaged

Batch = Mapping[str, jax.Array]
Prepare = Callable[[Batch], Batch]
# What a step reads and never writes: `frozen`, the other half of the parameters, and `reference`,
# what an objective needs beside the model.
Fixed = Mapping[str, Any]
Step = Callable[[TrainState, Any, Batch], tuple[TrainState, dict[str, jax.Array]]]
Objective = Callable[[Any, Batch, jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]]
LossOf = Callable[..., tuple[jax.Array, tuple[dict[str, jax.Array], trees.Tree]]]


def frozen_modules(decisions: Mapping[str, Any], batch_stats: trees.Tree) -> set[str]:
    """Paths of the modules that hold batch statistics and sit in a frozen subtree.

    A module is frozen if none of its parameters is trained; one without parameters of its own
    follows the nearest enclosing subtree that has some.

    >>> stats = {'backbone': {'norm': {'mean': 0, 'var': 0}}}
    >>> frozen_modules({'backbone/norm/scale': None, 'head/bias': {'lr': 1.0}}, stats)
    {'backbone/norm'}
    """
    modules = {path.rpartition('/')[0] for path in trees.flatten(batch_stats)}
    frozen = set()
    for module in modules:
        subtree = module
        inside: list[Any] = []
        while not inside:
            prefix = subtree + '/' if subtree else ''
            inside = [d for path, d in decisions.items() if path.startswith(prefix)]
            subtree = subtree.rpartition('/')[0]
        if all(decision is None for decision in inside):
            frozen.add(module)
    return frozen


def loss_program(
    model: Model,
    decisions: Mapping[str, Any],
    objective: Objective,
    prepare: Prepare = dict,
    augment: Callable[[Batch, jax.Array], Batch] = lambda batch, key: batch,
) -> LossOf:
    """The loss as a function of the trainable half.

    Args:
      model: what is trained.
      decisions: for each parameter path, None if it is frozen.
      objective: `objective(module, batch, key, reference) -> loss, aux`; a task's loss, say.
      prepare: from a batch as stored to what the model reads; runs on the device.
      augment: `augment(batch, key) -> batch`, in front of it, in training only.

    Returns:
      `loss_of(trainable, fixed, batch_stats, batch, key) -> loss, (aux, batch_stats)`.
    """
    batch_stats = model.shapes()['batch_stats']
    graph = model.graph(train=True, frozen=frozen_modules(decisions, batch_stats))

    def loss_of(trainable, fixed: Fixed, stats, batch, key):
        module = merge(graph, trees.combine(trainable, fixed['frozen']), stats)
        loss, aux = objective(module, prepare(augment(batch, key)), key, fixed['reference'])
        return loss, (aux, batch_stats_of(module))

    return loss_of


def task_objective(task: Task) -> Objective:
    """The task's own loss."""
    return lambda module, batch, key, reference: task.loss(module, batch, key)


def make_train_step(
    loss_of: LossOf,
    tx: optax.GradientTransformation,
    factor: optax.Schedule,
    *,
    accumulate: int = 1,
    first: int = 0,
    ema: float = 0.0,
) -> Step:
    """One update of the trainable half.

    Only the trainable leaves are differentiated, clipped, measured and optimised, so a frozen
    leaf costs a forward pass and nothing else.

    Args:
      loss_of: of `loss_program`, or what is left of it behind a frozen prefix.
      tx: gives the update's direction, from gradients of the trainable half.
      factor: factor on `state.lr`, by the number of steps since `first`.
      accumulate: number of micro-batches; the gradient is their mean.
      first: the step at which this phase begins.
      ema: decay of the moving averages, where the state keeps any.

    Returns:
      `step(state, fixed, batch) -> state, metrics`, metrics with `loss`, `grad_norm` (of the
      trainable leaves), `lr` and what the objective adds.
    """
    grad_of = jax.value_and_grad(loss_of, has_aux=True)

    def gradient(state: TrainState, fixed, batch):
        key = jax.random.fold_in(state.key, state.step)
        if accumulate == 1:
            (loss, (aux, stats)), grads = grad_of(
                state.trainable, fixed, state.batch_stats, batch, key
            )
            return loss, aux, stats, grads

        def add(carry, part):
            stats, index = carry
            micro_key = jax.random.fold_in(key, index)
            (loss, (aux, stats)), grads = grad_of(state.trainable, fixed, stats, part, micro_key)
            return (stats, index + 1), (loss, aux, grads)

        # Every device cuts its own examples into micro-batches, so none have to travel.
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(-1, accumulate, *leaf.shape[1:]).swapaxes(0, 1), batch
        )
        return _mean_over_parts(add, state.batch_stats, parts, accumulate)

    def step(state: TrainState, fixed: Any, batch: Batch):
        loss, aux, stats, grads = gradient(state, fixed, batch)
        grad_norm = optax.tree.norm(grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
        lr = state.lr * factor(state.step - first)
        trainable = jax.tree.map(
            lambda p, u: p - (lr * u).astype(p.dtype), state.trainable, updates
        )
        moves = jnp.isfinite(lr * optax.tree.norm(updates))
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & moves & (state.bad_step < 0)
        new = {'params': trainable, 'batch_stats': stats}
        moved = (trainable, stats, opt_state, averaged(state.ema, new, ema, state.step))
        stayed = (state.trainable, state.batch_stats, state.opt_state, state.ema)
        trainable, stats, opt_state, averages = jax.tree.map(
            lambda new, old: jnp.where(good, new, old), moved, stayed
        )
        state = dataclasses.replace(
            state,
            trainable=trainable,
            batch_stats=stats,
            opt_state=opt_state,
            step=state.step + 1,
            bad_step=jnp.where(good | (state.bad_step >= 0), state.bad_step, state.step),
            ema=averages,
        )
        return state, {'loss': loss, 'grad_norm': grad_norm, 'lr': lr, **aux}

    return step


def _mean_over_parts(add, batch_stats, parts, accumulate):
    """Runs the micro-batches one after another; on a CPU outside a loop, where XLA is faster."""
    unroll = accumulate if jax.default_backend() == 'cpu' else 1
    carry = (batch_stats, jnp.int32(0))
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    shapes = jax.eval_shape(add, carry, first)[1]
    total = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def body(carry, part):
        carry, total = carry
        carry, new = add(carry, part)
        return (carry, jax.tree.map(jnp.add, total, new)), None

    ((stats, _), total), _ = lax.scan(body, (carry, total), parts, unroll=unroll)
    loss, aux, grads = jax.tree.map(lambda leaf: leaf / accumulate, total)
    return loss, aux, stats, grads


def gather(data: Batch, indices: jax.Array | None) -> Batch:
    """The examples at `indices` of data held on the device; data itself if it is a batch already.

    Indices (B, 2) are those of examples and of their views, which go along as 'row' and 'view'.

    >>> gather({'label': jnp.arange(5) * 10}, jnp.array([3, 0]))['label'].tolist()
    [30, 0]
    """
    if indices is None:
        return data
    views = {}
    if indices.ndim == 2:
        views = {'row': indices[:, 0], 'view': indices[:, 1]}
        indices = indices[:, 0]
    return {**jax.tree.map(lambda leaf: leaf[indices], dict(data)), **views}


def make_eval_step(model: Model, task: Task, prepare: Prepare = dict):
    """`evaluate(params, batch_stats, batch) -> sums` of the task's metrics; batch has `weight`."""
    graph = model.graph(train=False)

    def evaluate(params: trees.Tree, batch_stats: trees.Tree, batch: Batch):
        return task.sums(merge(graph, params, batch_stats), prepare(batch))

    return evaluate


def make_predict_step(model: Model, task: Task, prepare: Prepare = dict):
    """`predict(params, batch_stats, batch) -> predictions`, one row an example."""
    graph = model.graph(train=False)

    def predict(params: trees.Tree, batch_stats: trees.Tree, batch: Batch):
        return task.predict(merge(graph, params, batch_stats), prepare(batch))

    return predict
