"""Reads Orbax checkpoints, anybody's: nested trees of arrays, named with '/'."""

import contextlib
import functools
import json
import logging as python_logging
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from tljax.errors import UserError
from tljax.pretrained.readers.weights import ANEW, Tensor, Weights, check_size, damaged

MARKS = ('_CHECKPOINT_METADATA', '_METADATA', 'orbax.checkpoint')
RECORD = 'tljax.json'  # with sums of the files, beside them in our own models
OURS = ('params', 'batch_stats')  # collections, which our paths go without
PLAIN = (bool, int, float, str)
BLOCK = 8 << 20  # bytes that are read at once: each read costs some milliseconds


def read(path: Path, config: Mapping[str, Any]) -> Weights | None:
    """Opens an Orbax checkpoint, a model of tljax, or the only step of a manager's directory.

    Returns:
      None if the directory is none of these.

    Raises:
      UserError: it is damaged, or holds several steps.
    """
    ours = (path / 'card.json').is_file() and (path / 'variables').is_dir()
    place = (path / 'variables') if ours else checkpoint_at(path)
    if place is None:
        return None
    check_sums(place)
    with careful(place):
        from orbax.checkpoint import v1 as ocp

        tree = ocp.metadata(place.absolute()).metadata
        blocks = Blocks(place, tree, OURS if ours else ())
        check_complete(place, set(blocks.leaves))
        check_size(sum(map(nbytes, blocks.arrays())), held(place), path)
        plain = blocks.load(blocks.plain) if blocks.plain else {}
    tensors = {
        theirs: Tensor(theirs, tuple(leaf.shape), np.dtype(leaf.dtype), place, source)
        for theirs, leaf, source in blocks.sources()
    }
    return Weights(tensors, 'orbax', (path,), config, plain)


def checkpoint_at(path: Path) -> Path | None:
    """Where the checkpoint of a directory is."""
    if any((path / mark).exists() for mark in MARKS):
        # Orbax opens a step by its own directory, not by that of an item in it.
        inside = not (path / MARKS[0]).exists() and (path.parent / MARKS[0]).exists()
        return path.parent if inside else path
    steps = [step for step in path.iterdir() if step.name.isdecimal() and checkpoint_at_step(step)]
    if len(steps) > 1:
        names = ', '.join(sorted((step.name for step in steps), key=int))
        raise UserError(f'{path} holds the checkpoints of several steps: {names}. Name one.')
    return steps[0] if steps else None


def checkpoint_at_step(path: Path) -> bool:
    return any((path / mark).exists() for mark in MARKS)


