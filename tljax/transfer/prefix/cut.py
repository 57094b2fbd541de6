"""Cuts a traced program where what depends on something trained begins."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from tljax.transfer.prefix.kinds import TRAINED, Kind, Kinds, Live, Rows, Same, shape_of
from tljax.transfer.prefix.program import (
    Program,
    contains,
    evaluate,
    flops,
    needed,
    read,
    trace,
    variables,
)
from tljax.transfer.prefix.rows import CALLS, classify, kind_of
from tljax.transfer.prefix.rules import ELEMENTWISE

# What is cheaper to compute again than to keep: moves of data, and what is done to each number.
MOVES = (
    'broadcast_in_dim concatenate expand_dims iota pad reshape rev slice split squeeze transpose'
)
CHEAP = ELEMENTWISE | set(MOVES.split())


@dataclasses.dataclass(frozen=True, eq=False)
class Cut:
    """A program in three parts: `suffix(live, folded, prefix(constant, examples))` is the whole.

    Attributes:
      features: what is to be kept of one example: shape and dtype of each feature.
      prefix_flops: matrix products and convolutions of a batch that need not be done again.
      suffix_flops: those that are left, forward.
      ended_by: what else than a trained leaf ended the prefix, in words.
    """

    program: Program
    before: Sequence[core.JaxprEqn]
    folding: Sequence[core.JaxprEqn]
    after: Sequence[core.JaxprEqn]
    stored: Sequence[core.Var]
    folded: Sequence[core.Var]
    axes: Sequence[int]
    counts: tuple[int, int, int]
    prefix_flops: float
    suffix_flops: float
    ended_by: tuple[str, ...]

    @property
    def features(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        shapes = []
        for var, axis in zip(self.stored, self.axes, strict=True):
            shape = shape_of(var)
            shapes.append(jax.ShapeDtypeStruct((*shape[:axis], *shape[axis + 1 :]), dtype_of(var)))
        return tuple(shapes)

    def is_products(self) -> bool:
        """Whether no convolution is left behind the cut."""
        return not contains(self.after, 'conv_general_dilated')

    def _inputs(self, **given: Any) -> dict[core.Var, Any]:
        """Values of the inputs that are given as pytrees, and of what the program closes over."""
        live, constant, _ = self.counts
        invars = self.program.jaxpr.invars
        places = {
            'live': invars[:live],
            'constant': invars[live : live + constant],
            'examples': invars[live + constant :],
        }
        values = self.program.constants()
        for name, tree in given.items():
            values.update(zip(places[name], jax.tree.leaves(tree), strict=True))
        return values

    def prefix(self, constant: Any, examples: Any) -> tuple[jax.Array, ...]:
        """The features of a batch, examples along the first axis of each."""
        values = self._inputs(constant=constant, examples=examples)
        evaluate(self.before, values)
        pairs = zip(self.stored, self.axes, strict=True)
        return tuple(jnp.moveaxis(values[var], axis, 0) for var, axis in pairs)

    def fold(self, constant: Any) -> tuple[jax.Array, ...]:
        """What the rest of the program needs of the constants."""
        values = self._inputs(constant=constant)
        evaluate(self.folding, values)
        return tuple(values[var] for var in self.folded)

    def suffix(self, live: Any, folded: Sequence[Any], features: Sequence[Any]) -> Any:
        """The rest of the program; features may have been kept in a smaller dtype."""
        values = self._inputs(live=live)
        values.update(zip(self.folded, folded, strict=True))
        for var, axis, value in zip(self.stored, self.axes, features, strict=True):
            values[var] = jnp.moveaxis(value.astype(dtype_of(var)), 0, axis)
        evaluate(self.after, values)
        leaves = [read(atom, values) for atom in self.program.jaxpr.outvars]
        return jax.tree.unflatten(self.program.outputs, leaves)

    def fingerprint(self) -> str:
        """The text of the prefix's operations: other operations, other features.

        With a sum of each array that it closes over, whose numbers are no text of it.
        """
        names: dict[core.Var, int] = {}
        lines = [f'{var.aval}' for var in self.program.jaxpr.invars]
        read_here = {var for eqn in self.before for var in variables(eqn.invars)}
        for var, value in self.program.constants().items():
            if var in read_here:
                lines.append(f'{names.setdefault(var, len(names))} is {digest(value)}')
        for eqn in self.before:
            given = [
                repr(a.val) if isinstance(a, core.Literal) else names.setdefault(a, len(names))
                for a in eqn.invars
            ]
            made = [names.setdefault(var, len(names)) for var in eqn.outvars]
            lines.append(f'{made} {eqn.primitive.name} {given} {eqn.params}')
        return '\n'.join([*lines, repr([names.get(var) for var in self.stored])])


def cut(
    function: Callable[[Any, Any, Any], Any],
    live: Any,
    constant: Any,
    examples: Any,
    why: Any = None,
) -> Cut:
    """Finds what can be computed once per example, whatever the function's architecture.

    Args:
      function: of the three pytrees that follow, arrays or shapes.
      live: what changes from step to step: trained leaves, random keys.
      constant: what never does.
      examples: a batch, its axis the first of every leaf.
      why: for each leaf of `live`, in its structure, one of kinds.TRAINED, RANDOM, STATISTICS.

    Returns:
      The cut; features take the fewest bytes of the frontier itself and what is cheap to compute
      it from again.

    >>> def loss(w, frozen, batch):
    ...     return (jnp.tanh(batch['x'] @ frozen) @ w).sum()
    >>> x, frozen, w = jnp.ones((4, 3)), jnp.ones((3, 2)), jnp.ones((2, 1))
    >>> parts = cut(loss, w, frozen, {'x': x})
    >>> parts.features[0].shape, parts.prefix_flops
    ((2,), 48.0)
    >>> kept = parts.prefix(frozen, {'x': x})
    >>> bool(jnp.isclose(parts.suffix(w, parts.fold(frozen), kept), loss(w, frozen, {'x': x})))
    True
    """
    program = trace(function, live, constant, examples)
    jaxpr = program.jaxpr
    counts = tuple(len(jax.tree.leaves(tree)) for tree in (live, constant, examples))
    reasons = jax.tree.leaves(why) if why is not None else [TRAINED] * counts[0]
    size = jax.tree.leaves(examples)[0].shape[0]
    kinds = classify(
        jaxpr,
        [Live(frozenset({reason})) for reason in reasons]
        + [Same()] * counts[1]
        + [Rows(0)] * counts[2],
        size,
    )
    outputs = variables(jaxpr.outvars)
    used = needed(jaxpr.eqns, outputs)
    after = [e for e in used if any(isinstance(kinds[v], Live) for v in e.outvars)]
    wanted = [v for e in after for v in variables(e.invars)] + outputs
    frontier = [v for v in dict.fromkeys(wanted) if not isinstance(kinds[v], Live)]
    kept, again = smallest(frontier, used, kinds, set(jaxpr.constvars))
    stored = [v for v in kept if isinstance(kinds[v], Rows)]
    folded = [v for v in kept if isinstance(kinds[v], Same)]
    before = needed(jaxpr.eqns, stored)
    rest = [eqn for eqn in used if id(eqn) in again or eqn in after]
    return Cut(
        program=program,
        before=before,
        folding=needed(jaxpr.eqns, folded),
        after=rest,
        stored=stored,
        folded=folded,
        axes=[axis_of(kinds[v]) for v in stored],
        counts=(counts[0], counts[1], counts[2]),
        prefix_flops=flops(before),
        suffix_flops=flops(rest),
        ended_by=ended_by(after, kinds),
    )


def digest(value: Any) -> str:
    """Hexadecimal sha256 of an array, or of random keys."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return hashlib.sha256(np.asarray(value).tobytes()).hexdigest()


