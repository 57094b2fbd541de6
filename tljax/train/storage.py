"""Trees of arrays on disk: Orbax, and beside its files a record of what must come back.

Orbax (0.12) doesn't notice a flipped bit in array data nor lost metadata; it returns a leaf that
is missing as the caller's own ShapeDtypeStruct, and two leaves named `a.b` and `a/b` overwrite
each other. So each directory is sealed with `tljax.json`: the leaves' names, shapes and dtypes,
the size and CRC-32 of every file, and the caller's JSON, under a sum of its own. It is looked at
before Orbax sees the files. Reading runs no code from the directory: JSON and arrays, no pickle.
"""

import dataclasses
import errno
import json
import logging as python_logging
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from tljax import trees
from tljax.errors import RunError, UserError

RECORD = 'tljax.json'
FORMAT = 1
UNFINISHED = '.writing'  # Orbax has finished it, we have not sealed it
DELETED = '.deleted'
ORBAX_UNFINISHED = '.orbax-checkpoint-tmp'

FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))
UNWRITABLE = tuple(
    os.strerror(getattr(errno, name))
    for name in ('EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST', 'ENOENT', 'ENAMETOOLONG')
)


class DamagedError(Exception):
    """What is on disk is not what was saved; the message is a clause that says in what way."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What the record says of one leaf.

    Attributes:
      shape: of the array; for a typed PRNG key that of the keys.
      dtype: its name, such as 'float32' or 'key<fry>'.
      impl: of a typed PRNG key, such as 'threefry2x32', else None.
    """

    shape: tuple[int, ...]
    dtype: str
    impl: str | None = None

    def stored(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of what is on disk: a typed PRNG key is stored as its data.

        >>> Leaf((10,), 'key<fry>', 'threefry2x32').stored()
        ShapeDtypeStruct(shape=(10, 2), dtype=uint32)
        """
        if self.impl is None:
            return jax.ShapeDtypeStruct(self.shape, jax.numpy.dtype(self.dtype))
        impl = self.impl
        key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl)))
        return jax.ShapeDtypeStruct(self.shape + key.shape, key.dtype)


@dataclasses.dataclass(frozen=True)
class Record:
    """Leaves by name, (size in bytes, CRC-32) by file, and the caller's JSON."""

    leaves: dict[str, Leaf]
    files: dict[str, tuple[int, int]]
    extra: dict[str, Any]


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by name: keys, indices and field names on the way to a leaf, joined by '/'.

    Raises:
      ValueError: two leaves have one name on disk, where '.' and '/' are the same.

    >>> named_leaves({'opt': [{'mu': 1}, None], 'step': 2})
    {'opt/0/mu': 1, 'step': 2}
    """
    named: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        on_disk = name.replace('/', '.')
        if on_disk in seen:
            raise ValueError(f'The leaves {seen[on_disk]!r} and {name!r} have one name on disk.')
        seen[on_disk] = name
        named[name] = leaf
    return named


def snapshot(tree: Any) -> tuple[dict[str, Any], dict[str, Leaf]]:
    """Copies a tree to host memory, so that the caller may donate it, and describes its leaves.

    An array of which this process holds only a part stays as it is.
    """
    jax.tree.map(lambda leaf: getattr(leaf, 'copy_to_host_async', lambda: None)(), tree)
    arrays, leaves = {}, {}
    for name, leaf in named_leaves(tree).items():
        shape, dtype, impl = tuple(leaf.shape), str(leaf.dtype), None
        whole = getattr(leaf, 'is_fully_addressable', True) or leaf.is_fully_replicated
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            impl, leaf = str(jax.random.key_impl(leaf)), jax.random.key_data(leaf)
            if not whole:
                raise ValueError(f'The PRNG keys {name!r} are spread over processes.')
        arrays[name] = np.array(leaf) if whole else leaf
        leaves[name] = Leaf(shape, dtype, impl)
    return arrays, leaves


def start_save(path: Path, arrays: Mapping[str, Any]) -> Any:
    """Starts writing what `snapshot` returned; `.result()` of what it returns waits for the end."""
    ocp = orbax()
    # Orbax refuses empty arrays: the record alone says all about them.
    stored = trees.unflatten({name: array for name, array in arrays.items() if array.size})
    with context(ocp):
        return ocp.save_async(str(path.absolute()), stored)


def seal(path: Path, leaves: Mapping[str, Leaf], extra: Mapping[str, Any]) -> None:
    """Writes the record of a directory that Orbax has finished."""
    body = {
        'format': FORMAT,
        'leaves': {name: dataclasses.asdict(leaf) for name, leaf in leaves.items()},
        'files': {name: file_sum(file) for name, file in files_of(path).items()},
        'extra': extra,
    }
    content = {'crc32': zlib.crc32(canonical_json(body)), 'body': body}
    (path / RECORD).write_text(json.dumps(content, allow_nan=False), encoding='utf-8')


def read_record(path: Path) -> Record:
    """The record of a directory.

    Raises:
      DamagedError: it is missing, unreadable, or not the one that was written.
    """
    try:
        content = json.loads((path / RECORD).read_text(encoding='utf-8'))
        body = content['body']
        if content['crc32'] != zlib.crc32(canonical_json(body)):
            raise DamagedError(f'{RECORD} is not the one that was written')
        if body['format'] > FORMAT:
            raise DamagedError(f'a newer tljax wrote it (format {body["format"]})')
        return Record(
            {
                name: Leaf(tuple(leaf['shape']), leaf['dtype'], leaf['impl'])
                for name, leaf in body['leaves'].items()
            },
            {name: (size, crc32) for name, (size, crc32) in body['files'].items()},
            dict(body['extra']),
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedError(f'{RECORD} is missing') from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f'{RECORD} is unreadable: {first_line(error)}') from error


def verify(path: Path, record: Record) -> None:
    """Compares the files of a directory with their sums.

    Raises:
      DamagedError: a file is missing or other than it was written.
    """
    found = files_of(path)
    for name, expected in record.files.items():
        if name not in found:
            raise DamagedError(f'the file {name} is missing')
        if found[name].stat().st_size != expected[0] or file_sum(found[name]) != expected:
            raise DamagedError(f'the bytes of the file {name} are not those that were written')


def read_arrays(
    path: Path, record: Record, parts: Mapping[str, jax.ShapeDtypeStruct] | None = None
) -> dict[str, Any]:
    """Reads every leaf into host memory, from files that `verify` has looked at.

    Args:
      path: the directory.
      record: what `read_record` returned for it.
      parts: shapes with shardings for leaves of which this process is to hold only a part.

    Returns:
      Arrays by name; a typed PRNG key as its data.

    Raises:
      DamagedError: a leaf is unreadable or not what the record says.
    """
    try:
        stored = {name: leaf.stored() for name, leaf in record.leaves.items()}
        # A broadcast scalar stands for an array of a shape and dtype without its memory.
        wanted = {
            name: np.broadcast_to(np.zeros((), shape.dtype), shape.shape)
            for name, shape in stored.items()
            if shape.size
        }
        ocp = orbax()
        with context(ocp):
            tree = ocp.load(str(path.absolute()), trees.unflatten({**wanted, **(parts or {})}))
        loaded = trees.flatten(tree)
    except Exception as error:  # Orbax raises whatever its parsers and TensorStore raise
        raise DamagedError(f'its arrays are unreadable: {first_line(error)}') from error
    for name, shape in stored.items():
        array = loaded.setdefault(name, np.zeros(shape.shape, shape.dtype))
        as_recorded = (array.shape, array.dtype) == (shape.shape, shape.dtype)
        if not as_recorded or not isinstance(array, np.ndarray | jax.Array):
            raise DamagedError(f'the leaf {name!r} is missing or not of the shape in {RECORD}')
    return loaded


def files_of(path: Path) -> dict[str, Path]:
    """The files of a directory by name, without its record."""
    return {
        file.relative_to(path).as_posix(): file
        for file in sorted(path.rglob('*'))
        if file.is_file() and file != path / RECORD
    }


def file_sum(file: Path) -> tuple[int, int]:
    """Size in bytes and CRC-32 of a file."""
    size, crc32 = 0, 0
    with file.open('rb') as stream:
        while block := stream.read(1 << 22):
            size, crc32 = size + len(block), zlib.crc32(block, crc32)
    return size, crc32


def canonical_json(value: Any) -> bytes:
    """One text for one value: sorted keys, no NaN, tuples as lists."""
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def remove(path: Path) -> None:
    """Deletes a directory in a way that never leaves a half of it under its own name."""
    doomed = path.with_name(path.name + DELETED)
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Deletes what a killed save or a killed `remove` left, among the given paths."""
    for path in paths:
        if ORBAX_UNFINISHED in path.name or path.name.endswith((UNFINISHED, DELETED)):
            shutil.rmtree(path, ignore_errors=True)


def save_error(error: BaseException, path: Path) -> Exception:
    """What to tell the user about a failed save to `path`."""
    if any(reason in str(error) for reason in FULL):
        return RunError(
            f'There is no room on the disk: {path} was not saved ({first_line(error)}). What was '
            'saved before is intact. Free some space, or give another --workdir, and start again.'
        )
    if any(reason in str(error) for reason in UNWRITABLE):
        return UserError(
            f'{path} cannot be written ({first_line(error)}). Give a --workdir in which you may '
            'create files.'
        )
    return RunError(f'{path} was not saved: {first_line(error)}.')


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error's text, for a message of our own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= limit else lines[0][:limit] + '...'


def orbax() -> Any:
    """Orbax v1, imported when first needed (0.3 s), its own log lines silenced.

    What matters to a user of them is raised or logged here in words of ours. `-v=1` shows them.
    """
    from orbax.checkpoint import v1 as ocp

    logger = logging.get_absl_logger()
    if _not_orbax not in logger.filters:
        logger.addFilter(_not_orbax)
    return ocp


def _not_orbax(record: python_logging.LogRecord) -> bool:
    inside = f'{os.sep}orbax{os.sep}checkpoint{os.sep}' in record.pathname
    return not inside or logging.get_verbosity() >= logging.DEBUG


def context(ocp: Any) -> Any:
    """How Orbax is used here."""
    ctx = ocp.Context()
    # Otherwise a save that can't start leaves a thread that waits 20 minutes for its directory.
    ctx.async_options.create_directories_asynchronously = False
    ctx.memory_options.deepcopy_host_arrays = False  # `snapshot` has copied them already
    return ctx
