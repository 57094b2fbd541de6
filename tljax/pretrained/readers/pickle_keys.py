"""Keys of the dicts and sets in a pickle: only such as are quick to hash and to compare."""

import dataclasses
from typing import Any

LARGEST_KEY = {str: 4096, int: 64, tuple: 16}  # characters, bits, items


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A name in a pickle, such as 'torch.FloatStorage': a name, and nothing behind it."""

    name: str


def mapping(items: list[Any]) -> dict[Any, Any]:
    """A dict of a key, its value, the next key, ..."""
    return dict(zip(map(checked_key, items[::2]), items[1::2], strict=True))


def checked_key(key: Any) -> Any:
    """A key that takes no time to hash: tuples of tuples of tuples ... can take for ever."""
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > LARGEST_KEY[tuple] or not all(map(simple, parts)):
        raise TypeError(f'the pickle has a {type(key).__name__} for a key')
    return key


def simple(part: Any) -> bool:
    """Whether something is a name, a number or a short text, which may be part of a key."""
    if isinstance(part, str | bytes):
        return len(part) <= LARGEST_KEY[str]
    if isinstance(part, int):
        return part.bit_length() <= LARGEST_KEY[int]
    return part is None or isinstance(part, float | Symbol)