def axis_of(kind: Kind) -> int:
    assert isinstance(kind, Rows)
    return kind.axis


def smallest(
    frontier: Sequence[core.Var],
    eqns: Sequence[core.JaxprEqn],
    kinds: Kinds,
    closed_over: set[core.Var],
) -> tuple[list[core.Var], set[int]]:
    """Chooses between keeping a value and keeping what it is cheaply computed from.

    A label is kept rather than its one-hot vector, a kernel rather than its reshaped copy, an
    activation behind a ReLU rather than the two sums in front of it.

    Returns:
      The values to keep, and the ids of the operations to do again.
    """
    producers = {var: eqn for eqn in eqns for var in eqn.outvars}
    kept: dict[core.Var, None] = {}
    again: set[int] = set()
    for var in sorted(frontier, key=nbytes):
        roots, path = roots_of(var, producers, closed_over)
        if sum(nbytes(root) for root in roots if root not in kept) <= nbytes(var):
            kept.update(dict.fromkeys(roots))
            again |= path
        else:
            kept[var] = None
    return list(kept), again


def roots_of(
    var: core.Var, producers: dict[core.Var, core.JaxprEqn], closed_over: set[core.Var]
) -> tuple[list[core.Var], set[int]]:
    """What a value is computed from by cheap operations alone, and the ids of those operations."""
    roots: dict[core.Var, None] = {}
    path: set[int] = set()
    open_ends = [var]
    while open_ends:
        end = open_ends.pop()
        eqn = producers.get(end)
        if end in closed_over:
            continue
        if eqn is None or not is_cheap(eqn):
            roots[end] = None
        elif id(eqn) not in path:
            path.add(id(eqn))
            open_ends += variables(eqn.invars)
    return list(roots), path


def is_cheap(eqn: core.JaxprEqn) -> bool:
    """Whether an operation, or everything inside a call, only moves or maps numbers."""
    if eqn.primitive.name in CALLS:
        inner = [e for jaxpr in core.jaxprs_in_params(eqn.params) for e in jaxpr.eqns]
        return bool(inner) and all(map(is_cheap, inner))
    if eqn.primitive.name in ('jit', 'pjit'):
        return all(map(is_cheap, eqn.params['jaxpr'].jaxpr.eqns))
    return eqn.primitive.name in CHEAP and not eqn.effects


def dtype_of(var: core.Var) -> Any:
    aval: Any = var.aval
    return aval.dtype


def nbytes(var: core.Var) -> int:
    aval: Any = var.aval
    return aval.size * aval.dtype.itemsize


def ended_by(after: Sequence[core.JaxprEqn], kinds: Kinds) -> tuple[str, ...]:
    """What made a value live that nothing trained reaches."""
    words: dict[str, None] = {}
    for eqn in after:
        given = [kind_of(atom, kinds) for atom in eqn.invars]
        if not any(isinstance(kind, Rows) for kind in given):
            continue
        made = kinds[eqn.outvars[0]]
        if isinstance(made, Live) and TRAINED not in made.why:
            words.update(dict.fromkeys(sorted(made.why)))
    return tuple(words)
