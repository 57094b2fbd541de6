"""What was found wrong with the user's data, and how its classes are distributed."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tljax.errors import UserError

LISTED = 1000  # bad rows that are kept by name
SHOWN = 5  # of them in an error message


@dataclasses.dataclass(frozen=True)
class Account:
    """What became of the rows of the user's data.

    Attributes:
      where: the folder or file.
      rows: that were found.
      bad: (where, why) of those that cannot be used.
      counts: split -> class -> rows that are used.
      ignored: other files, by suffix: how many.
      notes: what else should be known.
      rate: of sounds, samples a second; 0 of others.
    """

    where: str
    rows: int
    bad: Sequence[tuple[str, str]]
    counts: Mapping[str, Mapping[str, int]]
    ignored: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    rate: int = 0

    def reasons(self) -> Counter[str]:
        """How many rows are bad for each reason, whatever their particulars."""
        return Counter(kind_of(why) for _, why in self.bad)

    def imbalance(self) -> float:
        """Training examples of the largest class for each one of the smallest."""
        counts = [count for count in self.counts['train'].values() if count]
        return max(counts) / min(counts) if counts else 1.0

    def to_json(self) -> dict[str, Any]:
        return {
            'where': self.where,
            'rows': self.rows,
            'used': sum(sum(counts.values()) for counts in self.counts.values()),
            'counts': {split: dict(counts) for split, counts in self.counts.items()},
            'imbalance': self.imbalance(),
            'bad': {
                'count': len(self.bad),
                'reasons': dict(self.reasons()),
                'rows': [list(item) for item in self.bad[:LISTED]],
            },
            'ignored': dict(self.ignored),
            'notes': list(self.notes),
            'rate': self.rate,
        }


def kind_of(why: str) -> str:
    """A reason without its particulars, which follow a colon.

    >>> kind_of('the same as: cat/1.png')
    'the same as'
    """
    return why.partition(':')[0]


def told(bad: Sequence[tuple[str, str]]) -> str:
    """The first bad rows as text, a line each."""
    lines = [f'  {where}: {why}' for where, why in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f'  and {len(bad) - SHOWN} more')
    return '\n'.join(lines)


def check_bad(bad: Sequence[tuple[str, str]], rows: int, where: str, on_error: str) -> None:
    """Refuses bad rows where that is wanted, or where they are most of all.

    Args:
      bad: (where, why).
      rows: of all.
      where: the folder or file.
      on_error: 'skip' or 'refuse'.

    Raises:
      UserError: lists the first.
    """
    if bad and on_error == 'refuse':
        raise UserError(
            f'config.data.dir={where}: {len(bad)} of {rows} rows cannot be used:\n{told(bad)}\n'
            "Mend or remove them, or leave them out with config.data.on_error='skip'."
        )
    if 2 * len(bad) > rows:
        raise UserError(
            f'config.data.dir={where}: {len(bad)} of {rows} rows cannot be used, which is too many '
            f'to leave out:\n{told(bad)}'
        )
