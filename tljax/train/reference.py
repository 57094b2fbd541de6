"""What a run's regularisers need beside the model, part of it found out before the first update."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tljax import mesh as mesh_lib
from tljax.data import eval_batches
from tljax.models import merge
from tljax.train.step import gather
from tljax.transfer.regularizers.base import Pass, Regularizer
from tljax.transfer.regularizers.distillation import relation_of
from tljax.transfer.regularizers.objective import Record, Setting, source_pass

MEASURED = ('relation', 'attention')
MISSING = -30.0  # the logit of a class that has no example


def looks_at_data(setting: Setting) -> bool:
    """Whether a run's reference depends on its training examples."""
    return any(setting.needs(what) for what in MEASURED)


def of_run(experiment: Any, feed: Any) -> dict[str, Any]:
    """What an experiment's objective needs beside the model, on its devices.

    Args:
      experiment: with `setting`, `reference`, `prepare` and `task`.
      feed: of the run's training subset.

    Returns:
      `experiment.reference`, with `relation` (C, S) and `attention`, one (channels,) for each
      stage, where they are needed.
    """
    setting, mesh = experiment.setting, feed.mesh
    given = mesh_lib.put_replicated(mesh, experiment.reference)
    found = dict(given)
    for regularizer in setting.regularizers:
        if 'relation' in regularizer.needs:
            found['relation'] = relation(experiment, feed, given, regularizer)
        if 'attention' in regularizer.needs:
            found['attention'] = attention(experiment, feed, given, regularizer)
    return mesh_lib.put_replicated(mesh, found)


def relation(
    experiment: Any, feed: Any, given: Mapping[str, Any], regularizer: Regularizer
) -> jax.Array:
    """Of each class, the mean of what the source says of its examples: (C, S)."""
    temperature = regularizer.options['temperature']

    def sums(given: Any, batch: Any, weight_B: jax.Array) -> jax.Array:
        logits_BxS = source_pass(experiment.setting, given, batch).logits
        targets_BxC = experiment.task.targets(batch) * weight_B[:, None]
        return targets_BxC.T @ jax.nn.softmax(logits_BxS / temperature)

    return relation_of(total(sums, given, experiment, feed, feed.subset))


def attention(
    experiment: Any, feed: Any, given: Mapping[str, Any], regularizer: Regularizer
) -> tuple[jax.Array, ...]:
    """Of each stage, the softmax over channels of the rise of the loss without each.

    The loss is that of a logistic regression (scikit-learn, its default penalty) on the source's
    features, standardised.
    """
    setting, count = experiment.setting, len(feed.subset)
    chosen = np.linspace(0, count - 1, min(count, regularizer.options['examples'])).round()
    subset = feed.subset[chosen.astype(int)]
    head = probe(experiment, feed, given, subset)

    def loss(masks: Any, given: Any, batch: Any, weight_B: jax.Array) -> jax.Array:
        features_BxD = masked_pass(setting, given, batch, masks).features
        logits_BxC = features_BxD @ head['kernel'] + head['bias'][None, :]
        log_BxC = jax.nn.log_softmax(logits_BxC)
        return -(experiment.task.targets(batch) * log_BxC).sum(-1) @ weight_B

    def rises(given: Any, batch: Any, weight_B: jax.Array) -> tuple[jax.Array, ...]:
        maps = jax.eval_shape(lambda: source_pass(setting, given, batch).maps)
        whole = tuple(jnp.ones(m.shape[-1]) for m in maps)
        if regularizer.options['attention'] == 'gradient':
            # Of the loss by a factor on each channel, from 1 to 0.
            return jax.tree.map(jnp.negative, jax.grad(loss)(whole, given, batch, weight_B))
        base = loss(whole, given, batch, weight_B)

        def rise(index: int, mask_C: jax.Array) -> jax.Array:
            masks = (*whole[:index], mask_C, *whole[index + 1 :])
            return loss(masks, given, batch, weight_B) - base

        return tuple(
            lax.map(lambda mask_C, index=index: rise(index, mask_C), 1 - jnp.eye(len(ones)))
            for index, ones in enumerate(whole)
        )

    sums = total(rises, given, experiment, feed, subset)
    return tuple(jax.nn.softmax(rise / len(subset)) for rise in sums)


def masked_pass(setting: Setting, given: Any, batch: Any, masks: Any) -> Pass:
    """The source's pass with each stage's channels multiplied; gradients go to the masks."""
    variables = given['variables']
    module = merge(setting.graph, variables['params'], variables['batch_stats'])
    record = Record(setting.outlets)
    pairs = zip(setting.outlets, masks, strict=True)
    with record.around(module, {path: [_scaled(mask)] for path, mask in pairs}):
        module(batch)
    return record.result()


def _scaled(mask_C: jax.Array) -> Callable[..., jax.Array]:
    def hook(call: Any, *args: Any, **kwargs: Any) -> jax.Array:
        result = call(*args, **kwargs)
        mask = mask_C.reshape((1,) * (result.ndim - 1) + mask_C.shape)
        return result * mask.astype(result.dtype)

    return hook


def probe(
    experiment: Any, feed: Any, given: Mapping[str, Any], subset: np.ndarray
) -> dict[str, jax.Array]:
    """The kernel (D, C) and bias of a logistic regression on the source's features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, classes = [], experiment.task.outputs

    def compute(given: Any, data: Any, indices: Any) -> Any:
        batch = experiment.prepare(gather(data, indices))
        return source_pass(experiment.setting, given, batch).features, batch['label']

    everywhere = jax.jit(compute, out_shardings=mesh_lib.replicated(feed.mesh))
    for data, indices, weight in parts(experiment, feed, subset):
        rows, labels = map(np.asarray, everywhere(given, data, indices))
        features.append((rows[weight > 0], labels[weight > 0]))
    x, y = (np.concatenate(column).astype(np.float64) for column in zip(*features, strict=True))
    kernel, bias = np.zeros((x.shape[1], classes)), np.full(classes, MISSING)
    scaler = StandardScaler().fit(x)
    if len(set(y)) > 1:
        fit = LogisticRegression(max_iter=1000).fit(scaler.transform(x), y)
        coefficients, intercept = fit.coef_, fit.intercept_
        if len(coefficients) == 1:  # of two classes it gives the difference
            coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
            intercept = np.concatenate([-intercept / 2, intercept / 2])
        scaled = coefficients / scaler.scale_
        present = fit.classes_.astype(int)
        kernel[:, present], bias[present] = scaled.T, intercept - scaled @ scaler.mean_
    return {'kernel': jnp.float32(kernel), 'bias': jnp.float32(bias)}


def total(
    function: Callable[..., Any], given: Any, experiment: Any, feed: Any, subset: np.ndarray
) -> Any:
    """The sum of `function(given, batch, weight)` over some examples."""

    @jax.jit
    def part(given: Any, data: Any, indices: Any, weight: Any) -> Any:
        return function(given, experiment.prepare(gather(data, indices)), weight)

    found = None
    for data, indices, weight in parts(experiment, feed, subset):
        new = part(given, data, indices, weight)
        found = new if found is None else jax.tree.map(jnp.add, found, new)
    return found


def parts(experiment: Any, feed: Any, subset: np.ndarray) -> Iterator[tuple[Any, Any, np.ndarray]]:
    """Batches that run once over some examples, with weights: 0 where a row is padding."""
    for positions, weight in eval_batches(len(subset), experiment.config.train.batch_size):
        yield *feed.at(subset[positions]), weight
