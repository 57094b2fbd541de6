"""A report on disk: its numbers, its Markdown, its page; and tables for a terminal."""

import errno
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tljax.errors import RunError, UserError
from tljax.study.report import markdown, page
from tljax.study.report.document import Document

Results = Mapping[str, Any]
Draw = Callable[[Results, str], bytes]


def write(
    results: Results,
    directory: str | os.PathLike[str],
    document: Callable[[Results], Document],
    pictures: Callable[[Results], Mapping[str, Draw]] = lambda results: {},
) -> Path:
    """Writes a report, each file whole or not at all: results.json, report.md, index.html.

    Args:
      results: the content of results.json.
      directory: made if it isn't there; an earlier report in it is replaced.
      document: makes the report of the results.
      pictures: says what it shows, by name: each draws the results as 'png' or 'svg'.

    Returns:
      The path of index.html.

    Raises:
      UserError: the directory can't be written.
      RunError: a number isn't finite or a value has no JSON form (nothing is written), or the
        disk is full.
    """
    directory = Path(directory)
    content = plain(results)
    # First what took the computing: should a picture fail, the numbers are kept.
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    _write_all(directory, {'results.json': text.encode()})
    made, drawn = document(content), pictures(content)
    files = {f'{name}.png': draw(content, 'png') for name, draw in drawn.items()}
    files['report.md'] = markdown.markdown(made, {n: f'{n}.png' for n in drawn}).encode()
    inside = {name: draw(content, 'svg') for name, draw in drawn.items()}
    files['index.html'] = page.html(made, inside).encode()
    _write_all(directory, files)
    return directory / 'index.html'


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines whose cells stand below one another.

    >>> columns([['a', 'b'], ['long', 'c']])
    ['a     b', 'long  c']
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def plain(value: Any, path: str = 'results') -> Any:
    """A copy of plain JSON types: numpy scalars and arrays, tuples and paths are converted.

    Raises:
      RunError: a number isn't finite, or a value has no JSON form; says where it stands.

    >>> plain({'lr': (0.1, 0.2)})
    {'lr': [0.1, 0.2]}
    """
    if hasattr(value, 'tolist'):  # numpy and jax arrays and scalars, without importing either
        value = value.tolist()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RunError(
                f'{path} is {value}: a report holds finite numbers only. '
                'Give None, and say why in the note of the measure.'
            )
        return value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, f'{path}.{key}') for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f'{path}[{index}]') for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return str(value)
    raise RunError(f'{path} is a {type(value).__name__}, which JSON cannot hold: {value!r:.80}.')


def _write_all(directory: Path, files: Mapping[str, bytes]) -> None:
    """Writes files through temporary ones beside them, and turns errors into messages."""
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = directory / name
            _replace(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f'the report could not be written to {path}: {reason}. Make room, and run the '
                'same command again.'
            ) from error
        raise UserError(
            f'the report cannot be written to {path}: {reason}. Give a --workdir that can be '
            'written.'
        ) from error


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        with open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a crash could leave the new name with no content
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
