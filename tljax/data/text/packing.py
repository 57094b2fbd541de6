"""Documents packed into sequences of one length, from which a model learns the next word.

No document looks into another: 'segments' tell them apart, and positions begin anew in each.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from tljax.data.forms import AT_ONCE
from tljax.data.split import Records
from tljax.data.text.form import text_of
from tljax.data.text.tokenizer import Tokenizer

LOGITS = 2**24  # that an evaluation holds at a time: 64 MiB
PARTS = ('tokens', 'segments', 'positions', 'words')


@dataclasses.dataclass(frozen=True)
class PackedForm:
    """Sequences of tokens for language modelling.

    'tokens'; 'segments', 1, 2, ... by document and 0 at padding; 'positions', counted anew in
    each segment; 'words', 1, 2, ... by word of the sequence and 0 between words, at what has no
    token before it, and at padding: (length,) int32 each.

    Attributes:
      tokenizer: its start token stands before every document.
      length: tokens a sequence.
    """

    tokenizer: Tokenizer
    length: int

    columns: ClassVar[tuple[str, ...]] = ('text',)
    buckets: ClassVar[None] = None  # its sequences are full

    @property
    def at_once(self) -> int:
        """So many sequences as have no more than `LOGITS` outputs together, one at least."""
        return min(AT_ONCE, max(LOGITS // (self.length * self.tokenizer.vocabulary), 1))

    @property
    def parts(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of each array."""
        return {name: jax.ShapeDtypeStruct((self.length,), np.int32) for name in PARTS}

    def read(self, stored: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The first sequence of a text alone, (length,) each."""
        return {name: rows[0] for name, rows in self.packed([text_of(stored['text'])]).items()}

    def packed(self, documents: Iterable[str]) -> dict[str, np.ndarray]:
        """All documents in their order, (sequences, length) each; see `pieces`."""
        library, start, pad = self.tokenizer.made(), self.tokenizer.start, self.tokenizer.pad
        sequences: list[dict[str, list[int]]] = []
        for text in documents:
            tokens, words = tokenized(library, text)
            for piece in pieces(words, self.length - 1):
                before = tokens[piece.start - 1] if piece.start else start
                room = self.length - len(sequences[-1]['tokens']) if sequences else 0
                if room < piece.stop - piece.start + 1:
                    sequences.append({name: [] for name in PARTS})
                append(sequences[-1], [before, *tokens[piece]], [0, *words[piece]])
        rest = {'tokens': pad}
        return {
            name: np.array(
                [s[name] + [rest.get(name, 0)] * (self.length - len(s[name])) for s in sequences],
                np.int32,
            ).reshape(-1, self.length)
            for name in PARTS
        }


def append(sequence: dict[str, list[int]], tokens: list[int], words: list[int]) -> None:
    """Puts a piece of a document at the end of a sequence, as a segment of its own."""
    segment = max(sequence['segments'], default=0) + 1
    known = max(sequence['words'], default=0)
    numbers = {word: known + n for n, word in enumerate(dict.fromkeys(filter(None, words)), 1)}
    sequence['tokens'] += tokens
    sequence['segments'] += [segment] * len(tokens)
    sequence['positions'] += range(len(tokens))
    sequence['words'] += [numbers.get(word, 0) for word in words]


def tokenized(library: Any, text: str) -> tuple[list[int], list[int]]:
    """The tokens of a document, and the word of each: 1, 2, ..., or 0 for white space alone.

    A word is what stands between white space, punctuation included.
    """
    encoded = library.encode(text, add_special_tokens=False)
    word_of = np.zeros(len(text) + 1, np.int64)
    for number, match in enumerate(re.finditer(r'\S+', text), 1):
        word_of[match.start() : match.end()] = number
    words = [int(word_of[first:last].max(initial=0)) for first, last in encoded.offsets]
    return encoded.ids, words


def pieces(words: list[int], most: int) -> Iterator[slice]:
    """Cuts a document into pieces of at most so many tokens, between words where it can.

    >>> [(p.start, p.stop) for p in pieces([1, 1, 2, 2, 2, 3], 4)]
    [(0, 2), (2, 6)]
    """
    first = 0
    while first < len(words):
        last = min(first + most, len(words))
        if last < len(words):
            cut = last
            while cut > first and words[cut] and words[cut] == words[cut - 1]:
                cut -= 1
            last = cut if cut > first else last
        yield slice(first, last)
        first = last


@dataclasses.dataclass(frozen=True, eq=False)
class Packed(Records):
    """The sequences of some documents of a TFDS split; a row is a sequence.

    Attributes:
      documents: which rows of the split, ascending; None is all. They are held in memory.
    """

    documents: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._sequences['tokens'])

    @property
    def sources(self) -> np.ndarray:
        """The rows of the TFDS split whose documents these are, ascending."""
        return np.arange(len(self._raw)) if self.documents is None else self.documents

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """There are none: zeros."""
        return np.zeros(len(self), np.int32)

    def example(self, row: int) -> tuple[dict[str, np.ndarray], int]:
        """One sequence."""
        return {name: array[row] for name, array in self._sequences.items()}, 0

    def decoded(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Many sequences."""
        return {name: array[rows] for name, array in self._sequences.items()}

    @functools.cached_property
    def _sequences(self) -> dict[str, np.ndarray]:
        wanted = None if self.documents is None else set(self.documents.tolist())
        texts = (
            text_of(stored['text'])
            for row, stored in enumerate(self.stored('text'))
            if wanted is None or row in wanted
        )
        return self.form.packed(texts)
