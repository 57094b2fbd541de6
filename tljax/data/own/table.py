"""`config.data.name='table'`: rows of CSV, TSV, JSONL and Parquet files."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tljax.data.own import prepare
from tljax.data.own.files import KINDS, kind_of, records
from tljax.data.own.folder import files_ready
from tljax.data.own.listing import SPLITS
from tljax.data.own.rows import Ready, Row
from tljax.errors import UserError

CONTENT = ('text', 'text_b', 'image', 'audio')
COLUMNS = (*CONTENT, 'label', 'group', 'split')


@dataclasses.dataclass
class Rows:
    """The rows of all files: those that have what they need, with their texts, and the others."""

    rows: list[Row] = dataclasses.field(default_factory=list)
    texts: list[dict[str, str]] = dataclasses.field(default_factory=list)
    never: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def open_table(config: Any) -> Any:
    """The TFDS builder of a table of the user's, prepared on the first call.

    `config.data.dir` is a file, or a folder with one for each split (train.csv, test.csv). Its
    examples have 'text', 'text_b', 'image' or 'audio', and 'label' where that is a column.

    Args:
      config: the section `config.data`.

    Raises:
      UserError: no such file or columns, and as for `prepare.prepare`.
    """
    path = Path(config.dir).expanduser()
    kind = content_of(config)
    files = files_of(path)
    stats = [(str(file.resolve()), *stat_of(file)) for file, _ in files]
    # The files that a table names may change, and it does not.
    named = None if kind == 'text' else stamped(read(config, files), files[0][0].parent)
    stamp = prepare.stamp_of(config, named.rows if named else (), stats)

    def ready(kept: Path) -> Ready:
        found = named or read(config, files)
        more = dict(never=found.never, notes=found.notes, labelled=bool(config.label))
        if kind == 'text':
            return texts_ready(found, more)
        return files_ready(config, files[0][0].parent, found.rows, kind, kept, **more)

    return prepare.prepare(config, stamp, ready)


def stat_of(file: Path) -> tuple[int, int]:
    """Its size, and nanoseconds of its last change."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def stamped(found: Rows, folder: Path) -> Rows:
    """The rows with size and time of change of the files that they name; 0 of those without."""
    rows = []
    for row in found.rows:
        try:
            rows.append(dataclasses.replace(row, stamp=stat_of(folder / row.file)))
        except (OSError, ValueError):  # which opening it will tell
            rows.append(row)
    return dataclasses.replace(found, rows=rows)


def content_of(config: Any) -> str:
    """'text', 'image' or 'audio': which content the columns are of.

    Raises:
      UserError: none or several, or a label that is needed is missing.
    """
    kinds = [key for key in ('text', 'image', 'audio') if config[key]]
    if len(kinds) != 1 or (config.text_b and not config.text):
        raise UserError(
            'config.data: name the column of what is to be classified: data.text (and data.text_b '
            f'where there are two), data.image or data.audio; {", ".join(kinds) or "none"} is set.'
        )
    if not config.label and kinds != ['text']:
        raise UserError(
            f'config.data.label is empty: name the column of the labels in {config.dir}.'
        )
    return kinds[0]


def files_of(path: Path) -> list[tuple[Path, str]]:
    """Files and the split of each, '' for a single one.

    Raises:
      UserError: no such file, or a folder without one for training.
    """
    if path.is_file():
        kind_of(path)
        return [(path, '')]
    if not path.is_dir():
        raise UserError(f'config.data.dir={path} does not exist. Set it to your table.')
    known = [file for file in sorted(path.iterdir()) if file.suffix.lower() in KINDS]
    files = [(f, SPLITS[f.stem.lower()]) for f in known if f.stem.lower() in SPLITS]
    splits = [split for _, split in files]
    if 'train' not in splits or len(set(splits)) < len(splits):
        raise UserError(
            f'config.data.dir={path} is a folder, which needs one file for each split: train.csv '
            'and, where you have them, validation.csv and test.csv (or .tsv, .jsonl, .parquet). '
            f'It has {", ".join(file.name for file in known[:5]) or "no table"}.'
        )
    return files


def read(config: Any, files: Sequence[tuple[Path, str]]) -> Rows:
    """Reads all rows; what is wrong with one is told, with its file and line.

    Raises:
      UserError: as for `files.records`.
    """
    columns = {key: config[key] for key in COLUMNS if config[key]}
    found = Rows()
    for path, split in files:
        asked = [f'{key}={name}' for key, name in columns.items()]
        lines, notes = records(path, asked, config.encoding, config.delimiter)
        found.notes += notes
        for line in lines:
            values = dict(zip(columns, map(plain, line.values), strict=bool(line.values)))
            why = line.bad or several(columns, line.values) or flaw(values)
            if why:
                found.never.append((line.where, why))
                continue
            found.rows.append(
                Row(
                    line.where,
                    values.get('label', ''),
                    split or SPLITS.get(values.get('split', '').lower(), ''),
                    values.get('group', ''),
                    path=values.get('image', '') or values.get('audio', ''),
                )
            )
            if 'text' in values:
                found.texts.append(
                    {key: values[key] for key in ('text', 'text_b') if key in values}
                )
    return found


def plain(value: Any) -> str:
    """A value of a column as text: 3.0 is '3', None is ''.

    >>> plain(3.0), plain(True), plain(None), plain(' a '), plain(b'a')
    ('3', 'true', '', 'a', 'a')
    """
    if value is None:
        return ''
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value != value:
            return ''
        if value.is_integer():
            return str(int(value))
    if isinstance(value, bytes):
        return value.decode('utf-8', 'replace').strip()
    return str(value).strip()


def several(keys: Iterable[str], values: Iterable[Any]) -> str:
    """Which value of a row is several, as labels of one example may be; '' if none.

    >>> several(['text', 'label'], ['a', ['b', 'c']])
    'no single value: its label is a list'
    """
    for key, value in zip(keys, values, strict=False):
        if isinstance(value, list | dict):
            return f'no single value: its {key} is a {type(value).__name__}'
    return ''


def flaw(values: dict[str, str]) -> str:
    """What a row lacks; '' if nothing."""
    for key in CONTENT:
        if key in values and not values[key]:
            return f'empty {key}'
    for key in ('label', 'group'):
        if key in values and not values[key]:
            return f'no {key}'
    if 'split' in values and values['split'].lower() not in SPLITS:
        return f'unknown split: {values["split"]!r}'
    return ''


def texts_ready(found: Rows, more: dict[str, Any]) -> Ready:
    """Rows of texts."""
    import tensorflow_datasets as tfds

    keys = found.texts[0].keys() if found.texts else ('text',)
    return Ready(
        rows=found.rows,
        bad=[''] * len(found.rows),
        digests=[
            hashlib.sha256('\0'.join(texts.values()).encode()).hexdigest() for texts in found.texts
        ],
        features={key: tfds.features.Text() for key in keys},
        example=lambda index: dict(found.texts[index]),
        **more,
    )
