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
from tljax.models.transformer import Attention, Mlp, Stack
from tljax.transfer import injection, named
from tljax.transfer.peft import in_sequences, low_rank, on_outputs

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
                f'{named.KEY}: {name} has no place of its own in a {type(module).__name__}. Take '
                f"another method, such as 'lora', or say where it fits: {name}(where=...)."
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
    factory = low_rank.inserted(low_rank.Lora, whole('rank', rank), check_number('alpha', alpha))
    return Method(((functools.partial(kernels, low_rank.Lora), factory),), where)


def dora(*, rank: int = 8, alpha: float = 16.0, where: str = '') -> Method:
    """LoRA on weights' directions, with magnitudes of their own (Liu et al. 2024).

    Args:
      rank, alpha, where: as for lora.
    """
    factory = low_rank.inserted(
        low_rank.Dora, whole('rank', rank), check_number('alpha', alpha), dora_magnitude=jnp.ones
    )
    return Method(((functools.partial(kernels, low_rank.Dora), factory),), where)


def adapter(*, size: int = 64, norms: bool = False, where: str = '') -> Method:
    """Bottlenecks behind attention and two-layer networks (Houlsby et al. 2019).

    Args:
      size: of the bottleneck.
      norms: whether normalisation layers are trained too, as there (section 2.1); as a policy.
      where: an expression over module paths; '' is all attention and two-layer networks.
    """
    if not isinstance(norms, bool):
        raise ValueError(f'norms is {norms!r}; it takes True or False')
    places = functools.partial(instances, (Attention, Mlp))
    return Method(((places, on_outputs.adapted(whole('size', size))),), where)


def ia3(*, side: str = '', where: str = '') -> Method:
    """Outputs multiplied by learnt numbers (IA3, Liu et al. 2022, section 3.3).

    Args:
      side: 'output' or 'input': what of a layer is multiplied; '' is both, each at its places,
        and 'output' where `where` is given.
      where: an expression over module paths; '' is the outputs of attention's key and value and
        the inputs of a network's second layer, and the outputs of all convolutions in networks
        without attention.
    """
    if side and side not in on_outputs.SIDES:
        raise ValueError(f'side is {side!r}; it takes one of {on_outputs.SIDES}')
    places = {'output': scaled_outputs, 'input': scaled_inputs}
    sides = [side] if side else ['output', 'input']
    return Method(tuple((places[s], on_outputs.scaled(s)) for s in sides), where)


def prefix(*, length: int = 10, where: str = '') -> Method:
    """Learnt keys and values in front of the tokens' (prefix-tuning, Li and Liang 2021).

    Args:
      length: how many.
      where: an expression over module paths; '' is all attention.
    """
    places = functools.partial(instances, (Attention,))
    return Method(((places, in_sequences.prefixed(whole('length', length))),), where)


def prompt(*, length: int = 10, where: str = '') -> Method:
    """Learnt vectors in front of the tokens (prompt tuning, Lester et al. 2021).

    Args:
      length: how many.
      where: an expression over module paths; '' is the backbone of a transformer.
    """
    places = functools.partial(instances, (Stack,))
    return Method(((places, in_sequences.prompted(whole('length', length))),), where)


METHODS: dict[str, Callable[..., Method]] = {
    'lora': lora,
    'dora': dora,
    'adapter': adapter,
    'ia3': ia3,
    'prefix': prefix,
    'prompt': prompt,
}


def as_policy(name: str) -> Callable[..., list[dict[str, Any]]]:
    """The policy of that name: what the method injects is trained, and the head.

    With an argument `norms` that is true, normalisation layers too.
    """

    @functools.wraps(METHODS[name])
    def policy(outline: Outline, **arguments: Any) -> list[dict[str, Any]]:
        if arguments.get('norms'):
            return [dict(rules=named.beside_head(outline, outline.norms, 'normalisation layers'))]
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
    for rule in rules if isinstance(rules, list | tuple) else [rules]:
        pair = isinstance(rule, list | tuple) and len(rule) == 2
        if not pair or not all(isinstance(part, str) and part for part in rule):
            raise UserError(
                f'{injection.KEY}: {rule!r} is no rule; a rule is a pair of an expression over '
                "module paths and a method, such as ('.*/attention/query', 'lora(rank=4)')."
            )
    pairs = [(pattern, method) for pattern, method in rules]
    is_method = isinstance(policy, str) and calls.read(policy, named.KEY)[0] in METHODS
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
    if key == injection.KEY and (said := {'where', 'norms'} & arguments.keys()):
        raise UserError(
            f'{key}: {text}: {min(said)} is an argument of {name} as a policy only; here the rule '
            'says where, and the policy what is trained.'
        )
    try:
        return METHODS[name](**arguments)
    except ValueError as error:
        raise UserError(f'{key}: {text}: {error}.') from error


def kernels(mixin: type, module: nnx.Module) -> list[str]:
    """Attention's query and value, or else all convolutions that a change of low rank fits."""
    attentions = instances((Attention,), module)
    if attentions:
        return [f'{path}/{part}' for path in attentions for part in ('query', 'value')]

    def fits(child: Any) -> bool:
        return low_rank.fits(child, mixin) and not isinstance(child, nnx.Linear)

    return paths_of(module, fits)


def scaled_outputs(module: nnx.Module) -> list[str]:
    """Attention's key and value, or else all convolutions."""
    attentions = instances((Attention,), module)
    if attentions:
        return [f'{path}/{part}' for path in attentions for part in ('key', 'value')]
    return paths_of(module, lambda child: type(child) is nnx.Conv)


def scaled_inputs(module: nnx.Module) -> list[str]:
    """The second layer of two-layer networks."""
    return [f'{path}/down' for path in instances((Mlp,), module)]


def instances(kinds: tuple[type, ...], module: nnx.Module) -> list[str]:
    """Paths of the modules of these kinds."""
    return paths_of(module, lambda child: isinstance(child, kinds))


def paths_of(module: nnx.Module, chosen: Callable[[Any], bool]) -> list[str]:
    """Paths of the modules that are chosen, those in the head left out: it is trained anyway."""
    paths = ('/'.join(map(str, keys)) for keys, child in nnx.iter_modules(module) if chosen(child))
    return sorted(path for path in paths if path.partition('/')[0] != 'head')


def whole(name: str, value: Any) -> int:
    """Raises ValueError unless it is a whole number, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{name} is {value!r}; it takes a whole number, 1 or more')
    return value


def check_number(name: str, value: Any) -> float:
    """Raises ValueError unless it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise ValueError(f'{name} is {value!r}; it takes a number above 0')
    return float(value)
