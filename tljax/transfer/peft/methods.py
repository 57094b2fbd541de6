"""The methods by name, where they go if nothing else is said, and what makes a model with them."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from tljax import calls
from tljax.errors import UserError
from tljax.models import Outline
from tljax.models.transformer import Attention
from tljax.transfer import injection, named
from tljax.transfer.peft import low_rank

# Where a method goes if nothing is said: paths of a model, bottom to top.
Places = Callable[[nnx.Module], list[str]]


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to put leaves into a model, its arguments given.

    Attributes:
      parts: what goes where: the places, and the factory of `injection.inject`.
      where: an expression over module paths instead of the places, or ''.
    """

    parts: tuple[tuple[Places, injection.Factory], ...]
    where: str = ''

    def rules(self, module: nnx.Module, text: str) -> list[tuple[str, injection.Factory]]:
        """The rules for a model.

        Args:
          text: the call that the method is of, for error messages.

        Raises:
          UserError: the method has no place in it.
        """
        if self.where:
            return [(self.where, factory) for _, factory in self.parts[:1]]
        name = text.partition('(')[0]
        found = [(places(module), factory) for places, factory in self.parts]
        if not any(paths for paths, _ in found):
            raise UserError(
                f'{named.KEY}: {name} has no place of its own in a {type(module).__name__}. Say '
                f"where, as in {name}(where='backbone/.*'), or take another method."
            )
        return [('|'.join(map(re.escape, paths)), factory) for paths, factory in found if paths]


def lora(*, rank: int = 8, alpha: float = 16.0, where: str = '') -> Method:
    """A change of low rank beside kernels (LoRA, Hu et al. 2022).

    Args:
      rank: of the change.
      alpha: the change is multiplied by alpha / rank.
      where: an expression over module paths; '' is attention's query and value (section 4.2), and
        all convolutions that are not grouped in networks without attention.
    """
    factory = low_rank.inserted(low_rank.Lora, check_rank(rank), check_number('alpha', alpha))
    return Method(((functools.partial(kernels, low_rank.Lora), factory),), where)


def dora(*, rank: int = 8, alpha: float = 16.0, where: str = '') -> Method:
    """LoRA on weights' directions, with magnitudes of their own (Liu et al. 2024).

    Args:
      rank, alpha, where: as for lora.
    """
    factory = low_rank.inserted(
        low_rank.Dora, check_rank(rank), check_number('alpha', alpha), dora_magnitude=jnp.ones
    )
    return Method(((functools.partial(kernels, low_rank.Dora), factory),), where)


METHODS: dict[str, Callable[..., Method]] = {'lora': lora, 'dora': dora}


def as_policy(name: str) -> Callable[..., list[dict[str, Any]]]:
    """The policy of that name: what the method injects is trained, and the head."""

    @functools.wraps(METHODS[name])
    def policy(outline: Outline, **arguments: Any) -> list[dict[str, Any]]:
        return named.injected(outline)

    return policy


POLICIES = {name: as_policy(name) for name in METHODS}


def chosen(policy: Any, rules: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    """What `config.transfer` injects, as (expression, method) pairs; '' is a policy's own places.

    Args:
      policy: `config.transfer.policy`.
      rules: `config.transfer.inject`.

    Raises:
      UserError: a rule is no pair of strings.

    >>> chosen('lora(rank=4)', [])
    (('', 'lora(rank=4)'),)
    >>> chosen('full', [('.*/query', 'lora')])
    (('.*/query', 'lora'),)
    """
    for rule in rules:
        pair = isinstance(rule, list | tuple) and len(rule) == 2
        if not pair or not all(isinstance(part, str) and part for part in rule):
            raise UserError(
                f'{injection.KEY}: {rule!r} is no rule; a rule is a pair of an expression over '
                "module paths and a method, such as ('.*/attention/query', 'lora(rank=4)')."
            )
    pairs = [(pattern, method) for pattern, method in rules]
    is_method = isinstance(policy, str) and policy.strip().partition('(')[0].strip() in METHODS
    return (*pairs, *([('', policy)] if is_method else []))


def injector(
    pairs: Sequence[tuple[str, str]],
) -> Callable[[nnx.Module, nnx.Rngs], nnx.Module]:
    """What `models.build` takes to make a model with injected leaves.

    Args:
      pairs: (expression over module paths, method) pairs, such as
        ('backbone/.*/query', 'lora(rank=4)'); with '' for the expression the method goes where it
        says itself, as a policy does.

    Raises:
      UserError: there is no such method or argument.
    """
    keys = [injection.KEY if pattern else named.KEY for pattern, _ in pairs]
    methods = [method_of(text, key) for (_, text), key in zip(pairs, keys, strict=True)]

    def inject(module: nnx.Module, rngs: nnx.Rngs) -> nnx.Module:
        by_rule: list[tuple[str, injection.Factory]] = []
        places: list[tuple[str, injection.Factory]] = []
        for (pattern, text), method in zip(pairs, methods, strict=True):
            if pattern:
                by_rule += dataclasses.replace(method, where=pattern).rules(module, text)
            else:
                places += method.rules(module, text)
        module = injection.inject(module, by_rule, rngs)
        return injection.inject(module, places, rngs, named.KEY)

    return inject


def method_of(text: str, key: str) -> Method:
    """The method that a call such as 'lora(rank=8)' means.

    Raises:
      UserError: there is none, or it can't be so.
    """
    name, arguments = calls.parse(text, METHODS, key)
    try:
        return METHODS[name](**arguments)
    except ValueError as error:
        raise UserError(f'{key}: {text}: {error}.') from error


def kernels(mixin: type, module: nnx.Module) -> list[str]:
    """Attention's query and value, or else all convolutions that a change of low rank fits."""
    attentions = paths_of(module, lambda child: isinstance(child, Attention))
    if attentions:
        return [f'{path}/{part}' for path in attentions for part in ('query', 'value')]

    def fits(child: Any) -> bool:
        return low_rank.fits(child, mixin) and not isinstance(child, nnx.Linear)

    return paths_of(module, fits)


def paths_of(module: nnx.Module, chosen: Callable[[Any], bool]) -> list[str]:
    """Paths of the modules that are chosen, those in the head left out: it is trained anyway."""
    paths = ('/'.join(map(str, keys)) for keys, child in nnx.iter_modules(module) if chosen(child))
    return sorted(path for path in paths if path.partition('/')[0] != 'head')


def check_rank(rank: Any) -> int:
    """Raises ValueError unless it is a whole number, 1 or more."""
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f'rank is {rank!r}; it takes a whole number, 1 or more')
    return rank


def check_number(name: str, value: Any) -> float:
    """Raises ValueError unless it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise ValueError(f'{name} is {value!r}; it takes a number above 0')
    return float(value)
