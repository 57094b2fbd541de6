"""Surgery's record: what happened to every leaf of the source and of the target."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tljax.errors import UserError

REUSED = ('loaded', 'renamed', 'resized')
ACTIONS = (*REUSED, 'reset', 'injected', 'unused')
FRESH = 'fresh initialisation'


@dataclasses.dataclass(frozen=True)
class Entry:
    """What happens to one leaf.

    Attributes:
      path: the target leaf; '' where a source leaf is unused.
      action: 'loaded' (same path, same shape), 'renamed' (another path), 'resized' (another
        shape, perhaps another path too), 'reset' (fresh initialisation), 'injected' (a leaf that
        was added to the architecture, fresh too), 'unused' (a source leaf that nothing reads).
      source_path: the source leaf; '' where a target leaf is reset or injected.
      shape: of the target leaf; of the source leaf where that is unused.
      source_shape: of the source leaf; None where a target leaf is reset or injected.
      dtype: name of the leaf's dtype, the same on both sides.
      note: for people.
      how: the resizer, or ''.
    """

    path: str
    action: str
    source_path: str
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None
    dtype: str
    note: str = ''
    how: str = ''


@dataclasses.dataclass(frozen=True)
class Manifest:
    """One entry for every target leaf, then one for every source leaf that stays unread.

    Attributes:
      entries: target leaves in the target's order, then unused source leaves in the source's.
    """

    entries: tuple[Entry, ...]

    def reused(self) -> frozenset[str]:
        """The target leaves whose values come from the source; all others are fresh."""
        return frozenset(entry.path for entry in self.entries if entry.action in REUSED)

    def count(self, *actions: str) -> int:
        """How many entries have one of these actions."""
        return sum(entry.action in actions for entry in self.entries)

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain dicts, lists, strings and numbers."""
        return {'entries': [jsonable(entry) for entry in self.entries]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> 'Manifest':
        """The inverse of `to_json`, also after a way through JSON text.

        Raises:
          UserError: it is no manifest.
        """
        try:
            return cls(tuple(entry_from(item) for item in data['entries']))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'This is no manifest of a transfer: {type(error).__name__}: {error}. It is '
                'written as manifest.json beside the model that a run saves.'
            ) from None

    def summary(self) -> str:
        """One sentence: how much of the target comes from the source.

        >>> Manifest((Entry('a', 'reset', '', (2, 3), None, 'float32'),)).summary()
        '0 of 1 target leaves (0 of 6 values, 0 %) come from the source; 1 reset.'
        """
        target = [entry for entry in self.entries if entry.action != 'unused']
        total = sum(math.prod(entry.shape) for entry in target)
        reused = sum(math.prod(entry.shape) for entry in target if entry.action in REUSED)
        parts = [f'{self.count(a)} {a}' for a in ACTIONS[:-1] if self.count(a)]
        if self.count('unused'):
            parts.append(f'{self.count("unused")} source leaves unused')
        return (
            f'{self.count(*REUSED)} of {len(target)} target leaves ({reused} of {total} values, '
            f'{percent(reused, total)}) come from the source; {", ".join(parts)}.'
        )

    def table(self, trained: Mapping[str, str] | None = None) -> str:
        """One aligned line for each entry, under a line of headings.

        Args:
          trained: target leaf -> words on how it is trained; leaves that are not in it, such as
            batch statistics, get '-'. Without it the column is left out.

        >>> entry = Entry('head/bias', 'renamed', 'fc/bias', (10,), (10,), 'float32')
        >>> print(Manifest((entry,)).table({'head/bias': 'lr 0.1'}))
        leaf       action   shape  dtype    trained  from
        head/bias  renamed  (10,)  float32  lr 0.1   fc/bias
        """
        rows = [['leaf', 'action', 'shape', 'dtype', 'trained', 'from']]
        for entry in self.entries:
            rows.append(
                [
                    entry.path or entry.source_path,
                    entry.action,
                    str(entry.shape),
                    entry.dtype,
                    '' if entry.action == 'unused' else (trained or {}).get(entry.path, '-'),
                    origin(entry),
                ]
            )
        if trained is None:
            rows = [row[:4] + row[5:] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )
        return '\n'.join(line.rstrip() for line in lines)


def reset_entry(path: str, leaf: Any, action: str = 'reset') -> Entry:
    """The entry of a target leaf that takes nothing from the source."""
    return Entry(path, action, '', tuple(leaf.shape), None, str(leaf.dtype), FRESH)


def origin(entry: Entry) -> str:
    """Where the leaf comes from, as far as the other columns do not say it already."""
    parts = []
    if entry.action in REUSED and entry.source_path != entry.path:
        parts.append(entry.source_path)
    if entry.action == 'resized':
        parts.append(str(entry.source_shape))
    text = ' '.join(parts)
    return ': '.join(filter(None, [text, entry.note]))


def percent(part: int, whole: int) -> str:
    """A share that is called 0 or 100 % only where it is just that.

    >>> percent(999_999, 1_000_000), percent(1, 1_000_000), percent(1, 4), percent(4, 4)
    ('over 99 %', 'under 1 %', '25 %', '100 %')
    """
    share = 100 * part / whole if whole else 0.0
    if 99 < share < 100:
        return 'over 99 %'
    return 'under 1 %' if 0 < share < 1 else f'{share:.0f} %'


def jsonable(entry: Entry) -> dict[str, Any]:
    """An entry with lists for tuples, as JSON gives them back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(entry).items()}


def entry_from(item: Mapping[str, Any]) -> Entry:
    """The inverse of `jsonable`.

    Raises:
      KeyError, TypeError, ValueError: it is no entry.
    """
    if item['action'] not in ACTIONS:
        raise ValueError(f'action {item["action"]!r} is none of {", ".join(ACTIONS)}')
    source_shape = item['source_shape']
    shapes = {
        'shape': tuple(map(int, item['shape'])),
        'source_shape': None if source_shape is None else tuple(map(int, source_shape)),
    }
    return Entry(**{**item, **shapes})
