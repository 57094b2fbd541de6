"""Tokenizers: read from files beside a source's weights, or trained on a set's own texts."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tljax.errors import UserError

PAD, FIRST, LAST = '[PAD]', '[CLS]', '[SEP]'
STARTS = ('<|endoftext|>', FIRST, '<s>')  # what stands before the first word of a document
PADS = (PAD, '<pad>')
FILES = ('tokenizer.json', 'vocab.txt', 'vocab.json')
LEAST = 259  # one token a byte, and the three above


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as a value: two of equal text are equal.

    Attributes:
      text: of its tokenizer.json.
      vocabulary: how many tokens a model needs for it, at least.
    """

    text: str = dataclasses.field(repr=False)
    vocabulary: int

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal sha256."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def made(self) -> Any:
        """A new `tokenizers.Tokenizer` that neither cuts nor pads."""
        from tokenizers import Tokenizer as Library

        made = Library.from_str(self.text)
        made.no_truncation()
        made.no_padding()
        return made

    def first_of(self, names: Iterable[str], otherwise: int = 0) -> int:
        """The number of the first of these tokens that it has."""
        ids = map(self._library.token_to_id, names)
        return next((number for number in ids if number is not None), otherwise)

    @property
    def start(self) -> int:
        """The token in front of a document."""
        return self.first_of(STARTS)

    @property
    def pad(self) -> int:
        """The token in the place of none; masks tell where it means that."""
        return self.first_of(PADS)

    @functools.cached_property
    def _library(self) -> Any:
        return self.made()


def trained(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level byte-pair encoding (Radford et al. 2019, section 2.2), trained on texts.

    Args:
      texts: of the corpus.
      vocabulary: tokens at most, `LEAST` or more: one a byte, three special ones, merges.

    Raises:
      UserError: a vocabulary too small for the bytes.

    >>> tokenizer = trained(['the cat and the hat'] * 3, 300)
    >>> tokenizer.made().encode('the hat').tokens
    ['[CLS]', 'the', 'Ġhat', '[SEP]']
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    if vocabulary < LEAST:
        raise UserError(
            f'config.data.tokenizer: bpe({vocabulary}) is too small; every byte needs a token, so '
            f'{LEAST} is the least.'
        )
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, FIRST, LAST],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    library.post_processor = processors.TemplateProcessing(
        single=f'{FIRST} $A {LAST}',
        pair=f'{FIRST} $A {LAST} $B:1 {LAST}:1',
        special_tokens=[(FIRST, 1), (LAST, 2)],
    )
    return Tokenizer(library.to_str(), vocabulary)


def read(path: Path) -> Tokenizer:
    """A tokenizer from its file, or from the folder that holds it.

    Args:
      path: tokenizer.json; vocab.txt (WordPiece, as of BERT); vocab.json, with merges.txt beside
        it (as of GPT-2); or a folder with one of these.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    if path.is_dir():
        path = next((path / name for name in FILES if (path / name).exists()), path)
    if not path.is_file():
        raise UserError(
            f'config.data.tokenizer: there is no tokenizer at {path}. It takes tokenizer.json, '
            "vocab.txt, vocab.json beside merges.txt, a folder with one of these, 'bpe(N)', or "
            "'config:FILE:ARG' for that of another recipe."
        )
    try:
        library = library_of(path)
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f'config.data.tokenizer: {path} cannot be read: {error}.') from None
    return Tokenizer(library.to_str(), library.get_vocab_size())


def library_of(path: Path) -> Any:
    """The library's tokenizer of a file."""
    from tokenizers import Tokenizer as Library

    if path.name == 'vocab.txt':
        from tokenizers.implementations import BertWordPieceTokenizer

        about = path.with_name('tokenizer_config.json')
        told = json.loads(about.read_text(encoding='utf-8')) if about.exists() else {}
        return BertWordPieceTokenizer(str(path), lowercase=bool(told.get('do_lower_case', True)))
    if path.name == 'vocab.json':
        from tokenizers.implementations import ByteLevelBPETokenizer

        return ByteLevelBPETokenizer(str(path), str(path.with_name('merges.txt')))
    return Library.from_file(str(path))


def beside(weights: Path) -> Path | None:
    """The tokenizer's file in the folder of a source's weights, or None."""
    folder = weights if weights.is_dir() else weights.parent
    return next((folder / name for name in FILES if (folder / name).is_file()), None)