class Blocks:
    """The leaves of a checkpoint, read a block at a time.

    Args:
      path: of the checkpoint.
      tree: of what its metadata say of each leaf.
      collections: first parts of names that are left out.
    """

    def __init__(self, path: Path, tree: Any, collections: tuple[str, ...] = ()) -> None:
        import jax

        self.path = path
        leaves, self.structure = jax.tree_util.tree_flatten_with_path(tree)
        self.names = [jax.tree_util.keystr(p, simple=True, separator='/') for p, _ in leaves]
        self.leaves = dict(zip(self.names, (leaf for _, leaf in leaves), strict=True))
        self.plain = {n for n, leaf in self.leaves.items() if isinstance(leaf, PLAIN)}
        arrays = [n for n, leaf in self.leaves.items() if hasattr(leaf, 'shape')]
        parts = ((*n.partition('/'), n) for n in arrays)
        named = {(rest if first in collections else n): n for first, _, rest, n in parts}
        if len(self.leaves) < len(leaves) or len(named) < len(arrays):
            raise ValueError('two leaves have one name')
        self.theirs = dict(sorted(named.items()))
        self.order = list(self.theirs.values())
        self.block: dict[str, np.ndarray] = {}
        self.following = 0

    def arrays(self) -> list[Any]:
        """Metadata of each array."""
        return [self.leaves[name] for name in self.order]

    def sources(self) -> Iterator[tuple[str, Any, Callable[[], np.ndarray]]]:
        """Name, metadata and what reads it, for each array in order."""
        for theirs, name in self.theirs.items():
            yield theirs, self.leaves[name], functools.partial(self.get, name)

    def get(self, name: str) -> np.ndarray:
        """One leaf. Where they are read in order, some are read ahead, and kept until asked for."""
        if name not in self.block:
            self.block = {}  # let go before more is read
            begin = end = self.order.index(name)
            size = 0
            while end < len(self.order) and (end == begin or begin == self.following):
                leaf = self.leaves[self.order[end]]
                size += nbytes(leaf)
                if size > BLOCK and end > begin:
                    break
                end += 1
            with careful(self.path):
                self.block = self.load(self.order[begin:end])
            self.following = end
        return self.block.pop(name)

    def load(self, names: Iterable[str]) -> dict[str, Any]:
        """Some leaves by name, arrays as numpy's."""
        import jax
        from orbax.checkpoint import v1 as ocp

        wanted = {}
        for name in names:
            leaf = self.leaves[name]
            # A broadcast scalar stands for an array of a shape and dtype without its memory.
            wanted[name] = (
                np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
                if hasattr(leaf, 'shape')
                else leaf
            )
        asked = [wanted.get(name, ocp.PLACEHOLDER) for name in self.names]
        tree = ocp.load(self.path.absolute(), jax.tree.unflatten(self.structure, asked))
        found = dict(zip(self.names, jax.tree.leaves(tree), strict=True))
        for name, given in wanted.items():
            if isinstance(given, np.ndarray) and found[name] is given:
                raise ValueError(f'{name!r} is missing')  # Orbax gives back what was asked for
        return {name: found[name] for name in wanted}


def nbytes(leaf: Any) -> int:
    """Bytes of an array, from its metadata."""
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def held(path: Path) -> int:
    """Bytes of all files of a directory; a link to a large file elsewhere adds none of them."""
    return sum(file.lstat().st_size for file in path.rglob('*') if not file.is_dir())


def check_complete(path: Path, names: set[str]) -> None:
    """Compares the leaves with those of _METADATA: Orbax leaves out what has lost its data."""
    for file in (*path.glob('_METADATA'), *path.glob('*/_METADATA')):
        content = json.loads(file.read_text(encoding='utf-8'))
        for entry in content['tree_metadata'].values():
            name = '/'.join(str(key['key']) for key in entry['key_metadata'])
            array = entry['value_metadata']['value_type'] in ('np.ndarray', 'jax.Array')
            if array and name not in names:
                raise ValueError(f'the data of {name!r} are missing')


def check_sums(path: Path) -> None:
    """Compares the files of our own models with their sums: Orbax notices no flipped bit.

    Raises:
      UserError: a file is missing or not the one that was written.
    """
    if not (path / RECORD).is_file():
        return
    try:
        files = json.loads((path / RECORD).read_text(encoding='utf-8'))['body']['files']
        wrong = [name for name, expected in files.items() if sums(path / name) != expected]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(path, f'{RECORD} or a file that it names is unreadable ({error})') from error
    if wrong:
        raise damaged(path, f'the bytes of {wrong[0]} are not those that were written')


def sums(file: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    size, crc32 = 0, 0
    with file.open('rb') as stream:
        while block := stream.read(1 << 22):
            size, crc32 = size + len(block), zlib.crc32(block, crc32)
    return [size, crc32]


@contextlib.contextmanager
def careful(path: Path) -> Iterator[None]:
    """One error for whatever Orbax and TensorStore raise, and none of their log lines."""
    logger = logging.get_absl_logger()
    logger.addFilter(_not_orbax)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # their parsers raise anything
        why = ' '.join(str(error).split())[:300].rstrip('.') or type(error).__name__
        raise damaged(path, f'Orbax finds no sound checkpoint ({why})', ANEW) from error
    finally:
        logger.removeFilter(_not_orbax)


def _not_orbax(record: python_logging.LogRecord) -> bool:
    return f'{os.sep}orbax{os.sep}checkpoint{os.sep}' not in record.pathname
