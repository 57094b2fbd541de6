"""Rows of CSV, TSV, JSONL and Parquet files, with where each stands."""

import codecs
import collections
import csv
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tljax.data.own import encodings
from tljax.errors import RunError, UserError, nearest

KINDS = {
    '.csv': 'csv',
    '.tsv': 'csv',
    '.tab': 'csv',
    '.txt': 'csv',
    '.jsonl': 'jsonl',
    '.ndjson': 'jsonl',
    '.parquet': 'parquet',
    '.pq': 'parquet',
}
OPEN = 'unclear quotation marks: one is opened, and closed nowhere that a field may end'


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One row of a file: values of the wanted columns, or why it has none."""

    where: str
    values: tuple[Any, ...] = ()
    bad: str = ''


@dataclasses.dataclass(frozen=True)
class Format:
    """How a file is to be read.

    Attributes:
      encoding: '' finds it.
      delimiter: of CSV; '' finds it.
      quoting: of `csv`.
    """

    encoding: str = ''
    delimiter: str = ''
    quoting: encodings.Quoting = csv.QUOTE_MINIMAL


def kind_of(path: Path) -> str:
    """'csv', 'jsonl' or 'parquet', by the name of the file.

    Raises:
      UserError: another.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise UserError(
            f'config.data.dir={path} is no table that can be read: known are {" ".join(KINDS)}.'
        )
    return kind


def records(
    path: Path, columns: Sequence[str], encoding: str = '', delimiter: str = ''
) -> tuple[Iterator[Record], list[str]]:
    """The rows of a file, one after the other, and notes on what was guessed.

    Args:
      path: of the file.
      columns: that are wanted, with the config key each is from as 'key=NAME'. '#0' is the first
        column of a file without a header.
      encoding: '' finds it.
      delimiter: of CSV; '' finds it.

    Raises:
      UserError: it cannot be read, or has no such columns.
      RunError: it is damaged.
    """
    names = [column.partition('=')[2] for column in columns]
    if len(delimiter) > 1 or delimiter in ('"', '\n', '\r'):
        raise UserError(
            f'config.data.delimiter is {delimiter!r}; it takes one character between fields, or '
            "'' to have it found."
        )
    try:
        kind = kind_of(path)
        if kind == 'parquet':
            return _parquet(path, columns, names), []
        notes = []
        if encoding:
            encoding = encodings.with_mark(path, codecs.lookup(encoding).name)
        else:
            encoding, note = encodings.encoding_of(path)
            notes += [note] if note else []
        ''.encode(encoding)
        if kind == 'jsonl':
            return _decoded(path, encoding, _jsonl(path, names, encoding)), notes
        delimiter, quoting = encodings.dialect_of(path, encoding, delimiter, names)
        form = Format(encoding, delimiter, quoting)
        return _decoded(path, encoding, _csv(path, columns, names, form)), notes
    except OSError as error:
        raise UserError(f'config.data.dir={path} cannot be read: {error.strerror}.') from None
    except UnicodeError as error:
        raise _no_such_encoding(path, encoding, error) from None
    except LookupError:
        raise UserError(f'config.data.encoding: there is no encoding {encoding!r}.') from None


def _decoded(path: Path, encoding: str, rows: Iterator[Record]) -> Iterator[Record]:
    """The rows, as long as their bytes can be what the encoding makes of characters."""
    try:
        yield from rows
    except UnicodeError as error:  # of UTF-16 and the like no single byte can be left out
        raise _no_such_encoding(path, encoding, error) from None


def _no_such_encoding(path: Path, encoding: str, error: UnicodeError) -> UserError:
    return UserError(
        f'config.data.encoding: {path} is no {encoding} throughout: {error}. Set it to the '
        'encoding of the file, or save the file as UTF-8.'
    )


def _csv(
    path: Path, columns: Sequence[str], names: Sequence[str], form: Format
) -> Iterator[Record]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding=form.encoding, errors='surrogateescape', newline='') as file:
        lines = Lines(file)
        reader = csv.reader(lines, delimiter=form.delimiter, quoting=form.quoting)
        header = None
        first = 1
        try:
            for row in reader:
                first, held = lines.taken()
                if not row:
                    continue
                if header is None:
                    header, named = header_of(row, names)
                    places = places_of(path, columns, header)
                    if named:
                        continue
                # Or one mark too many would swallow all rows up to the next one, or to the end.
                if len(held) > 1 and not encodings.is_strict(''.join(held), form.delimiter):
                    lines.put_back(held[1:])
                    yield Record(f'{path.name}:{first}', bad=OPEN)
                    continue
                yield _record(f'{path.name}:{first}', row, places, len(header), form.encoding)
        except csv.Error as error:
            raise RunError(f'{path}:{first}: {error}.') from None


