"""What a set of the user's consists of, before it is prepared."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class BadRow(ValueError):
    """A row that cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of the user's data.

    Attributes:
      where: what a person would look it up by: a path within the folder, or FILE:LINE.
      label: as it stands there, but in one line: TFDS keeps names of classes a line each.
      split: 'train', 'validation' or 'test', or '' where the user makes none.
      group: rows of one group stay in one split; '' is a group of its own.
      stamp: size and time of change of its file, which tell whether it was examined before.
      path: of the file, where that is not `where`.
    """

    where: str
    label: str
    split: str = ''
    group: str = ''
    stamp: tuple[int, int] = (0, 0)
    path: str = ''

    def __post_init__(self):
        object.__setattr__(self, 'label', ' '.join(self.label.split()))

    @property
    def file(self) -> str:
        """The file that holds its content."""
        return self.path or self.where


@dataclasses.dataclass(frozen=True)
class Listing:
    """Everything that was found, before any of it was opened.

    Attributes:
      kind: 'image', 'audio' or 'text'.
      rows: in an order that depends on names alone.
      bad: (where, why) of what cannot be a row.
      ignored: what else lies there, by kind of file: how many.
      notes: what else should be known.
    """

    kind: str
    rows: list[Row]
    bad: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    ignored: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Ready:
    """Rows that were examined, and how their examples are made.

    Attributes:
      rows: that could be opened, or not.
      bad: why a row cannot be used; '' if it can.
      digests: of the rows' content: equal where the content is.
      features: of an example, but for 'label' and 'where'.
      example: row number -> those features' values.
      notes: what else should be known.
      never: (where, why) of what never became a row.
      ignored: other files, by suffix: how many.
      labelled: whether rows have labels.
      rate: of sounds, samples a second.
    """

    rows: Sequence[Row]
    bad: Sequence[str]
    digests: Sequence[str]
    features: Mapping[str, Any]
    example: Callable[[int], dict[str, Any]]
    notes: Sequence[str] = ()
    never: Sequence[tuple[str, str]] = ()
    ignored: Mapping[str, int] = dataclasses.field(default_factory=dict)
    labelled: bool = True
    rate: int = 0
