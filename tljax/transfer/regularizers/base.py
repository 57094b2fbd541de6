"""What a regulariser is, and what its loss term sees."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from tljax.errors import UserError

KEY = 'config.transfer.regularize'
Batch = Mapping[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pass:
    """What one call of a model showed.

    Attributes:
      logits: (B, C), or (B, P, C) with one prediction a position.
      features: what the head was given, averaged over real positions if there are any: (B, D).
      maps: what each stage below the head gave, the lowest first: (B, ..., channels) each.
      real: (B, P) float32, 1 at positions of maps (B, P, channels) that stand for the input, 0 at
        padding; None is 1 each.
    """

    logits: jax.Array
    features: jax.Array
    maps: tuple[jax.Array, ...]
    real: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class View:
    """What a loss term sees of a step.

    Attributes:
      model: the pass of the model in training.
      twin: the logits of the second pass over the same examples, as the model's, or None.
      source: the source's pass over the same examples, in evaluation mode, or None.
      source_logits: what the model's second head, the source's, makes of the model's features,
        (B, S) or (B, P, S), or None.
      targets: each example's share of each class, (B, C), or None.
      measured: what was found out before the first update; see `Regularizer.needs`.
      scored: of logits (B, P, C), which the task's loss looks at, (B, P) float32; None is all.
    """

    model: Pass
    twin: jax.Array | None
    source: Pass | None
    source_logits: jax.Array | None
    targets: jax.Array | None
    measured: Mapping[str, Any]
    scored: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Regularizer:
    """One regulariser with its arguments; which of the hooks it uses is its own affair.

    Attributes:
      name: as in the config.
      of_source: whether it is about the source; such a one is left out of a scratch arm.
      needs: what it needs beside the model: 'source' (the source's own pass), 'source_head' (its
        head as a second head of the model), 'twin' (a second pass with other dropout), 'maps',
        'image', 'dropout', 'batch_norm'; 'relation', 'attention' (measured before training).
      term: `term(view) -> scalar`, added to the loss, its weight included.
      mix: `mix(key, height, width) -> (height, width)`, how much of each pixel of a picture stays;
        the rest is another's.
      norm: a hook on the calls of each live BatchNorm: `norm(call, x, key=key)`.
      gradient: `gradient(loaded) -> transformation` of gradients, in front of the optimiser;
        `loaded` are the paths of the leaves that come from the source.
      options: of what is measured.
    """

    name: str
    of_source: bool = False
    needs: frozenset[str] = frozenset()
    term: Callable[[View], jax.Array] | None = None
    mix: Callable[[jax.Array, int, int], jax.Array] | None = None
    norm: Callable[..., jax.Array] | None = None
    gradient: Callable[[frozenset[str]], optax.GradientTransformation] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def number(
    name: str,
    argument: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> float:
    """An argument as a number.

    Raises:
      UserError: it is none, or out of range.

    >>> number('bss', 'eta', 1, least=0)
    1.0
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    limits = [
        (
            f'{least:g} or more' if least is not None else '',
            least is None or (real and value >= least),
        ),
        (
            f'above {above:g}' if above is not None else '',
            above is None or (real and value > above),
        ),
        (f'{most:g} or less' if most is not None else '', most is None or (real and value <= most)),
    ]
    if not real or not all(met for _, met in limits) or value in (float('inf'), float('-inf')):
        words = ' and '.join(text for text, _ in limits if text)
        raise UserError(f'{KEY}: {name}: {argument} is {value!r}; it must be a number, {words}.')
    return float(value)


def whole(name: str, argument: str, value: Any, *, least: int) -> int:
    """An argument as a whole number.

    Raises:
      UserError: it is none, or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(
            f'{KEY}: {name}: {argument} is {value!r}; it must be a whole number, {least} or more.'
        )
    return value
