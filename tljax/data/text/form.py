"""The form of texts that have one label each: tokens, cut or padded to one length."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from tljax.data.buckets import Buckets, halved
from tljax.data.forms import AT_ONCE
from tljax.data.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class TextForm:
    """How a text, or a pair of them, becomes tokens.

    Attributes:
      tokenizer: its special tokens around the text are those that it says itself.
      length: tokens an example; longer texts are cut at their end, shorter ones padded there.
      columns: ('text',) or ('text', 'text_b').
      lengths: that batches may be cut to, `length` and its halves; so many at most.
    """

    tokenizer: Tokenizer
    length: int
    columns: tuple[str, ...] = ('text',)
    lengths: int = 0

    at_once: ClassVar[int] = AT_ONCE

    @property
    def parts(self) -> dict[str, jax.ShapeDtypeStruct]:
        """'tokens', 'mask' (0 at padding), and of pairs 'types' (0 or 1): (length,) int32 each."""
        names = ('tokens', 'mask', 'types')[: 1 + len(self.columns)]
        return {name: jax.ShapeDtypeStruct((self.length,), np.int32) for name in names}

    @property
    def buckets(self) -> Buckets | None:
        """The lengths; None where there is one only."""
        sizes = halved(self.length, self.lengths)
        return Buckets(sizes, tuple(self.parts)) if len(sizes) > 1 else None

    def read(self, stored: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The parts of one example, whose columns are UTF-8 or str.

        >>> from tljax.data.text.tokenizer import trained
        >>> form = TextForm(trained(['the cat'], 300), 6)
        >>> example = form.read({'text': b'the cat'})
        >>> example['tokens'].tolist(), example['mask'].tolist()
        ([1, 262, 263, 2, 0, 0], [1, 1, 1, 1, 0, 0])
        """
        encoded = self._library.encode(*(text_of(stored[name]) for name in self.columns))
        kinds = {
            'tokens': (encoded.ids, self.tokenizer.pad),
            'mask': (encoded.attention_mask, 0),
            'types': (encoded.type_ids, 0),
        }
        read = {}
        for name in self.parts:
            values, rest = kinds[name]
            read[name] = np.full(self.length, rest, np.int32)
            read[name][: len(values)] = values
        return read

    def texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Texts of a user's, for predictions: (len(texts), length) each; nothing is a pair."""
        rows = [self.read({**dict.fromkeys(self.columns, ''), 'text': text}) for text in texts]
        return {name: np.stack([row[name] for row in rows]) for name in self.parts}

    @functools.cached_property
    def _library(self) -> Any:
        made = self.tokenizer.made()
        made.enable_truncation(self.length)
        return made


def text_of(value: Any) -> str:
    """A stored text, whose bytes may be damaged."""
    return value.decode('utf-8', 'replace') if isinstance(value, bytes) else str(value)
