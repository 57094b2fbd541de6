"""The order of examples, and batches in it: from memory or streamed, the same either way."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from tljax.data.split import Split
from tljax.data.splits import random_keys
from tljax.errors import UserError

RUN = 16  # whole batches whose examples are sorted by length together


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """Which examples each training step sees: a pure function of (n, seed, step) and the lengths.

    Every epoch is a permutation of its own of all n examples. Batches run across the ends of
    epochs, so that nothing is dropped and every batch is full.

    Not Grain's shuffle: its index_shuffle takes 418 microseconds an index at n = 40 and 4 at
    n = 12,000 (this takes 0.01), and its epoch e of seed s is epoch 0 of seed s + e, which would
    give neighbouring seeds of a study the same permutations.

    Args:
      n: examples.
      batch_size: examples in a global batch, over all processes.
      seed: of the permutations, not negative.
      lengths: of the examples, (n,) int, where a batch is to hold examples of about one length; or
        None. Each epoch's whole batches are sorted by it, `RUN` at a time, and these shuffled.

    Raises:
      UserError: nothing to draw from.

    >>> order = Order(n=5, batch_size=2, seed=0)
    >>> epoch = np.concatenate([order.batch(0), order.batch(1), order.batch(2)])[:5]
    >>> sorted(epoch.tolist())
    [0, 1, 2, 3, 4]
    """

    n: int
    batch_size: int
    seed: int
    lengths: np.ndarray | None = None

    def __post_init__(self):
        if self.n < 1:
            raise UserError('There are no training examples: check config.data.train and .holdout.')
        if self.batch_size < 1:
            raise UserError(f'config.train.batch_size is {self.batch_size}; it must be 1 or more.')

    def batch(self, step: int) -> np.ndarray:
        """Positions 0..n-1 of the examples of global batch `step`, (batch_size,) int32."""
        first, last = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        for epoch in range(first // self.n, (last - 1) // self.n + 1):
            start = epoch * self.n
            parts.append(self._epoch(epoch)[max(first - start, 0) : last - start])
        return np.concatenate(parts)

    def epochs(self, step: int) -> np.ndarray:
        """How often all examples were seen before each of global batch `step`, (batch_size,)."""
        first = step * self.batch_size
        return (np.arange(first, first + self.batch_size) // self.n).astype(np.int32)

    def fingerprint(self) -> str:
        """Hexadecimal sha256 of what decides the order, to be compared when a run goes on.

        >>> Order(10, 2, 0).fingerprint() == Order(10, 2, 1).fingerprint()
        False
        """
        digest = hashlib.sha256(f'order 1: {self.n} {self.batch_size} {self.seed}'.encode())
        if self.lengths is not None:
            digest.update(self.lengths.astype(np.int64).tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def _epoch(self) -> Callable[[int], np.ndarray]:
        """Epoch -> its permutation; the last few are kept."""

        @functools.lru_cache(maxsize=4)
        def permutation(epoch: int) -> np.ndarray:
            keys = random_keys(self.n, self.seed, 'order', epoch)
            drawn = np.argsort(keys, kind='stable').astype(np.int32)
            return drawn if self.lengths is None else self._alike(drawn, epoch)

        return permutation

    def _alike(self, drawn: np.ndarray, epoch: int) -> np.ndarray:
        """An epoch's permutation, examples of about one length in each whole batch."""
        assert self.lengths is not None
        first = -epoch * self.n % self.batch_size  # what is before ends a batch of the last epoch
        whole = max(self.n - first, 0) // self.batch_size
        batches = drawn[first:][: whole * self.batch_size].reshape(whole, self.batch_size)
        for begin in range(0, whole, RUN):
            run = batches[begin : begin + RUN]
            alike = run.ravel()[np.argsort(self.lengths[run.ravel()], kind='stable')]
            keys = random_keys(len(run), self.seed, 'batches', epoch, begin)
            run[:] = alike.reshape(run.shape)[np.argsort(keys, kind='stable')]
        return drawn


def stream(
    split: Split,
    indices: np.ndarray,
    order: Order,
    start_step: int,
    steps: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Reads the batches of `order` from disk, for a split that is not in memory.

    Args:
      split: what is read.
      indices: of the examples of `split` that `order` runs over, (order.n,).
      order: positions in `indices`, step by step.
      start_step: the first step, so that a run goes on where it stopped.
      steps: how many.
      process_index: this process.
      process_count: all of them: each reads its own part of every batch, process p the p-th
        of `process_count` equal runs of positions, so that the parts in order are the batch.
      threads: that read and decode ahead.

    Yields:
      This process's part of each batch: 'image' (batch_size / process_count, height, width,
      channels) uint8 and 'label' (batch_size / process_count,) int32.

    Raises:
      UserError: the processes cannot share a batch evenly.
    """
    import grain

    if order.batch_size % process_count:
        raise UserError(
            f'config.train.batch_size is {order.batch_size}, which {process_count} processes '
            f'cannot share evenly; use a multiple of {process_count}.'
        )
    if len(indices) != order.n:
        raise ValueError(f'{len(indices)} indices, but the order runs over {order.n}')
    local = order.batch_size // process_count
    source = split.source()
    batch = functools.lru_cache(maxsize=8)(order.batch)

    def read(k: int) -> dict[str, np.ndarray]:
        step, j = divmod(k, local)
        positions = batch(start_step + step)
        return source[int(indices[positions[process_index * local + j]])]

    # Batched after reading, or grain would read ahead in batches: gigabytes of large images.
    examples = grain.MapDataset.range(steps * local).map(read)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * local, 16))
    yield from examples.to_iter_dataset(options).batch(local)


def eval_batches(n: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches that run once over n examples, the last one padded to full size.

    Yields:
      Positions (batch_size,) int32, and weight (batch_size,) float32: 1, or 0 on padding, where
      the position is 0.

    >>> [(i.tolist(), w.tolist()) for i, w in eval_batches(3, 2)]
    [([0, 1], [1.0, 1.0]), ([2, 0], [1.0, 0.0])]
    """
    for first in range(0, n, batch_size):
        positions = np.arange(first, first + batch_size, dtype=np.int32)
        real = positions < n
        yield np.where(real, positions, 0).astype(np.int32), real.astype(np.float32)
