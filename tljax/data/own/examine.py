"""Opens every file of a folder once, in parts that are kept, so that a killed run goes on."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tljax.data.own.rows import BadRow, Row
from tljax.errors import RunError
from tljax.progress import Progress

PART = 500  # files a part: what is done again after a kill
AHEAD = 16  # files that are open at a time


@dataclasses.dataclass(frozen=True, slots=True)
class Examined:
    """What a file turned out to be.

    Attributes:
      bad: why it cannot be used; '' if it can.
      digest: sha256 of the file.
      shape: of an image (height, width, channels), of a sound (samples, rate, channels).
      peak: the largest 16-bit value of an image; 0 for others.
      at: (part, first byte, bytes) where a converted form is kept; None where the file is as it
        should be.
    """

    bad: str
    digest: str = ''
    shape: tuple[int, ...] = ()
    peak: int = 0
    at: tuple[int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Opened:
    """What a reader of files gives: the content, whether it differs from the file, its shape."""

    content: bytes
    shape: tuple[int, ...]
    converted: bool
    peak: int = 0


Reader = Callable[[bytes], Opened]


def examine(
    root: Path, rows: Sequence[Row], read: Reader, kept: Path, quiet: bool
) -> list[Examined]:
    """Examines files, with a progress bar; parts that were done before are taken from `kept`.

    At most `AHEAD` files are held in memory.

    Args:
      root: where the rows' files are.
      rows: of `list_folder`.
      read: of one file's bytes; raises BadRow.
      kept: the folder of the parts, for these rows and this reader alone.
      quiet: no progress bar.

    Raises:
      RunError: a kept part is damaged.
    """
    kept.mkdir(parents=True, exist_ok=True)
    found: list[Examined] = []
    with (
        Progress(len(rows), 'files', quiet=quiet, label='examining') as progress,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        for index, first in enumerate(range(0, len(rows), PART)):
            part = rows[first : first + PART]
            file = kept / f'{index:06}.json'
            if not file.exists():
                _write_part(root, part, read, file, index, pool)
            found += read_part(file, len(part))
            progress.update(len(part))
    return found


def _write_part(
    root: Path,
    part: Sequence[Row],
    read: Reader,
    file: Path,
    index: int,
    pool: concurrent.futures.ThreadPoolExecutor,
) -> None:
    def one(row: Row) -> tuple[Examined, bytes]:
        try:
            encoded = (root / row.file).read_bytes()
        except OSError as error:
            return Examined(f'it cannot be read: {error.strerror}'), b''
        except ValueError:  # a null character, say
            return Examined('it cannot be read: its path is none'), b''
        digest = hashlib.sha256(encoded).hexdigest()
        try:
            opened = read(encoded)
        except BadRow as error:
            return Examined(str(error), digest), b''
        content = opened.content if opened.converted else b''
        return Examined('', digest, opened.shape, opened.peak), content

    lines, at = [], 0
    bodies = file.with_suffix(f'.{os.getpid()}.bin')
    with bodies.open('wb') as out:
        for row, (examined, content) in zip(part, _ahead(pool, one, part), strict=True):
            if content:
                examined = dataclasses.replace(examined, at=(index, at, len(content)))
                out.write(content)
                at += len(content)
            lines.append([row.where, dataclasses.astuple(examined)])
    bodies.replace(file.with_suffix('.bin'))
    unfinished = file.with_suffix(f'.{os.getpid()}.json')
    unfinished.write_text(json.dumps(lines), encoding='utf-8')
    unfinished.replace(file)  # last: a part is done where this file is


def _ahead(
    pool: concurrent.futures.ThreadPoolExecutor, one: Callable, rows: Sequence[Row]
) -> Iterator[tuple[Examined, bytes]]:
    for first in range(0, len(rows), AHEAD):
        yield from pool.map(one, rows[first : first + AHEAD])


def read_part(file: Path, count: int) -> list[Examined]:
    """What was found in the files of a part."""
    try:
        lines = json.loads(file.read_text(encoding='utf-8'))
        found = [
            Examined(bad, digest, tuple(shape), peak, tuple(at) if at else None)
            for _, (bad, digest, shape, peak, at) in lines
        ]
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f'{file} is damaged ({error}). Delete its folder and start again.') from None
    if len(found) != count:
        raise RunError(f'{file} is damaged. Delete its folder and start again.')
    return found


def content(root: Path, row: Row, examined: Examined, kept: Path) -> bytes:
    """The bytes that are stored of a file that was examined.

    Raises:
      RunError: the file was changed since.
    """
    if examined.at:
        part, first, size = examined.at
        with (kept / f'{part:06}.bin').open('rb') as file:
            file.seek(first)
            return file.read(size)
    try:
        encoded = (root / row.file).read_bytes()
    except OSError as error:
        raise RunError(f'{root / row.file} cannot be read: {error.strerror}.') from None
    if hashlib.sha256(encoded).hexdigest() != examined.digest:
        raise RunError(f'{root / row.file} was changed while the set was prepared. Start again.')
    return encoded
