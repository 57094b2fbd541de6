"""What a set of the user's consists of, before it is prepared."""

import dataclasses


class BadRow(ValueError):
    """A row that cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of the user's data.

    Attributes:
      where: what a person would look it up by: a path within the folder, or FILE:LINE.
      label: as it stands there.
      split: 'train', 'validation' or 'test', or '' where the user makes none.
      group: rows of one group stay in one split; '' is a group of its own.
      stamp: size and time of change of its file, which tell whether it was examined before.
    """

    where: str
    label: str
    split: str = ''
    group: str = ''
    stamp: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True)
class Listing:
    """Everything that was found, before any of it was opened.

    Attributes:
      kind: 'image', 'audio' or 'text'.
      rows: in an order that depends on names alone.
      bad: (where, why) of what cannot be a row.
      ignored: what else lies there, by kind of file: how many.
    """

    kind: str
    rows: list[Row]
    bad: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    ignored: dict[str, int] = dataclasses.field(default_factory=dict)
