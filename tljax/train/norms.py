"""Batch statistics of a target's own examples in the place of the source's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tljax import trees
from tljax.data import Order
from tljax.models import batch_stats_of, merge
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment, Variables
from tljax.train.feed import Feed

Estimate = Callable[..., trees.Tree]


def wanted(experiment: Experiment) -> bool:
    """Whether a run begins with statistics of its own examples: never from scratch."""
    return bool(experiment.config.transfer.adapt_norm and experiment.loaded)


def compiled_estimate(experiment: Experiment) -> Estimate:
    """`estimate(params, batch_stats, data, indices) -> batch_stats` of one batch, jitted.

    Every normalisation takes its mean and variance from the batch, as in training; dropout is off,
    as in evaluation, which the statistics are for.
    """
    graph = experiment.model.estimating_graph()

    def estimate(params: Any, stats: Any, data: Any, indices: Any) -> trees.Tree:
        module = merge(graph, params, stats)
        module(experiment.prepare(step_lib.gather(data, indices)))
        return batch_stats_of(module)

    return jax.jit(estimate)


def adapted(estimate: Estimate, variables: Variables, feed: Feed, order: Order) -> Variables:
    """The variables, their batch statistics estimated anew.

    Adaptive batch normalisation (Li et al. 2017, "Revisiting batch normalization for practical
    domain adaptation", algorithm 1), as the mean of the batches' means and variances over one
    epoch; the last batch is filled up from the next.

    Args:
      estimate: of `compiled_estimate`.
      feed: of the training subset.
      order: in which its examples come.
    """
    params, stats = variables['params'], variables['batch_stats']
    batches = feed.batches(order, 0, -(-order.n // order.batch_size))
    total, count = None, 0
    for data, indices in batches:
        new = estimate(params, stats, data, indices)
        total = new if total is None else jax.tree.map(jnp.add, total, new)
        count += 1
    return {**variables, 'batch_stats': jax.tree.map(lambda leaf: leaf / count, total)}
