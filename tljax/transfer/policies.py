"""Policies: what is trained, when, and at which rate, as data.

A policy is a list of phases; a phase is `dict(steps=..., rules=[...])`; a rule gives the leaves it
matches None (frozen) or a dict of multipliers: `lr` of `optim.lr`, `wd` of `optim.weight_decay`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tljax import trees
from tljax.errors import UserError, nearest

TRAINED: dict[str, float] = {}
FROZEN = None
POLICIES: dict[str, list[dict[str, Any]]] = {
    'full': [dict(rules=[('.*', TRAINED)])],
    'linear_probe': [dict(rules=[('head/.*', TRAINED), ('.*', FROZEN)])],
    # Kumar et al. 2022, section 3.4: a linear probe first, so that a random head does not distort
    # the features, then everything.
    'lp_ft': [
        dict(steps=0.5, rules=[('head/.*', TRAINED), ('.*', FROZEN)]),
        dict(rules=[('.*', TRAINED)]),
    ],
}
KEY = 'config.transfer.policy'


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training under one rule list.

    Attributes:
      first: the step it begins with.
      steps: how many steps it lasts.
      rules: (expression, multipliers or None) pairs over parameter paths.
    """

    first: int
    steps: int
    rules: trees.Rules

    @property
    def end(self) -> int:
        return self.first + self.steps


def phases(policy: str | Sequence[Mapping[str, Any]], total_steps: int) -> tuple[Phase, ...]:
    """The phases of a policy, laid out over the steps of a run.

    Args:
      policy: a name, or phases whose `steps` is a number of steps, a share of the total below 1,
        or left out in the last phase, which takes the rest.
      total_steps: of the run.

    Raises:
      UserError: unknown name or key, or steps that do not add up.

    >>> [(phase.first, phase.steps) for phase in phases('lp_ft', 100)]
    [(0, 50), (50, 50)]
    """
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise UserError(f'{KEY}: no policy {policy!r}.{nearest(policy, POLICIES)}')
        policy = POLICIES[policy]
    if not policy:
        raise UserError(f'{KEY} is an empty list: it needs one phase at least.')
    laid, first = [], 0
    for index, phase in enumerate(policy):
        where = f'{KEY}[{index}]'
        if not isinstance(phase, Mapping) or not phase.get('rules'):
            raise UserError(f'{where} must be dict(steps=..., rules=[...]), not {phase!r}.')
        if unknown := set(phase) - {'steps', 'rules'}:
            raise UserError(f'{where}: unknown key {min(unknown)!r}; known: steps, rules.')
        steps = phase.get('steps')
        if steps is None:
            if index < len(policy) - 1:
                raise UserError(f'{where}: only the last phase may leave out steps.')
            steps = total_steps - first
        elif not isinstance(steps, int | float) or isinstance(steps, bool):
            raise UserError(f'{where}.steps is {steps!r}; it takes a number of steps, or a share.')
        elif 0 < steps < 1:
            steps = round(steps * total_steps)
        if steps < 1 or steps != int(steps):
            raise UserError(f'{where}.steps: {steps} steps; every phase needs one at least.')
        check_rules(phase['rules'], where)
        laid.append(Phase(first, int(steps), [(rule[0], rule[1]) for rule in phase['rules']]))
        first += int(steps)
    if first != total_steps:
        raise UserError(
            f'{KEY}: its phases last {first} steps, but config.train.steps is {total_steps}. '
            'Leave out steps in the last phase to let it take the rest.'
        )
    return tuple(laid)


def check_rules(rules: Any, where: str) -> None:
    """Raises UserError unless every rule is (expression, None or a dict of multipliers)."""
    for rule in rules if isinstance(rules, list | tuple) else [rules]:
        if not isinstance(rule, list | tuple) or len(rule) != 2 or not isinstance(rule[0], str):
            raise UserError(
                f"{where}.rules: {rule!r} is no rule; a rule is a pair such as ('head/.*', dict()) "
                "or ('.*', None)."
            )
        value = rule[1]
        if value is None:
            continue
        if not isinstance(value, Mapping) or set(value) - {'lr', 'wd'}:
            raise UserError(
                f'{where}.rules: the rule for {rule[0]!r} gives {value!r}; a rule gives None '
                '(frozen) or dict(lr=..., wd=...), multipliers of optim.lr and optim.weight_decay.'
            )
        for key, number in value.items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
                raise UserError(
                    f'{where}.rules: {key} of the rule for {rule[0]!r} is {number!r}; it takes a '
                    'number, 0 or more.'
                )


def decide(phase: Phase, paths: Iterable[str]) -> dict[str, dict[str, float] | None]:
    """What a phase does to each parameter: None if frozen, else `{'lr': ..., 'wd': ...}`.

    `wd` is there only if a rule gives it.

    Raises:
      UserError: an uncovered leaf, a dead rule, or everything frozen.

    >>> decide(Phase(0, 1, [('head/.*', dict(lr=0.1)), ('.*', None)]), ['head/bias', 'stem/bias'])
    {'head/bias': {'lr': 0.1}, 'stem/bias': None}
    """
    decisions = {}
    for path, value in trees.match(phase.rules, paths, f'{KEY} rules').items():
        if value is not None:
            value = {'lr': 1.0, **value}
        decisions[path] = value
    if all(value is None for value in decisions.values()):
        raise UserError(
            f'{KEY}: every leaf is frozen in the phase that begins at step {phase.first}.'
        )
    return decisions
