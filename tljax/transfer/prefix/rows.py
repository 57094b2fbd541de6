"""Which values of a traced program are functions of one example alone, and along which axis.

Every value has a kind. `Live` depends on what changes in training. `Same` doesn't depend on the
batch. `Rows(axis)` depends on the batch, and its slice i along `axis` on example i alone. An
operation is believed to keep rows apart only if a rule here says so: one that is not known, or that
mixes examples, makes its result live, so that the prefix ends before it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend import core, source_info_util

from tljax.transfer.prefix.kinds import Kind, Kinds, Live, Mixed, Rows, Same, shape_of
from tljax.transfer.prefix.program import inlined
from tljax.transfer.prefix.rules import ELEMENTWISE, RULES, elementwise

# Calls that stay calls, since they carry a derivative of their own.
CALLS = {
    'custom_jvp_call': 'call_jaxpr',
    'custom_vjp_call': 'call_jaxpr',
    'checkpoint': 'jaxpr',
    'remat2': 'jaxpr',
}


def classify(jaxpr: core.Jaxpr, inputs: Sequence[Kind], size: int) -> Kinds:
    """The kind of every value of a program.

    Args:
      jaxpr: without nested jits.
      inputs: kinds of its inputs.
      size: examples in a batch.
    """
    kinds: Kinds = dict.fromkeys(jaxpr.constvars, Same())
    kinds.update(zip(jaxpr.invars, inputs, strict=True))
    for eqn in jaxpr.eqns:
        for var, kind in zip(eqn.outvars, outputs_of(eqn, kinds, size), strict=True):
            kinds[var] = kind
    return kinds


def kind_of(atom: Any, kinds: Mapping[core.Var, Kind]) -> Kind:
    """The kind of a variable or literal."""
    kind = Same() if isinstance(atom, core.Literal) else kinds[atom]
    if isinstance(kind, Same):
        single = {axis for axis, length in enumerate(shape_of(atom)) if length == 1}
        return Same(kind.uniform | single)
    return kind


def outputs_of(eqn: core.JaxprEqn, kinds: Kinds, size: int) -> list[Kind]:
    """The kinds of what an operation gives."""
    given = [kind_of(atom, kinds) for atom in eqn.invars]
    name = eqn.primitive.name
    if name in CALLS:
        return through_call(eqn, given, size)
    why = frozenset().union(*(kind.why for kind in given if isinstance(kind, Live)))
    if why or eqn.effects:
        return [Live(why or frozenset({f'an effect of {name}'}))] * len(eqn.outvars)
    if not any(isinstance(kind, Rows) for kind in given):
        return [Same(uniform_axes(eqn, given))] * len(eqn.outvars)
    try:
        axes = rows_of(eqn, given, size)
    except Mixed:
        where = source_info_util.summarize(eqn.source_info)
        return [Live(frozenset({f'{name} at {where} mixes examples'}))] * len(eqn.outvars)
    return [Rows(axis) for axis in axes]


def through_call(eqn: core.JaxprEqn, given: Sequence[Kind], size: int) -> list[Kind]:
    """The kinds of what a call gives, by what it does inside."""
    inner = eqn.params.get(CALLS[eqn.primitive.name])
    if isinstance(inner, core.Jaxpr) and not isinstance(inner, core.ClosedJaxpr):
        inner = core.ClosedJaxpr(inner, [])
    if inner is None or len(inner.jaxpr.invars) != len(given):
        return [Live(frozenset({f'{eqn.primitive.name} cannot be looked into'}))] * len(eqn.outvars)
    jaxpr = inlined(inner).jaxpr
    kinds = classify(jaxpr, given, size)
    return [kind_of(atom, kinds) for atom in jaxpr.outvars]


def uniform_axes(eqn: core.JaxprEqn, given: Sequence[Any]) -> frozenset[int]:
    """Axes along which a value that doesn't depend on the batch is known to be uniform."""
    name, (out, *_) = eqn.primitive.name, eqn.outvars
    ndim = len(shape_of(out))
    if name == 'iota':
        return frozenset(range(ndim)) - {eqn.params['dimension']}
    if name == 'broadcast_in_dim':
        kind, places = given[0], eqn.params['broadcast_dimensions']
        varying = {place for axis, place in enumerate(places) if axis not in kind.uniform}
        return frozenset(range(ndim)) - varying
    if name in ELEMENTWISE:
        full = [k for k, atom in zip(given, eqn.invars, strict=True) if len(shape_of(atom)) == ndim]
        return frozenset.intersection(*(k.uniform for k in full)) if full else frozenset()
    if name not in RULES:
        return frozenset()
    found: set[int] = set()
    for place, kind in enumerate(given):
        # What would keep rows apart keeps equal ones equal.
        for axis in kind.uniform:
            try:
                found |= set(RULES[name](eqn, [*given[:place], Rows(axis), *given[place + 1 :]]))
            except Mixed:
                continue
    return frozenset(found)


def rows_of(eqn: core.JaxprEqn, given: Sequence[Kind], size: int) -> list[int]:
    """The axis of examples in each result of an operation that keeps them apart.

    Raises:
      Mixed: it doesn't, or no rule knows it.
    """
    name = eqn.primitive.name
    if name in ELEMENTWISE:
        return [elementwise(eqn, given)] * len(eqn.outvars)
    rule = RULES.get(name)
    if rule is None:
        raise Mixed
    axes = rule(eqn, given)
    for axis, out in zip(axes, eqn.outvars, strict=True):
        if shape_of(out)[axis] != size:
            raise Mixed
    return axes
