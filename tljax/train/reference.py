"""What a run's regularisers need beside the model, part of it found out before the first update."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tljax import mesh as mesh_lib
from tljax.data import eval_batches
from tljax.models import merge, real_positions
from tljax.train.step import gather
from tljax.transfer.regularizers.base import Pass
from tljax.transfer.regularizers.distillation import relation_of
from tljax.transfer.regularizers.objective import Record, Setting, source_pass

MEASURED = ('relation', 'attention')
MISSING = -30.0  # the logit of a class that has no example


def looks_at_data(setting: Setting) -> bool:
    """Whether a run's reference depends on its training examples."""
    return any(setting.needs(what) for what in MEASURED)


class RunReference:
    """What an experiment's objective needs beside the model, on its devices.

    Args:
      experiment: with `setting`, `reference`, `prepare` and `task`.
    """

    def __init__(self, experiment: Any):
        self.experiment, self.setting = experiment, experiment.setting
        self._last: tuple[bytes, dict[str, Any]] | None = None

    def __call__(self, feed: Any) -> dict[str, Any]:
        """For one run.

        Args:
          feed: of the run's training subset.

        Returns:
          `experiment.reference`, with `relation` (C, S) and `attention`, one (channels,) for each
          stage, where they are needed.
        """
        run = feed.subset.tobytes() if looks_at_data(self.setting) else b''
        if self._last is None or self._last[0] != run:
            self._last = run, self._found(feed)
        return self._last[1]

    def _found(self, feed: Any) -> dict[str, Any]:
        found = dict(mesh_lib.put_replicated(feed.mesh, self.experiment.reference))
        if self.setting.needs('relation'):
            sums = self.total(self._relation, found, feed, feed.subset)
            found['relation'] = relation_of(sums)
        if self.setting.needs('attention'):
            found['attention'] = self.attention(found, feed)
        return mesh_lib.put_replicated(feed.mesh, found)

    @functools.cached_property
    def _relation(self) -> Any:
        """Of each class, the sum of what the source says of its examples: (C, S)."""
        temperature = self._option('relation', 'temperature')

        def sums(given: Any, batch: Any, weight_B: jax.Array) -> jax.Array:
            logits_BxS = source_pass(self.setting, given, batch).logits
            targets_BxC = self.experiment.task.targets(batch) * weight_B[:, None]
            return targets_BxC.T @ jax.nn.softmax(logits_BxS / temperature)

        return self._compiled(sums)

    def attention(self, given: Mapping[str, Any], feed: Any) -> tuple[jax.Array, ...]:
        """Of each stage, the softmax over channels of the rise of the loss without each.

        The loss is that of a logistic regression (scikit-learn, its default penalty) on the
        source's features, standardised.
        """
        count = len(feed.subset)
        chosen = np.linspace(0, count - 1, min(count, self._option('attention', 'examples')))
        subset = feed.subset[chosen.round().astype(int)]
        head = mesh_lib.put_replicated(feed.mesh, self.probe(given, feed, subset))
        sums = self.total(self._rises, {**given, 'probe': head}, feed, subset)
        return tuple(jax.nn.softmax(rise / len(subset)) for rise in sums)

    @functools.cached_property
    def _rises(self) -> Any:
        """By how much the sum of the losses rises without each channel."""
        exact = self._option('attention', 'attention') == 'ablation'

        def rises(given: Any, batch: Any, weight_B: jax.Array) -> tuple[jax.Array, ...]:
            def logits_of(masks: Any) -> jax.Array:
                features_BxD = masked_pass(self.setting, given, batch, masks).features
                return features_BxD @ given['probe']['kernel'] + given['probe']['bias'][None, :]

            maps = jax.eval_shape(lambda: source_pass(self.setting, given, batch).maps)
            whole = tuple(jnp.ones((m.shape[0], m.shape[-1])) for m in maps)
            if not exact:
                return fisher(logits_of, whole, weight_B)
            return ablation(logits_of, whole, self.experiment.task.targets(batch), weight_B)

        return self._compiled(rises)

    def probe(
        self, given: Mapping[str, Any], feed: Any, subset: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The kernel (D, C) and bias (C,) of a logistic regression on the source's features."""

        def compute(given: Any, data: Any, indices: Any) -> Any:
            batch = self.experiment.prepare(gather(data, indices))
            return source_pass(self.setting, given, batch).features, batch['label']

        compiled = jax.jit(compute, out_shardings=mesh_lib.replicated(feed.mesh))
        pairs = []
        for data, indices, weight in self.parts(feed, subset):
            rows, labels = map(np.asarray, compiled(given, data, indices))
            pairs.append((rows[weight > 0], labels[weight > 0]))
        rows, labels = (np.concatenate(column) for column in zip(*pairs, strict=True))
        return logistic(rows.astype(np.float64), labels, self.experiment.task.outputs)

    def total(self, compiled: Any, given: Any, feed: Any, subset: np.ndarray) -> Any:
        """The sum of `function(given, batch, weight)` over some examples."""
        found = None
        for data, indices, weight in self.parts(feed, subset):
            new = compiled(given, data, indices, weight)
            found = new if found is None else jax.tree.map(jnp.add, found, new)
        return found

    def parts(self, feed: Any, subset: np.ndarray) -> Iterator[tuple[Any, Any, np.ndarray]]:
        """Batches that run once over some examples, with weights: 0 where a row is padding."""
        size = self.experiment.config.train.batch_size
        for positions, weight in eval_batches(len(subset), size):
            yield *feed.at(subset[positions]), weight

    def _compiled(self, function: Callable[..., Any]) -> Any:
        def run(given: Any, data: Any, indices: Any, weight: Any) -> Any:
            return function(given, self.experiment.prepare(gather(data, indices)), weight)

        return jax.jit(run)

    def _option(self, need: str, name: str) -> Any:
        """An argument of the regulariser that has this need."""
        return next(r.options[name] for r in self.setting.regularizers if need in r.needs)


def masked_pass(setting: Setting, given: Any, batch: Any, masks: Any) -> Pass:
    """The source's pass with each stage's channels multiplied, by one (B, C) a stage."""
    variables = given['variables']
    module = merge(setting.graph, variables['params'], variables['batch_stats'])
    record = Record(setting.outlets)
    pairs = zip(setting.outlets, masks, strict=True)
    with record.around(module, {path: [_scaled(mask)] for path, mask in pairs}):
        module(batch)
    return record.result(real_positions(module, batch))


def _scaled(mask_BxC: jax.Array) -> Callable[..., jax.Array]:
    def hook(call: Any, *args: Any, **kwargs: Any) -> jax.Array:
        result = call(*args, **kwargs)
        rows, channels = mask_BxC.shape
        mask = mask_BxC.reshape(rows, *(1,) * (result.ndim - 2), channels)
        return result * mask.astype(result.dtype)

    return hook


def ablation(
    logits_of: Callable[..., jax.Array], whole: Any, targets_BxC: jax.Array, weight_B: jax.Array
) -> tuple[jax.Array, ...]:
    """By how much the sum of the losses rises as each channel is left out, one after another.

    Args:
      logits_of: `logits_of(masks) -> (B, C)`.
      whole: the masks that leave nothing out, (B, channels) each.
      targets_BxC: each example's share of each class.
      weight_B: of each example.
    """

    def loss(masks: Any) -> jax.Array:
        return -(targets_BxC * jax.nn.log_softmax(logits_of(masks))).sum(-1)

    base = loss(whole)

    def rise(index: int, mask_C: jax.Array) -> jax.Array:
        mask_BxC = jnp.broadcast_to(mask_C[None, :], whole[index].shape)
        return loss((*whole[:index], mask_BxC, *whole[index + 1 :])) - base

    # Summed over examples only here: devices that must wait for one another in a loop may do so
    # for ever.
    return tuple(
        lax.map(functools.partial(rise, index), 1 - jnp.eye(ones.shape[-1])) @ weight_B
        for index, ones in enumerate(whole)
    )


def fisher(
    logits_of: Callable[..., jax.Array], whole: Any, weight_B: jax.Array
) -> tuple[jax.Array, ...]:
    """The same to second order, the curvature being the Fisher information of each channel's mask.

    Half the mean over the model's own predictions of the squared derivative of their loss (as
    Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher pruning", prune by).
    There is no first order where the head has been fitted.

    Args:
      logits_of: `logits_of(masks) -> (B, C)`.
      whole: the masks that leave nothing out, (B, channels) each.
      weight_B: of each example.
    """
    logits_BxC, pull = jax.vjp(logits_of, whole)
    shares_BxC = jax.nn.softmax(logits_BxC)

    def of_class(total: Any, one_C: jax.Array) -> tuple[Any, None]:
        (grads,) = pull(shares_BxC - one_C[None, :])
        share_Bx1 = (shares_BxC @ one_C)[:, None]
        return jax.tree.map(lambda t, g: t + share_Bx1 * jnp.square(g), total, grads), None

    start = jax.tree.map(jnp.zeros_like, whole)
    total, _ = lax.scan(of_class, start, jnp.eye(logits_BxC.shape[-1]))
    return tuple(0.5 * weight_B @ each for each in total)


def logistic(rows: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """A logistic regression on standardised rows, as a linear layer on them as they are.

    Args:
      rows: (n, D).
      labels: (n,); a class without an example gets a logit that is far below.
      classes: how many there are.

    Returns:
      `kernel` (D, classes) and `bias` (classes,), float32.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    kernel, bias = np.zeros((rows.shape[1], classes)), np.full(classes, MISSING)
    scaler = StandardScaler().fit(rows)
    present = np.unique(labels)
    bias[present] = 0.0
    if len(present) > 1:
        fit = LogisticRegression(max_iter=1000).fit(scaler.transform(rows), labels)
        coefficients, intercept = fit.coef_, fit.intercept_
        if len(coefficients) == 1:  # of two classes it gives the difference
            coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
            intercept = np.concatenate([-intercept / 2, intercept / 2])
        scaled = coefficients / scaler.scale_[None, :]
        kernel[:, present], bias[present] = scaled.T, intercept - scaled @ scaler.mean_
    return {'kernel': kernel.astype(np.float32), 'bias': bias.astype(np.float32)}
