"""Policies: what is trained, when, and at which rate, as data.

A policy is a name, which makes its phases of the model's outline (`tljax.transfer.named`), or a
list of phases; a phase is `dict(steps=..., rules=[...])`; a rule gives the leaves it
matches None (frozen) or a dict of multipliers: `lr` of `optim.lr`, `wd` of `optim.weight_decay`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tljax import calls, trees
from tljax.errors import UserError
from tljax.models import Outline
from tljax.transfer import peft
from tljax.transfer.named import KEY, POLICIES

MOST_STEPS = 2**31
LARGEST = 1e30  # of a multiplier
KNOWN = {**POLICIES, **peft.POLICIES}


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


def phases(
    policy: str | Sequence[Mapping[str, Any]], total_steps: int, outline: Outline
) -> tuple[Phase, ...]:
    """The phases of a policy, laid out over the steps of a run.

    Args:
      policy: a name, perhaps with arguments as in 'layerwise_decay(decay=0.65)', or phases whose
        `steps` is a number of steps, a share of the total below 1, or left out in the last phase,
        which takes the rest.
      total_steps: of the run.
      outline: of the model.

    Raises:
      UserError: unknown name, argument or key, or steps that do not add up.

    >>> one = (('head/bias',),)
    >>> outline = Outline(('head/.*',), one, one[0], (), one[0], (), 0)
    >>> [(phase.first, phase.steps) for phase in phases('head_then_full(share=0.3)', 100, outline)]
    [(0, 30), (30, 70)]
    """
    called = KEY
    if isinstance(policy, str):
        name, arguments = calls.parse(policy, KNOWN, KEY)
        policy, called = KNOWN[name](outline, **arguments), f'{KEY} {name}'
    if not policy:
        raise UserError(f'{KEY} is an empty list: it needs one phase at least.')
    laid: list[Phase] = []
    exact, first = 0.0, 0
    for index, phase in enumerate(policy):
        where = f'{called}[{index}]'
        check_phase(phase, where)
        steps = phase.get('steps')
        if steps is None and index < len(policy) - 1:
            raise UserError(f'{where}: only the last phase may leave out steps.')
        # Shares are added up before they are rounded, so that many of them end where they should.
        if steps is None:
            exact = total_steps
        else:
            exact += steps if steps >= 1 else steps * total_steps
        end = round(exact)
        if end <= first:
            raise UserError(
                f'{where}.steps: {end - first} steps; every phase needs one at least, and '
                f'config.train.steps is {total_steps}.'
            )
        laid.append(Phase(first, end - first, [(rule[0], rule[1]) for rule in phase['rules']]))
        first = end
    if first != total_steps:
        raise UserError(
            f'{KEY}: its phases last {first} steps, but config.train.steps is {total_steps}. '
            'Leave out steps in the last phase to let it take the rest.'
        )
    check_injected(laid, outline)
    return tuple(laid)


def settled(policy: Any, gradients: Callable[[], Sequence[float]]) -> Any:
    """The policy, a block that is to be chosen by gradients replaced by the one chosen.

    Args:
      policy: as for `phases`.
      gradients: called only if the policy asks for it; gives the relative gradient norm of each
        block of the model's outline.

    >>> settled('surgical(block="auto")', lambda: [0.1, 0.3])
    'surgical(block=1)'
    """
    if not chosen_by_gradients(policy):
        return policy
    name, arguments = calls.parse(policy, KNOWN, KEY)
    norms = list(gradients())
    arguments['block'] = norms.index(max(norms))
    return f'{name}({", ".join(f"{key}={value!r}" for key, value in arguments.items())})'


def chosen_by_gradients(policy: Any) -> bool:
    """Whether a policy's block is chosen when training begins."""
    if not isinstance(policy, str):
        return False
    name, arguments = calls.read(policy, KEY)
    return name == 'surgical' and arguments.get('block') == 'auto'


def is_from_scratch(policy: Any) -> bool:
    """Whether a policy takes nothing from the source.

    Raises:
      UserError: it is text, and not written as a name or a call.

    >>> is_from_scratch('from_scratch'), is_from_scratch(' from_scratch ()'), is_from_scratch([])
    (True, True, False)
    """
    return isinstance(policy, str) and calls.read(policy, KEY)[0] == 'from_scratch'


def check_phase(phase: Any, where: str) -> None:
    """Raises UserError unless it is dict(steps=..., rules=[...])."""
    if not isinstance(phase, Mapping) or not phase.get('rules'):
        raise UserError(f'{where} must be dict(steps=..., rules=[...]), not {phase!r}.')
    if unknown := set(phase) - {'steps', 'rules'}:
        raise UserError(f'{where}: unknown key {min(unknown, key=str)!r}; known: steps, rules.')
    steps = phase.get('steps')
    if steps is not None:
        if isinstance(steps, bool) or not isinstance(steps, int | float):
            raise UserError(f'{where}.steps is {steps!r}; it takes a number of steps, or a share.')
        if not 0 < steps < MOST_STEPS or (steps > 1 and steps != int(steps)):
            raise UserError(
                f'{where}.steps: {steps!s:.20} steps; every phase needs one at least, a whole '
                'number of them, or a share below 1.'
            )
    check_rules(phase['rules'], where)


def check_injected(laid: Sequence[Phase], outline: Outline) -> None:
    """Raises UserError if an injected leaf is never trained, and so would do nothing."""
    never = [
        path
        for path in outline.injected
        if not any(trained_by(phase.rules, path) for phase in laid)
    ]
    if never:
        raise UserError(
            f'{KEY}: the injected leaf {never[0]!r} is trained in no phase, so it would change '
            "nothing. Add a rule for it, or take a policy by name, such as 'injected'."
        )


def trained_by(rules: trees.Rules, path: str) -> bool:
    """Whether the first rule that matches a path trains it."""
    compiled = ((trees.compile_rule(pattern, KEY), value) for pattern, value in rules)
    first = (value for regex, value in compiled if regex.fullmatch(path))
    return next(first, None) is not None


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
            real = isinstance(number, int | float) and not isinstance(number, bool)
            if not real or not 0 <= number < LARGEST:
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
