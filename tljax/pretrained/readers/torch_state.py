"""Finds the weights in what `torch.save` was given: a dict of tensors, or dicts around one."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tljax.errors import UserError
from tljax.pretrained.readers.numpy_pickle import Array, shown
from tljax.pretrained.readers.pickle_keys import Symbol
from tljax.pretrained.readers.torch_pickle import HOW_TO_SAVE, Strided

PREFERRED = ('state_dict', 'model')
WRAPPERS = (
    *PREFERRED,
    *('model_state_dict', 'model_state', 'net', 'network', 'module', 'weights', 'params'),
)
NOT_WEIGHTS = re.compile(r'.*(optim|sched|scaler|rng).*', re.IGNORECASE)
DEEPEST, MOST = 32, 200_000
SHARE = 8  # characters of a name that count as one step
LARGEST_NUMBER = 1024  # bits; Python itself refuses to write those of some 14,000
SHOWN, ALL_SHOWN = 1000, 100_000  # items of one value's metadata, of all of a file's
STEPS = 20_000_000  # of looking for tensors: dicts may lie in several dicts

Leaf = Strided | Array


class Allowance:
    """Work that one file may cause: what is small in it may be referred to again and again."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, cost: int) -> None:
        """Counts work done.

        Raises:
          ValueError: it is too much.
        """
        self.left -= cost
        if self.left < 0:
            raise ValueError('dicts lie in dicts without end')


def state_of(whole: Any, path: Path) -> tuple[dict[str, Leaf], dict[str, Any]]:
    """The tensors of a file by name, and the rest as plain values.

    Raises:
      UserError: there are none, or several sets of them.
    """
    if isinstance(whole, Leaf) or not isinstance(whole, Mapping):
        what = 'one tensor without a name' if isinstance(whole, Leaf) else type(whole).__name__
        raise UserError(f'{path} holds {what}, not a dict of tensors. To save one, {HOW_TO_SAVE}')
    steps, items = Allowance(STEPS), Allowance(ALL_SHOWN)
    rest: dict[str, Any] = {}
    state, prefix = whole, ''
    for _ in range(DEEPEST):
        chosen = choose(state, path, steps, nested=bool(prefix))
        if chosen is None:
            break
        for key, value in state.items():
            if key != chosen:
                name = prefix + name_of(key)
                steps.spend(len(name) // SHARE)
                rest[name] = about(key, value, steps, items)
        state, prefix = state[chosen], f'{prefix}{chosen}.'
    leaves: dict[str, Leaf] = {}
    for name, leaf in walk(state, steps):
        if not isinstance(leaf, Leaf):
            rest[prefix + name] = brief(leaf, items)
        elif name in leaves:
            raise UserError(f'{path} holds two tensors named {name!r}. Save it anew.')
        else:
            leaves[name] = leaf
    return leaves, rest


def choose(state: Mapping, path: Path, steps: Allowance, *, nested: bool) -> Any:
    """The key under which the weights are; None where `state` itself is them.

    Raises:
      UserError: it may be one of several.
    """
    found = [key for key, value in state.items() if holds_weights(key, value, steps)]
    if not found:
        return None
    preferred = [key for key in found if key in PREFERRED]
    if len(preferred) == 1:
        return preferred[0]
    whole = any(isinstance(value, Leaf) for value in state.values()) or nested
    if whole and not any(key in WRAPPERS for key in found):
        return None
    if len(found) > 1:
        if nested:
            return None
        raise UserError(
            f'{path} holds several sets of weights: {", ".join(map(repr, found))}. Save the one '
            "that is meant in a file of its own: torch.save(torch.load(FILE)['NAME'], NEW_FILE)."
        )
    return found[0]


def holds_weights(key: Any, value: Any, steps: Allowance) -> bool:
    """Whether a value is a dict with tensors in it, and not an optimiser's."""
    if not isinstance(value, Mapping) or is_optimizer(key, value):
        return False
    return any(isinstance(leaf, Leaf) for _, leaf in walk(value, steps))


def is_optimizer(key: Any, value: Any) -> bool:
    named = isinstance(key, str) and NOT_WEIGHTS.fullmatch(key)
    return bool(named) or (isinstance(value, Mapping) and 'param_groups' in value)


def walk(tree: Any, steps: Allowance) -> Iterator[tuple[str, Any]]:
    """Leaves by dotted name; a list is gone into where it holds tensors.

    Raises:
      ValueError: it is nested without end.
    """
    waiting: list[Iterator[tuple[tuple[str, ...], Any]]] = [iter([((), tree)])]
    count = 0
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
            continue
        path, node = found
        count += 1
        steps.spend(1 + (len(node) if isinstance(node, Mapping | list | tuple) else 0))
        if len(path) > DEEPEST or count > MOST:
            raise ValueError('dicts lie in dicts without end')
        listed = isinstance(node, list | tuple) and any(
            isinstance(item, Leaf | Mapping) for item in node
        )
        if isinstance(node, Mapping):
            waiting.append(children(path, node.items()))
        elif listed:
            waiting.append(children(path, enumerate(node)))
        else:
            name = '.'.join(path)
            steps.spend(len(name) // SHARE)
            yield name, node


def children(
    path: tuple[str, ...], items: Iterable[tuple[Any, Any]]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and values of what lies in a dict or list, one at a time."""
    return (((*path, name_of(key)), value) for key, value in items)


def name_of(key: Any) -> str:
    """Python 2 wrote names as bytes.

    >>> name_of(b'weight')
    'weight'
    """
    return key.decode('latin-1') if isinstance(key, bytes) else str(key)


def about(key: Any, value: Any, steps: Allowance, items: Allowance) -> Any:
    """What metadata say of something that is not among the weights."""
    if is_optimizer(key, value) and isinstance(value, Mapping):
        return 'not read: the state of an optimiser or the like'
    if isinstance(value, Mapping):
        count = sum(isinstance(leaf, Leaf) for _, leaf in walk(value, steps))
        if count:
            return f'not read: {count} other tensors'
    return brief(value, items)


def brief(value: Any, items: Allowance) -> Any:
    """A value as `plain` has it, of as many items as the file's allowance leaves."""
    left = [max(min(SHOWN, items.left), 0)]
    before = left[0]
    result = plain(value, left)
    items.left -= before - left[0]
    return result


def plain(value: Any, left: list[int] | None = None, depth: int = 0) -> Any:
    """A value of text, numbers, lists and dicts; what is too large is cut short.

    >>> plain({'epoch': 3, 'best': (91.7, b'x')})
    {'epoch': 3, 'best': [91.7, "b'x'"]}
    """
    left = [SHOWN] if left is None else left
    left[0] -= 1
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= LARGEST_NUMBER else shown(value)
    if left[0] < 0 or depth > 8:
        return '...'
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, Strided):
        return f'tensor of shape {value.shape}'
    if isinstance(value, Array):
        return f'array of shape {value.array.shape}'
    if isinstance(value, Mapping):
        items = itertools.islice(value.items(), max(left[0], 0))
        return {name_of(key): plain(item, left, depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, left, depth + 1) for item in itertools.islice(value, max(left[0], 0))]
    if isinstance(value, bytes | bytearray):
        return repr(value[:200])[:200]
    return repr(value) if isinstance(value, complex) else shown(value)
