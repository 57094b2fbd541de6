"""Which part of a source a target's examples pull at most."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from tljax import mesh as mesh_lib
from tljax import trees
from tljax.models import merge
from tljax.train import experiment as experiment_lib
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment, Variables
from tljax.train.feed import Feed


def relative(experiment: Experiment) -> list[float]:
    """Each block's gradient norm over its parameters' norm, before the first update.

    Relative gradient norm (Lee et al. 2023, "Surgical fine-tuning", section 4), of the loss over
    the training subset of `config.seed`, in evaluation mode. Kernels of the head that start at zero
    would let no gradient through; for this measurement alone they are drawn at random.

    Returns:
      One number for each of the model's `outline().blocks`.
    """
    config, blocks = experiment.config, experiment.model.outline().blocks
    mesh = mesh_lib.data_mesh()
    init_key, train_key = experiment_lib.run_keys(config.seed)
    variables = jax.jit(experiment.init)(init_key, experiment.loaded)
    variables['params'] = with_open_head(variables['params'], train_key)
    variables = mesh_lib.put_replicated(mesh, variables)
    gradient = mean_gradient(experiment, variables, mesh, train_key)
    ratios = [ratio(gradient, variables['params'], block) for block in blocks]
    logging.info(
        'Relative gradient norms of the blocks, the lowest first: %s.',
        ', '.join(f'{value:.3g}' for value in ratios),
    )
    return ratios


def mean_gradient(
    experiment: Experiment, variables: Variables, mesh: jax.sharding.Mesh, key: jax.Array
) -> trees.Tree:
    """The gradient of the task's loss over an epoch, the last batch filled up from the next."""
    graph = experiment.model.graph(train=False)

    def loss(params: Any, stats: Any, data: Any, indices: Any) -> jax.Array:
        batch = experiment.prepare(step_lib.gather(data, indices))
        return experiment.task.loss(merge(graph, params, stats), batch, key)[0]

    @jax.jit
    def add(total: Any, params: Any, stats: Any, data: Any, indices: Any) -> Any:
        grads = jax.grad(loss)(params, stats, data, indices)
        return jax.tree.map(jnp.add, total, grads)

    subset, order = experiment.order(experiment.config.seed)
    count = -(-order.n // order.batch_size)
    total = jax.tree.map(jnp.zeros_like, variables['params'])
    feed = Feed(experiment.data.split('train'), mesh, subset)
    for data, indices in feed.batches(order, 0, count):
        total = add(total, variables['params'], variables['batch_stats'], data, indices)
    return jax.tree.map(lambda leaf: leaf / count, total)


def with_open_head(params: trees.Tree, key: jax.Array) -> trees.Tree:
    """The parameters, kernels of the head that are all zero drawn from a normal of 1 / fan-in."""

    def opened(path: str, leaf: jax.Array) -> jax.Array:
        if not path.startswith('head/') or leaf.ndim < 2 or np.any(np.asarray(leaf)):
            return leaf
        deviation = (leaf.size // leaf.shape[-1]) ** -0.5
        return deviation * jax.random.normal(key, leaf.shape, leaf.dtype)

    return trees.map_with_path(opened, params)


def ratio(gradient: trees.Tree, params: trees.Tree, patterns: Any) -> float:
    """The norm of the gradient of the leaves matched, divided by the norm of these leaves."""
    flat = trees.flatten(params)
    regexes = [trees.compile_rule(pattern, 'stages') for pattern in patterns]
    paths = [path for path in flat if any(regex.fullmatch(path) for regex in regexes)]
    norms = [
        float(jnp.sqrt(sum(jnp.sum(jnp.square(leaves[path])) for path in paths)))
        for leaves in (trees.flatten(gradient), flat)
    ]
    return norms[0] / norms[1] if norms[1] else 0.0
