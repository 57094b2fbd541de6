"""Names with arguments, written as a call: 'layerwise_decay(decay=0.65)'."""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from tljax.errors import UserError, nearest


def parse(text: Any, known: Mapping[str, Callable[..., Any]], where: str) -> tuple[str, dict]:
    """The name and the arguments of a call such as 'lora(rank=8)'; nothing is executed.

    Args:
      text: a name, or a name with keyword arguments that are literals.
      known: by name, a function; its keyword-only parameters are the arguments that there are.
      where: the config key, for error messages.

    Raises:
      UserError: it isn't written so, or there is no such name or argument, or one is missing.

    >>> def decayed(stages, *, decay=0.75): ...
    >>> parse('decayed(decay=0.5)', {'decayed': decayed}, 'config.transfer.policy')
    ('decayed', {'decay': 0.5})
    >>> parse('decayed', {'decayed': decayed}, 'config.transfer.policy')
    ('decayed', {})
    """
    name, arguments = read(text, where)
    if name not in known:
        raise UserError(f'{where}: no {name!r}.{nearest(name, known)}')
    parameters = arguments_of(known[name])
    for key in arguments:
        if key not in parameters:
            raise UserError(f'{where}: {name} has no argument {key!r}.{nearest(key, parameters)}')
    for key, default in parameters.items():
        if default is inspect.Parameter.empty and key not in arguments:
            raise UserError(f'{where}: {name} needs {key}, as in {name}({key}=...).')
    return name, arguments


def arguments_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a function, with their defaults.

    >>> def decayed(stages, *, decay=0.75): ...
    >>> arguments_of(decayed)
    {'decay': 0.75}
    """
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def read(text: Any, where: str) -> tuple[str, dict[str, Any]]:
    """The parts of a call, not yet checked against anything."""
    wrong = UserError(
        f'{where}: {text!r} is not written as a name, or a call with named arguments such as '
        "'lora(rank=8)'."
    )
    if not isinstance(text, str):
        raise wrong
    try:
        node = ast.parse(text.strip(), mode='eval').body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise wrong from None
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise wrong
    try:
        pairs = [(keyword.arg, ast.literal_eval(keyword.value)) for keyword in node.keywords]
    except (ValueError, TypeError):
        raise wrong from None
    names = [key for key, _ in pairs]
    if None in names or len(set(names)) < len(names):
        raise wrong
    return node.func.id, {str(key): value for key, value in pairs}
