"""A function as a list of operations without nested jits, and ways to run a part of them."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core, source_info_util

JITS = {'jit': 'jaxpr', 'pjit': 'jaxpr', 'closed_call': 'call_jaxpr', 'core_call': 'call_jaxpr'}


@dataclasses.dataclass(frozen=True)
class Program:
    """A traced function.

    Attributes:
      closed: its operations, nested jits inlined.
      outputs: the structure of what it returns.
    """

    closed: core.ClosedJaxpr
    outputs: Any

    @property
    def jaxpr(self) -> core.Jaxpr:
        return self.closed.jaxpr

    def constants(self) -> dict[core.Var, Any]:
        """The arrays that the function closes over."""
        return dict(zip(self.jaxpr.constvars, self.closed.consts, strict=True))


def trace(function: Callable[..., Any], *arguments: Any) -> Program:
    """Traces a function of pytrees of arrays or shapes."""
    leaves, structure = jax.tree.flatten(arguments)
    outputs = None

    def of_leaves(*leaves: Any) -> list[Any]:
        nonlocal outputs
        flat, outputs = jax.tree.flatten(function(*jax.tree.unflatten(structure, leaves)))
        return flat

    closed = jax.make_jaxpr(of_leaves)(*leaves)
    return Program(inlined(closed), outputs)


def inlined(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """The same operations, those of nested jits among them."""

    def run(*inputs: Any) -> list[Any]:
        values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        values.update(zip(closed.jaxpr.invars, inputs, strict=True))
        evaluate(closed.jaxpr.eqns, values)
        return [read(atom, values) for atom in closed.jaxpr.outvars]

    return jax.make_jaxpr(run)(*[var.aval for var in closed.jaxpr.invars])


def evaluate(eqns: Iterable[core.JaxprEqn], values: dict[core.Var, Any]) -> None:
    """Runs operations in order; `values` holds what they read, and then what they give."""
    for eqn in eqns:
        given = [read(atom, values) for atom in eqn.invars]
        key = JITS.get(eqn.primitive.name)
        if key is not None:
            inner = eqn.params[key]
            scope = dict(zip(inner.jaxpr.constvars, inner.consts, strict=True))
            scope.update(zip(inner.jaxpr.invars, given, strict=True))
            evaluate(inner.jaxpr.eqns, scope)
            results = [read(atom, scope) for atom in inner.jaxpr.outvars]
        else:
            with source_info_util.user_context(eqn.source_info.traceback):
                params = eqn.primitive.get_bind_params(eqn.params)
                results = eqn.primitive.bind(*given, **params)
            results = results if eqn.primitive.multiple_results else [results]
        values.update(zip(eqn.outvars, results, strict=True))


def read(atom: Any, values: Mapping[core.Var, Any]) -> Any:
    """The value of a variable or literal."""
    return atom.val if isinstance(atom, core.Literal) else values[atom]


def variables(atoms: Iterable[Any]) -> list[core.Var]:
    """Those that are no literals."""
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def needed(eqns: Sequence[core.JaxprEqn], wanted: Iterable[core.Var]) -> list[core.JaxprEqn]:
    """The operations that lead to some values, in order."""
    missing, kept = set(wanted), []
    for eqn in reversed(eqns):
        if missing & set(eqn.outvars):
            kept.append(eqn)
            missing.update(variables(eqn.invars))
    return kept[::-1]


def flops(eqns: Iterable[core.JaxprEqn]) -> float:
    """Floating-point operations of matrix products and convolutions, two for a multiply-add."""
    total = 0.0
    for eqn in eqns:
        out: Any = eqn.outvars[0].aval
        if eqn.primitive.name == 'dot_general':
            (contracted, _), _ = eqn.params['dimension_numbers']
            left: Any = eqn.invars[0].aval
            total += 2.0 * out.size * math.prod(left.shape[axis] for axis in contracted)
        elif eqn.primitive.name == 'conv_general_dilated':
            kernel: Any = eqn.invars[1].aval
            outputs = kernel.shape[eqn.params['dimension_numbers'].rhs_spec[0]]
            total += 2.0 * out.size * kernel.size / outputs
        else:
            total += sum(flops(inner.eqns) for inner in core.jaxprs_in_params(eqn.params))
    return total


def contains(eqns: Iterable[core.JaxprEqn], name: str) -> bool:
    """Whether an operation of that name is among them, or inside a call."""
    return any(
        eqn.primitive.name == name
        or any(contains(inner.eqns, name) for inner in core.jaxprs_in_params(eqn.params))
        for eqn in eqns
    )
