"""The kinds of values in a traced program: live, the same for every example, or one row each."""

import dataclasses
from typing import Any

from jax.extend import core

TRAINED, RANDOM, STATISTICS = 'trained', 'random numbers', 'batch statistics that still move'


@dataclasses.dataclass(frozen=True)
class Live:
    """Depends on what changes from step to step.

    Attributes:
      why: TRAINED, RANDOM, STATISTICS, or words on an operation that mixes examples.
    """

    why: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Same:
    """Does not depend on the batch.

    Attributes:
      uniform: axes along which all its values are known to be alike.
    """

    uniform: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Rows:
    """One slice an example, along `axis`."""

    axis: int


Kind = Live | Same | Rows
Kinds = dict[core.Var, Kind]


class Mixed(Exception):
    """An operation that mixes examples, or that no rule knows."""


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or literal."""
    return atom.aval.shape
