"""In which encoding and dialect a text file was written."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tljax.errors import UserError

BOMS = (
    (b'\xef\xbb\xbf', 'utf-8-sig'),
    (b'\xff\xfe\x00\x00', 'utf-32'),
    (b'\x00\x00\xfe\xff', 'utf-32'),
    (b'\xff\xfe', 'utf-16'),
    (b'\xfe\xff', 'utf-16'),
)
# Which of the first four bytes are not 0 in UTF-16 without a mark, if these are ASCII characters.
SIDES = {b'\1\0\1\0': 'utf-16-le', b'\0\1\0\1': 'utf-16-be'}
DELIMITERS = (',', '\t', ';', '|')
Quoting = Literal[0, 1, 2, 3]
SAMPLE = 2**20  # bytes or characters that a guess is made from


def encoding_of(path: Path) -> tuple[str, str]:
    """The encoding of a text file, and a sentence if it was guessed.

    A byte-order mark decides; else it is UTF-8 if most lines that are not ASCII are UTF-8 (those
    that aren't are bad rows then); else charset-normalizer guesses from these lines.

    Raises:
      UserError: it cannot be told.
    """
    with path.open('rb') as file:
        start = file.read(4)
        for mark, name in BOMS:
            if start.startswith(mark):
                return name, ''
        if name := SIDES.get(bytes(map(bool, start)), ''):
            return name, _note(path, name)
        file.seek(0)
        right = wrong = 0
        odd: list[bytes] = []
        size = 0
        for line in file:
            if line.isascii():
                continue
            try:
                line.decode('utf-8')
                right += 1
            except UnicodeDecodeError:
                wrong += 1
            if size < SAMPLE:
                odd.append(line)
                size += len(line)
    if right >= wrong:
        return 'utf-8', ''
    return _guessed(path, b''.join(odd))


def _guessed(path: Path, sample: bytes) -> tuple[str, str]:
    from charset_normalizer import from_bytes

    # Windows-1252 first: a few accents in English are too little to tell its relatives apart.
    found = from_bytes(sample, cp_isolation=['cp1252']).best() or from_bytes(sample).best()
    if found is None:
        raise UserError(
            f'{path}: its encoding cannot be told. Set config.data.encoding, such as cp1252.'
        )
    return found.encoding, _note(path, found.encoding)


def _note(path: Path, name: str) -> str:
    return f'{path.name} is no UTF-8; its encoding was guessed to be {name} (config.data.encoding).'


def with_mark(path: Path, encoding: str) -> str:
    """The encoding that is asked for; of UTF-8 the one that skips a byte-order mark."""
    with path.open('rb') as file:
        marked = file.read(3) == codecs.BOM_UTF8
    return 'utf-8-sig' if marked and encoding == 'utf-8' else encoding


def dialect_of(
    path: Path, encoding: str, delimiter: str, wanted: Sequence[str]
) -> tuple[str, Quoting]:
    """The delimiter of a CSV file, and whether quotation marks mean anything.

    Args:
      path: of the file.
      encoding: of it.
      delimiter: '' finds it: that whose header has the most of the wanted columns, then the most
        columns in most rows; of a single column one that the rows don't have.
      wanted: names of columns.

    Returns:
      The delimiter, and csv.QUOTE_MINIMAL or csv.QUOTE_NONE: the one with fewer ragged rows.
    """
    with path.open(encoding=encoding, errors='surrogateescape', newline='') as file:
        sample = file.read(SAMPLE)
    choices = (delimiter,) if delimiter else DELIMITERS
    if not delimiter and path.suffix.lower() in ('.tsv', '.tab'):
        choices = ('\t',)

    cut = len(sample) == SAMPLE

    def fit(choice: tuple[str, Quoting]) -> tuple:
        one, quoting = choice
        text = io.StringIO(sample, newline='')
        rows = [row for row in csv.reader(text, delimiter=one, quoting=quoting) if row]
        rows = rows[: -1 if cut else None]
        if not rows:
            return (0, False, 0.0, 0, 0, 0.0)
        width = len(rows[0])
        alike = sum(len(row) == width for row in rows) / len(rows)
        even = alike if width > 1 else 0.0
        clean = quoting == csv.QUOTE_MINIMAL and is_strict(sample, one, cut)
        # Unclean marks that join lines are apostrophes or inches: then more rows are right.
        return (len(set(wanted) & set(rows[0])), clean, even, width, len(rows), alike)

    kinds: tuple[Quoting, Quoting] = (csv.QUOTE_MINIMAL, csv.QUOTE_NONE)
    options = [(one, quoting) for one in choices for quoting in kinds]
    return max(options, key=fit)


def is_strict(sample: str, delimiter: str, cut: bool = False) -> bool:
    """Whether all quotation marks are where CSV (RFC 4180) has them."""
    try:
        for _ in csv.reader(io.StringIO(sample, newline=''), delimiter=delimiter, strict=True):
            pass
    except csv.Error as error:
        return cut and 'unexpected end' in str(error)
    return True
