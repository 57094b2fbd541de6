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
from tljax.models.transformer import Attention
from tljax.transfer import injection
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

    def rules(self, module: nnx.Module, name: str) -> list[tuple[str, injection.Factory]]:
        """The rules for a model.

        Raises:
          UserError: the method has no place in it.
        """
        if self.where:
            return [(self.where, factory) for _, factory in self.parts[:1]]
        found = [(places(module), factory) for places, factory in self.parts]
        if not any(paths for paths, _ in found):
            raise UserError(
                f'{name} has no place of its own in a {type(module).__name__}. Say where, as in '
                f"{name}(where='backbone/.*'), or take another method."
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


def injector(
    calls_by_rule: Sequence[tuple[str, str]], key: str = injection.KEY
) -> Callable[[nnx.Module, nnx.Rngs], nnx.Module]:
    """What `models.build` takes to make a model with injected leaves.

    Args:
      calls_by_rule: (expression over module paths, method) pairs, such as
        ('backbone/.*/query', 'lora(rank=4)'); with '' for the expression the method goes where it
        says itself.
      key: the config key, for error messages.

    Raises:
      UserError: there is no such method or argument.
    """
    methods = [(pattern, text, method_of(text, key)) for pattern, text in calls_by_rule]

    def inject(module: nnx.Module, rngs: nnx.Rngs) -> nnx.Module:
        rules: list[tuple[str, injection.Factory]] = []
        for pattern, text, method in methods:
            placed = dataclasses.replace(method, where=pattern) if pattern else method
            rules += placed.rules(module, text.partition('(')[0])
        return injection.inject(module, rules, rngs, key)

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
