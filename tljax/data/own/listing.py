"""Folders with a subfolder for each class, with or without subfolders for each split."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tljax.data.own.rows import Listing, Row
from tljax.errors import UserError

IMAGES = frozenset(
    ('.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.bmp', '.webp', '.tif', '.tiff', '.gif')
)
SOUNDS = frozenset(('.wav', '.wave', '.flac'))
SPLITS = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('validation', 'valid', 'val', 'dev', 'development'), 'validation'),
    **dict.fromkeys(('test', 'testing', 'eval', 'evaluation'), 'test'),
}
KEY = 'config.data.dir'


def list_folder(root: Path, group: str = '') -> Listing:
    """Lists the images or sounds in a folder; none is opened.

    Args:
      root: holds a folder for each class, or one for each split (train, training; validation,
        valid, val, dev; test, testing) that does. Files may lie deeper: the class is the first
        level's name. Hidden files are left out.
      group: a regular expression, searched for in a file's path below its class: files for which
        its first group (or all of it) is the same belong together.

    Raises:
      UserError: no such folder; it has no classes; both images and sounds; split folders and
        others side by side; the expression is none.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ('cat/1.png', 'dog/2.png', 'dog/p7/3.png', 'dog/notes.txt'):
    ...     (root / name).parent.mkdir(parents=True, exist_ok=True)
    ...     (root / name).touch()
    >>> listing = list_folder(root)
    >>> [(row.where, row.label) for row in listing.rows]
    [('cat/1.png', 'cat'), ('dog/2.png', 'dog'), ('dog/p7/3.png', 'dog')]
    >>> listing.ignored
    {'.txt': 1}
    """
    pattern = expression(group)
    if not root.is_dir():
        raise UserError(f'{KEY}={root} is no folder. Set it to the folder that holds your classes.')
    tops = [entry.name for entry in _visible(root) if entry.is_dir()]
    if not tops:
        raise UserError(f'{KEY}={root} has no subfolders: it needs one for each class.')
    splits = split_folders(root, tops)
    kinds: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    rows, bad = [], []
    used: set[str] = set()
    for where, stamp in _listed(root):
        if stamp is None:
            bad.append((where, 'it is a link to a folder that it lies in'))
            continue
        suffix = os.path.splitext(where)[1].lower()
        kind = 'image' if suffix in IMAGES else 'audio' if suffix in SOUNDS else ''
        if not kind:
            ignored[suffix or 'without a suffix'] += 1
            continue
        if not where.isascii() and any('\ud800' <= letter <= '\udfff' for letter in where):
            bad.append((readable(where), 'its name is no UTF-8'))
            continue
        parts = where.split('/')
        split = splits[parts[0]] if splits else ''
        below = parts[1:] if splits else parts
        if len(below) < 2:
            bad.append((where, 'it lies in no class folder'))
            continue
        kinds[kind] += 1
        used.add(below[0])
        name = group_of(pattern, '/'.join(below[1:]))
        if name is None:
            bad.append((where, f'its name has no group: config.data.group={group!r} is not in it'))
            continue
        rows.append(Row(where, below[0], split, name, stamp))
    if len(kinds) != 1:
        held = ', '.join(f'{count} {kind} files' for kind, count in kinds.items())
        known = ' '.join(sorted(IMAGES | SOUNDS))
        raise UserError(
            f'{KEY}={root} holds {held}: keep images and sounds in folders of their own.'
            if kinds
            else f'{KEY}={root} has no image or sound in a class folder (known are {known}).'
        )
    kind = next(iter(kinds))
    return Listing(kind, rows, bad, dict(ignored), empty_notes(root, splits, kind, used))


def split_folders(root: Path, tops: list[str]) -> dict[str, str]:
    """Folder -> split, where the first level is splits; {} where it is classes.

    Raises:
      UserError: it is both, or there are splits without one to train on.
    """
    named = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    # A class may be called 'train': then its images lie in it, not in folders of it.
    named = {top: split for top, split in named.items() if _only_folders(root / top)}
    if not named:
        return {}
    others = sorted(set(tops) - set(named))
    if others:
        raise UserError(
            f'{KEY}={root} has split folders ({", ".join(sorted(named))}) beside others '
            f'({", ".join(others[:5])}): whether the first level is splits or classes cannot be '
            'told. Move the others elsewhere.'
        )
    if len(set(named.values())) < len(named):
        raise UserError(f'{KEY}={root} has a split twice: {", ".join(sorted(named))}.')
    if 'train' not in named.values():
        raise UserError(f'{KEY}={root} has {", ".join(sorted(named))}, but no folder train.')
    return named


def empty_notes(root: Path, splits: dict[str, str], kind: str, used: set[str]) -> list[str]:
    """A note on folders of classes in which nothing lies that can be read."""
    above = [root / top for top in splits] or [root]
    names = {entry.name for folder in above for entry in _visible(folder) if entry.is_dir()}
    empty = sorted(names - used)
    shown = ', '.join(map(readable, empty[:5])) + (', ...' if len(empty) > 5 else '')
    what = 'image' if kind == 'image' else 'sound'
    return [f'no {what} lies in the folders {shown}.'] if empty else []


def readable(name: str) -> str:
    """The name of a file, whose bytes may be no UTF-8."""
    return name.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')


def expression(group: str) -> re.Pattern[str] | None:
    """The expression of `config.data.group`, None where it is ''."""
    try:
        return re.compile(group) if group else None
    except re.error as error:
        raise UserError(
            f'config.data.group={group!r} is no regular expression: {error}. Of a folder it is '
            "searched for in each file's path, such as '(patient[0-9]+)'."
        ) from None


def group_of(pattern: re.Pattern[str] | None, path: str) -> str | None:
    """The group in a path, '' where none is asked for, None where it has none."""
    if pattern is None:
        return ''
    found = pattern.search(path)
    if not found:
        return None
    return (found.group(1) if pattern.groups else found.group()) or None


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        shown = [e for e in entries if not e.name.startswith('.') and e.name != '__MACOSX']
    return sorted(shown, key=lambda entry: entry.name)


def _only_folders(folder: Path) -> bool:
    """Whether a folder holds folders, and no image or sound itself."""
    entries = _visible(folder)
    files = [e for e in entries if e.is_file()]
    known = IMAGES | SOUNDS
    return any(e.is_dir() for e in entries) and not any(
        os.path.splitext(e.name)[1].lower() in known for e in files
    )


def _listed(root: Path) -> Iterator[tuple[str, tuple[int, int] | None]]:
    try:
        yield from _files(root, '', (os.path.realpath(root),))
    except OSError as error:
        raise UserError(f'{KEY}: {error.filename} cannot be read: {error.strerror}.') from None


def _files(
    root: Path, below: str, above: tuple[str, ...]
) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Relative path with '/', and (bytes, nanoseconds of change), of every file.

    Of a link to one of the folders `above` it None: it is not followed.
    """
    for entry in _visible(root / below):
        where = f'{below}/{entry.name}' if below else entry.name
        if entry.is_dir():
            real = os.path.realpath(entry.path)
            if real in above:
                yield where, None
            else:
                yield from _files(root, where, (*above, real))
        elif entry.is_file():
            stat = entry.stat()
            yield where, (stat.st_size, stat.st_mtime_ns)
        else:  # a broken link, which opening it will tell
            yield where, (0, 0)