class Lines:
    """The lines of a file; some may be put back, to be read once more."""

    def __init__(self, file: Iterable[str]):
        self._file, self._back = iter(file), collections.deque[str]()
        self._held: list[str] = []
        self._first = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._file)
        self._held.append(line)
        return line

    def taken(self) -> tuple[int, list[str]]:
        """The lines since the last call, and the number of the first."""
        first, held = self._first, self._held
        self._first, self._held = first + len(held), []
        return first, held

    def put_back(self, lines: Sequence[str]) -> None:
        """What was taken last, or the end of it, comes next again."""
        self._back.extendleft(reversed(lines))
        self._first -= len(lines)


def header_of(row: Sequence[str], names: Sequence[str]) -> tuple[list[str], bool]:
    """Names of the columns, and whether the first row is their header.

    >>> header_of(['text', 'label'], ['label'])
    (['text', 'label'], True)
    >>> header_of(['hello', 'spam'], ['#1', '#0'])
    (['#0', '#1'], False)
    """
    if names and all(name.startswith('#') and name[1:].isdigit() for name in names):
        return [f'#{place}' for place in range(len(row))], False
    return [name.strip() for name in row], True


def places_of(path: Path, columns: Sequence[str], header: Sequence[str]) -> list[int]:
    """Where each wanted column is.

    Raises:
      UserError: names the columns that there are.
    """
    places = []
    for column in columns:
        key, _, name = column.partition('=')
        if name not in header:
            raise UserError(
                f'config.data.{key}={name!r}: {path.name} has no such column.'
                f'{nearest(name, [h for h in header if h])}'
            )
        if (count := list(header).count(name)) > 1:
            raise UserError(
                f'config.data.{key}={name!r}: {path.name} has {count} such columns. Rename all but '
                'the one that is meant.'
            )
        places.append(list(header).index(name))
    return places


def _record(
    where: str, row: Sequence[str], places: Sequence[int], width: int, encoding: str
) -> Record:
    if len(row) != width:
        return Record(where, bad=f'ragged: it has {len(row)} fields, not {width}')
    values = tuple(row[place] for place in places)
    if any(_is_odd(value) for value in values):
        return Record(where, bad=f'wrong encoding: its bytes are no {encoding}')
    return Record(where, values)


def _is_odd(value: Any) -> bool:
    """Whether a text has bytes that could not be decoded (or lone surrogates)."""
    if not isinstance(value, str) or value.isascii():
        return False
    return any('\ud800' <= character <= '\udfff' for character in value)


def _jsonl(path: Path, names: Sequence[str], encoding: str) -> Iterator[Record]:
    with path.open(encoding=encoding, errors='surrogateescape') as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f'{path.name}:{number}'
            if _is_odd(line):
                yield Record(where, bad=f'wrong encoding: its bytes are no {encoding}')
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                yield Record(where, bad=f'no JSON: {error}')
                continue
            except RecursionError:
                yield Record(where, bad='no JSON: it is nested too deeply')
                continue
            missing = [name for name in names if not isinstance(found, dict) or name not in found]
            if missing:
                yield Record(where, bad=f'ragged: it has no {", ".join(missing)}')
            elif any(_is_odd(found[name]) for name in names):
                yield Record(where, bad='wrong encoding: it has half a character')
            else:
                yield Record(where, tuple(found[name] for name in names))


def _parquet(path: Path, columns: Sequence[str], names: Sequence[str]) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise RunError(f'{path} is damaged, or no Parquet file: {error}.') from None
    places_of(path, columns, file.schema_arrow.names)
    number = 0
    try:
        for batch in file.iter_batches(columns=list(dict.fromkeys(names))):
            lists = {name: _values(batch.column(name)) for name in set(names)}
            for row in range(batch.num_rows):
                number += 1
                where, values = f'{path.name}:row {number}', [lists[name][row] for name in names]
                if any(map(_is_odd, values)):
                    yield Record(where, bad='wrong encoding: its bytes are no utf-8')
                else:
                    yield Record(where, tuple(values))
    except (OSError, pyarrow.ArrowException) as error:
        raise RunError(f'{path} is damaged behind row {number}: {error}.') from None


def _values(column: Any) -> list[Any]:
    """The values of a column of a Parquet file; of texts that are no UTF-8 some are odd."""
    import pyarrow

    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        if pyarrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        stored = column.cast(pyarrow.large_binary()).to_pylist()
        return [v if v is None else v.decode('utf-8', 'surrogateescape') for v in stored]
