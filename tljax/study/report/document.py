"""What a report consists of, before it is turned into HTML or Markdown.

All text in here is plain: the writers escape it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """One paragraph of text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list, one line an item."""

    items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Code:
    """Text to be shown as it is, such as a command.

    Attributes:
      label: what it is, for a reader who can't see it.
      text: the lines.
    """

    label: str
    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
      caption: what it shows.
      head: one name a column.
      rows: cells, as many in each as in the head; further lines of a cell are notes on it.
      numbers: columns set to the right.
      code: columns of paths and the like.
      prose: columns of sentences, which a narrow page must not squeeze.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    code: tuple[int, ...] = ()
    prose: tuple[int, ...] = ()

    def __post_init__(self):
        wrong = [row for row in self.rows if len(row) != len(self.head)]
        if wrong:
            raise ValueError(f'{self.caption}: {len(self.head)} columns, but the row {wrong[0]}')


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that the writers are given by name.

    Attributes:
      name: `learning_curves` or `paired_finals`.
      alt: what it shows, with the numbers, for a reader who can't see it.
      caption: how to read it.
    """

    name: str
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Fold:
    """Blocks that a page shows when asked for, and print shows always."""

    summary: str
    blocks: tuple['Block', ...]


Block = Paragraph | Bullets | Code | Table | Picture | Fold


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question of a comparison, its answer in a word or two, and the numbers behind it."""

    question: str
    answer: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
      title: of the study.
      question: that it asked.
      verdict: helpful, harmful, equivalent or undecided.
      sentence: the verdict in one sentence.
      meaning: paragraphs on what the verdict means, and what it doesn't.
      answers: the comparison at a glance.
      sections: everything else.
    """

    title: str
    question: str
    verdict: str
    sentence: str
    meaning: tuple[str, ...]
    answers: tuple[Answer, ...]
    sections: tuple[Section, ...]
