"""A task's loss with regularisers around it: one pass of the model, seen by all of them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models import merge, real_positions
from tljax.transfer.regularizers.base import Batch, Pass, Regularizer, View
from tljax.transfer.regularizers.hooks import Hook, hooked, parts_of
from tljax.transfer.regularizers.inputs import by_one_of
from tljax.transfer.regularizers.positions import averaged

SECOND = 'source_head'
# Dropout takes 0, 1, 2 ... of a step's key; these are out of its way.
MIX, NORM = 1 << 30, (1 << 30) + 1


@dataclasses.dataclass(frozen=True)
class Setting:
    """What regularisers need to know of an experiment.

    Attributes:
      regularizers: in the order of the config.
      outlets: the modules that give each stage's map; () where none is asked for.
      graph: of the source in evaluation mode, or None.
    """

    regularizers: tuple[Regularizer, ...]
    outlets: tuple[str, ...] = ()
    graph: Any = None

    def needs(self, what: str) -> bool:
        """Whether any of them needs it."""
        return any(what in regularizer.needs for regularizer in self.regularizers)


def make(task: Any, setting: Setting) -> Callable[..., Any]:
    """The objective: `objective(module, batch, key, reference) -> loss, aux`.

    Batches are mixed first; then, for R-Drop, every example comes twice. The other terms see the
    first of the two.

    Args:
      task: its loss, what that looks at, and, where one needs them, `targets(batch)`.
      setting: which regularisers, and what they need.
    """
    chosen = setting.regularizers
    mixes = tuple(r.mix for r in chosen if r.mix is not None)
    terms = [(r.name, r.term) for r in chosen if r.term is not None]

    def objective(module: Any, batch: Batch, key: jax.Array, reference: Mapping[str, Any]):
        if mixes:
            batch = by_one_of(mixes, batch, jax.random.fold_in(key, MIX))
        twins = setting.needs('twin')
        seen = twice(batch) if twins else batch
        record = Record(setting.outlets)
        changes = norm_hooks(chosen, module, jax.random.fold_in(key, NORM))
        with record.around(module, changes):
            loss, aux = task.loss(module, seen, key)
        both = record.result(real_positions(module, seen))
        now = jax.tree.map(lambda leaf: leaf[::2], both) if twins else both
        second = functools.partial(second_logits, module, record, seen, key)
        view = View(
            model=now,
            twin=both.logits[1::2] if twins else None,
            source=source_pass(setting, reference, batch) if setting.needs('source') else None,
            source_logits=first(second(), twins) if setting.needs('source_head') else None,
            targets=task.targets(batch) if setting.needs('relation') else None,
            scored=task.scored(batch),
            measured=reference,
        )
        for name, term in terms:
            value = term(view)
            loss, aux = loss + value, {**aux, name: value}
        return loss, aux

    return objective


def twice(batch: Batch) -> Batch:
    """Every example twice, one behind the other, so that both stay on their device."""
    return {name: jnp.repeat(leaf, 2, axis=0) for name, leaf in batch.items()}


def first(leaf: jax.Array, twins: bool) -> jax.Array:
    """The first of every pair, where there are pairs."""
    return leaf[::2] if twins else leaf


class Record:
    """What a module's parts give during one call of it.

    Args:
      outlets: paths of the modules whose results are the stages' maps.
    """

    def __init__(self, outlets: Sequence[str]):
        self.outlets = outlets
        self.kept: dict[str, Any] = {}

    def around(self, module: Any, changes: Mapping[str, Sequence[Hook]] = {}) -> Any:
        """A context in which the module is called once.

        Args:
          changes: hooks that change what parts give; the record is of what they made of it.
        """
        hooks = {path: list(functions) for path, functions in changes.items()}
        for path in ('', 'backbone', *self.outlets):
            hooks.setdefault(path, []).append(self._keep(path))
        hooks.setdefault('head', []).append(self._features)
        return hooked(module, {path: tuple(functions) for path, functions in hooks.items()})

    def result(self, real: jax.Array | None = None) -> Pass:
        """What was seen.

        Args:
          real: of `tljax.models.real_positions`.
        """
        return Pass(
            self.kept[''].astype(jnp.float32),
            averaged(self.kept['features'], real),
            tuple(self.kept[path] for path in self.outlets),
            real,
        )

    def _keep(self, path: str) -> Hook:
        def hook(call: Any, *args: Any, **kwargs: Any) -> Any:
            self.kept[path] = call(*args, **kwargs)
            return self.kept[path]

        return hook

    def _features(self, call: Any, x: jax.Array, *args: Any, **kwargs: Any) -> Any:
        self.kept['features'] = x
        return call(x, *args, **kwargs)


def norm_hooks(
    regularizers: Sequence[Regularizer], module: Any, key: jax.Array
) -> dict[str, list[Hook]]:
    """For each batch normalisation that isn't frozen, what is to be done around its calls."""
    norms = [r.norm for r in regularizers if r.norm is not None]
    live = [
        path
        for path, part in parts_of(module).items()
        if norms and isinstance(part, nnx.BatchNorm) and not part.use_running_average
    ]
    return {
        path: [functools.partial(norm, key=jax.random.fold_in(key, index)) for norm in norms]
        for index, path in enumerate(sorted(live))
    }


def source_pass(setting: Setting, reference: Mapping[str, Any], batch: Batch) -> Pass:
    """The source's own pass over a batch, in evaluation mode."""
    variables = reference['variables']
    module = merge(setting.graph, variables['params'], variables['batch_stats'])
    record = Record(setting.outlets)
    with record.around(module):
        module(batch)
    result = record.result(real_positions(module, batch))
    return jax.tree.map(jax.lax.stop_gradient, result)


def second_logits(module: Any, record: Record, batch: Batch, key: jax.Array) -> jax.Array:
    """What the module gives with its second head in the first one's place.

    Nothing below the head is run again, dropout in front of it included.
    """
    second = getattr(module, SECOND)
    swap = {
        'backbone': [lambda call, *args, **kwargs: record.kept['backbone']],
        'head': [lambda call, *args, **kwargs: second(record.kept['features'])],
    }
    with hooked(module, swap):
        return module(batch, rngs=nnx.Rngs(dropout=key)).astype(jnp.float32)
