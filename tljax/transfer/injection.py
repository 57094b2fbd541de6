"""Modules put in the place of others: the same leaves at the same paths, and perhaps new ones.

It happens while a model is made, so that everything else (paths, checkpoints, rules, surgery,
mapped runs) meets an architecture that simply has these leaves.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from tljax import trees
from tljax.errors import UserError, nearest

KEY = 'config.transfer.inject'
Factory = Callable[[Any, nnx.Rngs], nnx.Module]
Rules = Sequence[tuple[str, Factory]]


class Injected(nnx.Param):
    """A parameter that the architecture does not have by itself.

    `Model.outline` tells these leaves by their type.
    """


def inject(module: nnx.Module, rules: Rules, rngs: nnx.Rngs, where: str = KEY) -> nnx.Module:
    """Replaces modules within a module.

    Args:
      module: the whole model; it is changed in place. It can't be replaced itself.
      rules: (regular expression, factory) pairs. The expression must match the whole path of a
        module, such as 'backbone/block0/attention/query'; the first match wins. A factory is
        `factory(module, rngs) -> module` and raises ValueError for a module that it can't replace.
      rngs: for new leaves; its stream is `params`. What was drawn from it before stays as it is.
      where: the config key, for error messages.

    Returns:
      The module.

    Raises:
      UserError: an expression is not valid or matches no module, or a factory refuses one.

    >>> class Two(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.up, self.down = nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)
    >>> def scaled(module, rngs):
    ...     return recast(module, type(module), factor=jax.numpy.ones(3))
    >>> module = inject(Two(nnx.Rngs(params=0)), [('up', scaled)], nnx.Rngs(params=1))
    >>> list(trees.flatten(nnx.to_pure_dict(nnx.state(module))))
    ['down/bias', 'down/kernel', 'up/bias', 'up/factor', 'up/kernel']
    """
    found = {'/'.join(map(str, keys)): keys for keys, _ in nnx.iter_modules(module) if keys}
    for path, (pattern, factory) in assigned(rules, sorted(found), where).items():
        parent, last = _parent(module, found[path])
        old = parent[last] if isinstance(last, int) else getattr(parent, last)
        try:
            new = factory(old, rngs)
        except ValueError as error:
            raise UserError(
                f'{where}: the rule {shortened(pattern)} matches {path!r}, a '
                f'{type(old).__name__}, which cannot be replaced so: {error}.'
            ) from error
        if isinstance(last, int):
            parent[last] = new
        else:
            setattr(parent, last, new)
    return module


def assigned(
    rules: Sequence[tuple[str, Any]], paths: Sequence[str], where: str
) -> dict[str, tuple[str, Any]]:
    """The first rule that matches each path, for those that one matches.

    Raises:
      UserError: a rule is no valid expression, or decides about no path.

    >>> assigned([('.*/query', 'lora')], ['block0/key', 'block0/query'], 'config')
    {'block0/query': ('.*/query', 'lora')}
    """
    compiled = [trees.compile_rule(pattern, where) for pattern, _ in rules]
    chosen: dict[str, tuple[str, Any]] = {}
    for regex, (pattern, value) in zip(compiled, rules, strict=True):
        matched = [path for path in paths if regex.fullmatch(path)]
        left = [path for path in matched if path not in chosen]
        if not left:
            raise UserError(f'{where}: {_dead(pattern, regex, matched, paths)}')
        chosen |= dict.fromkeys(left, (pattern, value))
    return chosen


def recast(module: Any, kind: type, **leaves: jax.Array) -> Any:
    """The module as one of another class, with the same leaves and attributes, and new leaves.

    Args:
      module: is left as it is.
      kind: a subclass of its class that has no initialisation of its own.
      leaves: by name, arrays that become `Injected` parameters.

    Raises:
      ValueError: it has an attribute of such a name already.
    """
    new = altered(module, kind)
    for name, leaf in leaves.items():
        if hasattr(new, name):
            raise ValueError(f'it has {name!r} already')
        setattr(new, name, Injected(leaf))
    return new


def altered(module: Any, kind: type, **attributes: Any) -> Any:
    """A shallow copy of another class, some of its attributes replaced; fine within a trace."""
    new: Any = object.__new__(kind)
    vars(new).update(vars(module), **attributes)
    return new


def mixed(mixin: type, base: type) -> type:
    """The class that extends `base` by `mixin`, always the same one for the same two.

    >>> class Doubled:
    ...     def __call__(self, *inputs):
    ...         return 2 * super().__call__(*inputs)
    >>> made = mixed(Doubled, nnx.Linear)
    >>> made.__name__, made is mixed(Doubled, nnx.Linear)
    ('DoubledLinear', True)
    """
    return _CLASSES(mixin, base)


def _extended(mixin: type, base: type) -> type:
    name = f'{mixin.__name__}{base.__name__}'
    return type(name, (mixin, base), {'__module__': mixin.__module__, '__doc__': mixin.__doc__})


_CLASSES: Any = functools.cache(_extended)  # one class for the same two: graphs compare by class


def shortened(pattern: str) -> str:
    """An expression for people."""
    return repr(pattern if len(pattern) <= 80 else pattern[:77] + '...')


def _parent(module: nnx.Module, keys: Sequence[Any]) -> tuple[Any, Any]:
    """The module that holds the one at these keys, and its key there."""
    parent: Any = module
    for key in keys[:-1]:
        parent = parent[key] if isinstance(key, int) else getattr(parent, key)
    return parent, keys[-1]


def _dead(
    pattern: str, regex: re.Pattern[str], matched: Sequence[str], paths: Sequence[str]
) -> str:
    """The message for a rule that decides about no module."""
    if matched:
        return (
            f'the rule {pattern!r} is never reached: earlier rules already match {matched[:3]}. '
            'Move it up or delete it.'
        )
    inside = [path for path in paths if regex.search(path)]
    hint = (
        f' It matches a part of {inside[:3]}, but rules match whole paths.'
        if inside
        else nearest(pattern, paths)
    )
    return f'the rule {pattern!r} matches no module.{hint}'
