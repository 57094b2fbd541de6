"""What a config.json says of a model, checked: it is another's file, and may hold anything."""

import math
from collections.abc import Mapping
from typing import Any

from tljax.errors import UserError


def number(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """A positive number, such as an epsilon; the default where the key is absent.

    Raises:
      UserError: it is something else.

    >>> number({'layer_norm_eps': 1e-6}, 'layer_norm_eps', 1e-12)
    1e-06
    """
    value = config.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in config and not (is_number and math.isfinite(value) and value > 0):
        raise wrong(config, key, 'a positive number')
    return value


def whole(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """A positive whole number, such as that of heads; the default where the key is absent.

    Raises:
      UserError: it is something else.
    """
    value = config.get(key, default)
    if key in config and not is_whole(value):
        raise wrong(config, key, 'a positive whole number')
    return value


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def sides(config: Mapping[str, Any], key: str) -> tuple[int, int]:
    """A height and a width, or one number for both; (0, 0) where the key is absent.

    Raises:
      UserError: it is something else.

    >>> sides({'image_size': 224}, 'image_size'), sides({'image_size': [32, 64]}, 'image_size')
    ((224, 224), (32, 64))
    """
    if key not in config:
        return 0, 0
    value = config[key]
    both = value if isinstance(value, list | tuple) else (value, value)
    if len(both) != 2 or not all(map(is_whole, both)):
        raise wrong(config, key, 'a positive whole number, or two')
    return both[0], both[1]


def text(config: Mapping[str, Any], key: str, default: str) -> str:
    """A word, such as an activation's name; the default where the key is absent.

    Raises:
      UserError: it is something else.
    """
    value = config.get(key, default)
    if not isinstance(value, str):
        raise wrong(config, key, 'a text')
    return value


def flag(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """true or false; the default where the key is absent.

    Raises:
      UserError: it is something else.
    """
    value = config.get(key, default)
    if key in config and not isinstance(value, bool):
        raise wrong(config, key, 'true or false')
    return value


def table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A config within the config; {} where the key is absent.

    Raises:
      UserError: it is something else.
    """
    value = config.get(key, {})
    if not isinstance(value, Mapping):
        raise wrong(config, key, 'an object of keys and values')
    return value


def wrong(config: Mapping[str, Any], key: str, kind: str) -> UserError:
    """What to say of a value that makes no sense.

    >>> str(wrong({'n_head': '2'}, 'n_head', 'a positive whole number'))
    "config.json: n_head is '2'; it takes a positive whole number."
    """
    shown = repr(config[key])
    shown = shown if len(shown) <= 80 else f'{shown[:80]}...'
    return UserError(f'config.json: {key} is {shown}; it takes {kind}.')
