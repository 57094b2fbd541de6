"""Features of examples: computed once, kept on the device, in memory or on disk, fed as batches."""

import dataclasses
import hashlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tljax import mesh as mesh_lib
from tljax.data import Order, eval_batches
from tljax.errors import RunError
from tljax.train.feed import Feed
from tljax.train.workdir import write_json

SHARE = 0.25  # of a memory that features may fill before they go to the next larger one
NAMES = ('device', 'memory', 'disk')


def place_of(nbytes: int, wanted: str = 'auto') -> str:
    """Where features of that size are kept: 'device', 'memory' or 'disk'."""
    if wanted != 'auto':
        return wanted
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    stats = jax.local_devices()[0].memory_stats() or {}
    device = stats.get('bytes_limit', memory)
    if nbytes <= SHARE * device:
        return 'device'
    return 'memory' if nbytes <= 2 * SHARE * memory else 'disk'


class Table:
    """The features of some examples of a split.

    Args:
      shapes: name -> shape and dtype of each feature of one example.
      compute: `compute(chosen) -> values`, by name, of up to `size` examples of the split.
      size: examples that `compute` takes at a time.
      length: examples of the split.
      directory: where they are kept, if on disk.
      key: tells what they are of; what lies in the directory under another key isn't read.
    """

    def __init__(
        self,
        shapes: Mapping[str, jax.ShapeDtypeStruct],
        compute: Callable[[np.ndarray], Mapping[str, Any]],
        size: int,
        length: int,
        directory: Path | None = None,
        key: str = '',
    ):
        self.shapes, self.compute, self.size = shapes, compute, size
        self.row = np.full(length, -1, np.int32)  # of each example, -1 where it isn't known
        self.arrays = {name: np.empty((0, *s.shape), s.dtype) for name, s in shapes.items()}
        self.directory, self.key = directory, key
        self.mark = ''  # in the names of the files that are written now
        self.seconds_each = 0.0  # what an example took to compute
        self._load()

    def ensure(self, chosen: np.ndarray) -> None:
        """Computes the features of those examples that have none yet."""
        missing = np.unique(chosen[self.row[chosen] < 0])
        if not len(missing):
            return
        known = len(next(iter(self.arrays.values())))
        arrays, began = self._room(known + len(missing)), time.monotonic()
        for positions, weight in eval_batches(len(missing), self.size):
            real = positions[weight > 0]
            values = self.compute(missing[positions])
            for name, array in arrays.items():
                array[known + real] = np.asarray(values[name])[: len(real)]
        self.seconds_each = (time.monotonic() - began) / len(missing)
        self.arrays = arrays
        self.row[missing] = np.arange(known, known + len(missing), dtype=np.int32)
        self._save()

    def take(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The features of some examples, (len(chosen), ...) each."""
        rows = self.row[chosen]
        return {name: array[rows] for name, array in self.arrays.items()}

    def _room(self, count: int) -> dict[str, np.ndarray]:
        """Arrays for so many examples, those that are known copied in.

        In files of their own: another process, or table, may be reading those that are there.
        """
        made, self.mark = {}, secrets.token_hex(8)
        for name, old in self.arrays.items():
            shape = (count, *self.shapes[name].shape)
            if self.directory is None:
                made[name] = np.empty(shape, old.dtype)
            else:
                file = self._file(name, self.mark)
                raw = np.lib.format.open_memmap(file, 'w+', np.uint8, self._bytes(shape, old.dtype))
                made[name] = raw.view(old.dtype).reshape(shape)
            made[name][: len(old)] = old
        return made

    def _file(self, name: str, mark: str) -> Path:
        assert self.directory is not None
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory / f'{name}-{mark}.npy'

    @staticmethod
    def _bytes(shape: Sequence[int], dtype: Any) -> tuple[int]:
        return (int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize,)

    def _save(self) -> None:
        """Says what lies in the directory, when all of it does."""
        if self.directory is None:
            return
        count = len(next(iter(self.arrays.values())))
        examples = np.argsort(self.row)[len(self.row) - count :]
        for array in self.arrays.values():
            base = array
            while not isinstance(base, np.memmap):
                base = base.base  # type: ignore[assignment]
            base.flush()
        np.save(self._file('examples', self.mark), examples.astype(np.int32))
        said = {'key': self.key, 'count': count, 'mark': self.mark}
        write_json(self.directory / 'features.json', said)
        for file in self.directory.glob('*.npy'):
            if not file.stem.endswith(f'-{self.mark}'):
                file.unlink(missing_ok=True)

    def _load(self) -> None:
        """Takes up what lies in the directory, if it is of the same key and whole."""
        if self.directory is None or not (self.directory / 'features.json').is_file():
            return
        try:
            said = json.loads((self.directory / 'features.json').read_text())
            if said['key'] != self.key:
                return
            count, mark, arrays = said['count'], str(said['mark']), {}
            for name, shape in self.shapes.items():
                raw = np.lib.format.open_memmap(self._file(name, mark), 'r')
                arrays[name] = raw.view(shape.dtype).reshape((count, *shape.shape))
            row = np.full_like(self.row, -1)
            row[np.load(self._file('examples', mark))] = np.arange(count, dtype=np.int32)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return  # half of it is there: it is computed again
        self.arrays, self.row = arrays, row


class FeatureFeed(Feed):
    """Batches of features; the examples of a run, in its order, are rows 0 to n - 1.

    Args:
      table: with the features of `subset`.
      subset: examples of the split, (n,) int32.
      mesh: devices.
      place: of `place_of`.
      at_once: examples that an evaluation takes at a time, at most.
      views: of each example; `subset` has one after another then, `example * views + view`.
    """

    def __init__(
        self,
        table: Table,
        subset: np.ndarray,
        mesh: jax.sharding.Mesh,
        place: str,
        at_once: int,
        views: int = 0,
    ):
        self.table, self.mesh, self.chosen, self.views = table, mesh, subset, views
        self.at_once = at_once
        self.seconds = table.seconds_each * len(subset)
        self.subset = np.arange(len(subset), dtype=np.int32)
        on_device = place == 'device'
        self.resident = mesh_lib.put_replicated(mesh, table.take(subset)) if on_device else None

    def batches(
        self, order: Order, first: int, last: int
    ) -> Iterator[tuple[Mapping[str, jax.Array], jax.Array | None]]:
        """The batches of steps `first` to `last`, the last not included."""
        for step in range(first, last):
            yield self.at(self.drawn(order, step))

    def drawn(self, order: Order, step: int) -> np.ndarray:
        """The rows of a step, (batch,) int32."""
        positions = order.batch(step)
        if not self.views:
            return positions
        return positions * self.views + order.epochs(step) % self.views

    def read(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        return self.table.take(self.chosen[chosen])


def digest(*parts: Any) -> str:
    """Hexadecimal sha256 of texts and arrays.

    >>> digest('a', np.ones(2)) == digest('a', np.ones(2)), digest('a') == digest('b')
    (True, False)
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            total.update(f'text {len(part)} {part}'.encode())
        else:
            array = np.asarray(part)
            total.update(f'array {array.shape} {array.dtype}'.encode())
            total.update(np.ascontiguousarray(array).view(np.uint8).data)
    return total.hexdigest()


@dataclasses.dataclass(frozen=True)
class Disk:
    """Where features lie on disk.

    Attributes:
      path: a folder for each key in it.
      temporary: kept alive as long as it is needed, then deleted.
    """

    path: Path
    temporary: Any = None

    @classmethod
    def at(cls, directory: str) -> 'Disk':
        """A directory of the user's, or a temporary one.

        Raises:
          RunError: it cannot be made.
        """
        try:
            if directory:
                Path(directory).mkdir(parents=True, exist_ok=True)
                return cls(Path(directory))
            temporary = tempfile.TemporaryDirectory(prefix='tljax-features-')
        except OSError as error:
            raise RunError(
                f'config.prefix.dir: {directory or tempfile.gettempdir()} cannot be used: '
                f'{error.strerror}.'
            ) from error
        return cls(Path(temporary.name), temporary)
