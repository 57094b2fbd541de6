"""Trees of arrays on disk: Orbax, with a record that says what must come back, bit for bit.

Orbax (0.12) writes a checkpoint into a temporary directory and renames it when it is complete. It
doesn't notice a flipped bit in array data, nor lost metadata, and two leaves named `a.b` and `a/b`
overwrite each other; so each checkpoint carries a record: leaf names, shapes, dtypes and CRC-32
sums, and the caller's JSON, all under a sum of its own.
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

TEMPORARY = '.orbax-checkpoint-tmp'  # in the name of every directory that Orbax hasn't finished
FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))
UNWRITABLE = tuple(
    os.strerror(getattr(errno, name))
    for name in 'EACCES EPERM EROFS ENOTDIR EEXIST ENOENT ENAMETOOLONG'.split()
)


class DamagedError(Exception):
    """What is on disk is not what was saved; the message is a clause that says in what way."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What a checkpoint records of one leaf.

    Attributes:
      shape: of the array; for a typed PRNG key that of the keys.
      dtype: its name, such as 'float32' or 'key<fry>'.
      crc32: of the bytes in C order, None where no process holds the whole array.
      impl: of a typed PRNG key, such as 'threefry2x32', else None.
    """

    shape: tuple[int, ...]
    dtype: str
    crc32: int | None = None
    impl: str | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """What a checkpoint says of itself: its leaves by name, and the caller's JSON."""

    leaves: dict[str, Leaf]
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


def snapshot(tree: Any, extra: Mapping[str, Any]) -> tuple[dict[str, Any], Record]:
    """Copies a tree to host memory, so that the caller may donate it, and records it.

    An array of which this process holds only a part stays as it is, without a sum.
    """
    jax.tree.map(lambda leaf: getattr(leaf, 'copy_to_host_async', lambda: None)(), tree)
    arrays, leaves = {}, {}
    for name, leaf in named_leaves(tree).items():
        impl = None
        dtype, shape = str(leaf.dtype), tuple(leaf.shape)
        if is_key(leaf):
            impl, leaf = str(jax.random.key_impl(leaf)), jax.random.key_data(leaf)
        crc32 = None
        if impl is not None and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            raise ValueError(f'The PRNG keys {name!r} are spread over processes: replicate them.')
        if getattr(leaf, 'is_fully_addressable', True) or leaf.is_fully_replicated:
            leaf = np.array(leaf, order='C')
            crc32 = checksum(leaf)
        arrays[name] = leaf
        leaves[name] = Leaf(shape, dtype, crc32, impl)
    return arrays, Record(leaves, json.loads(canonical_json(extra)))


def start_save(path: Path, arrays: Mapping[str, Any], record: Record) -> Any:
    """Starts writing what `snapshot` returned; `.result()` of what it returns waits for the end."""
    ocp = orbax()
    body = {
        'leaves': {name: dataclasses.asdict(leaf) for name, leaf in record.leaves.items()},
        'extra': record.extra,
    }
    metadata = {'tljax': body, 'crc32': zlib.crc32(canonical_json(body))}
    # Orbax refuses empty arrays: the record alone says all about them.
    stored = trees.unflatten({name: array for name, array in arrays.items() if array.size})
    with context(ocp):
        return ocp.save_async(str(path.absolute()), stored, custom_metadata=metadata)


def read_record(path: Path) -> Record:
    """The record of a checkpoint.

    Raises:
      DamagedError: it is missing, unreadable, or doesn't agree with its sum or with Orbax's.
    """
    ocp = orbax()
    try:
        with context(ocp):
            metadata = ocp.metadata(str(path.absolute()))
        saved = metadata.custom_metadata or {}
        body = saved['tljax']
        if saved['crc32'] != zlib.crc32(canonical_json(body)):
            raise DamagedError('its record is not the one that was written')
        leaves = {
            name: Leaf(**{**leaf, 'shape': tuple(leaf['shape'])})
            for name, leaf in body['leaves'].items()
        }
    except DamagedError:
        raise
    except KeyError as error:
        raise DamagedError(f'its record is missing ({error} not found)') from error
    except Exception as error:  # Orbax raises whatever its parsers raise
        raise DamagedError(f'its metadata is unreadable: {first_line(error)}') from error
    on_disk = set(trees.flatten(metadata.metadata))
    expected = {name for name, leaf in leaves.items() if 0 not in leaf.shape}
    if on_disk != expected:
        raise DamagedError(f'leaves are missing or foreign: {sorted(on_disk ^ expected)[:5]}')
    return Record(leaves, body['extra'])


def read_arrays(
    path: Path, record: Record, partial: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Reads every leaf into host memory and compares it with its sum.

    Args:
      path: a checkpoint.
      record: what `read_record` returned for it.
      partial: shapes with shardings, for the leaves that no process holds as a whole.

    Returns:
      Arrays by name; a typed PRNG key as its data.

    Raises:
      DamagedError: a leaf is unreadable or its bytes are not those that were saved.
    """
    ocp = orbax()
    wanted = {}
    for name, leaf in record.leaves.items():
        if leaf.crc32 is None and partial is not None:
            wanted[name] = partial[name]
        elif 0 not in leaf.shape:
            shape = leaf.shape if leaf.impl is None else key_data_shape(leaf.shape, leaf.impl)
            dtype = np.uint32 if leaf.impl else jax.numpy.dtype(leaf.dtype)
            # A broadcast scalar: the shape and dtype of an array without its memory.
            wanted[name] = np.broadcast_to(np.zeros((), dtype), shape)
    try:
        with context(ocp):
            loaded = trees.flatten(ocp.load(str(path.absolute()), trees.unflatten(wanted)))
    except Exception as error:  # Orbax and TensorStore raise ValueError, KeyError and Exception
        raise DamagedError(f'its arrays are unreadable: {first_line(error)}') from error
    for name, leaf in record.leaves.items():
        if 0 in leaf.shape:
            loaded[name] = np.zeros(leaf.shape, jax.numpy.dtype(leaf.dtype))
        elif leaf.crc32 is not None and (
            not isinstance(loaded[name], np.ndarray) or checksum(loaded[name]) != leaf.crc32
        ):
            raise DamagedError(f'the bytes of {name!r} are not those that were saved')
    return loaded


def checksum(array: np.ndarray) -> int:
    """CRC-32 of an array's bytes in C order."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def canonical_json(value: Any) -> bytes:
    """One text for one value: sorted keys, no NaN, tuples as lists."""
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def is_key(leaf: Any) -> bool:
    """Whether an array, or a shape, is of typed PRNG keys."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def key_data_shape(shape: tuple[int, ...], impl: str) -> tuple[int, ...]:
    """The shape of the data of typed PRNG keys.

    >>> key_data_shape((10,), 'threefry2x32')
    (10, 2)
    """
    return shape + jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl))).shape


def remove(path: Path) -> None:
    """Deletes a directory in a way that never leaves a half of it under its own name."""
    doomed = path.with_name(path.name + '.deleted')
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Deletes what a killed save or a killed `remove` left, among the given paths."""
    for path in paths:
        if TEMPORARY in path.name or path.name.endswith('.deleted'):
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
