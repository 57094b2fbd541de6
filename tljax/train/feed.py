"""How a run gets its batches: from data held on the device, or streamed."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from tljax import mesh as mesh_lib
from tljax.data import Order, Split, eval_batches, stream


class Feed:
    """Gives `(data, indices)` pairs for `tljax.train.step.gather`, the same order either way.

    Args:
      split: examples, in memory or not.
      mesh: devices.
      subset: which of them, (n,) int32; None is all.
      views: in how many ways an example is changed at random; 0 is in ever new ones.
    """

    seconds = 0.0  # that went into preparing it and count as training
    # Each example's bucket and what these are; None for features, which are of one length.
    fitting: np.ndarray | None = None
    buckets: Any = None

    def __init__(
        self,
        split: Split,
        mesh: jax.sharding.Mesh,
        subset: np.ndarray | None = None,
        views: int = 0,
    ):
        self.split, self.mesh, self.views = split, mesh, views
        self.subset = np.arange(len(split), dtype=np.int32) if subset is None else subset
        self.resident = mesh_lib.put_replicated(mesh, split.arrays()) if split.in_memory else None
        self.fitting, self.buckets = split.fitting, split.buckets
        self.at_once = split.at_once
        self._shorter: dict[int, Mapping[str, jax.Array]] = {}

    def of(self, subset: np.ndarray) -> 'Feed':
        """The same data, held once, another subset."""
        other = copy.copy(self)
        other.subset = subset
        return other

    def batches(
        self, order: Order, first: int, last: int
    ) -> Iterator[tuple[Mapping[str, jax.Array], jax.Array | None]]:
        """The batches of steps `first` to `last`, the last not included."""
        if self.resident is None:
            parts = stream(
                self.split,
                self.subset,
                order,
                first,
                last - first,
                jax.process_index(),
                jax.process_count(),
            )
            for step, part in enumerate(parts, first):
                part = self._cut(part, self.bucket(self.drawn(order, step)))
                yield mesh_lib.put_batch(self.mesh, {**part, **self._columns(order, step)}), None
            return
        for step in range(first, last):
            chosen = self.drawn(order, step)
            yield self.at(chosen, self.bucket(chosen))

    def drawn(self, order: Order, step: int) -> np.ndarray:
        """The examples of a step, (batch,) int32; where there are views (batch, 2), with theirs."""
        chosen = self.subset[order.batch(step)]
        if not self.views:
            return chosen
        return np.stack([chosen, order.epochs(step) % self.views], 1)

    def _columns(self, order: Order, step: int) -> dict[str, np.ndarray]:
        """What tells the views of a streamed batch."""
        if not self.views:
            return {}
        rows, views = self._local(self.drawn(order, step)).T
        return {'row': rows, 'view': views}

    @property
    def eval_batch(self) -> int:
        """Examples of a batch of evaluation, of which each device has as many."""
        size = min(self.at_once, len(self.subset))
        return size + -size % self.mesh.size

    def evaluate(self, evaluate: Any, params: Any, batch_stats: Any) -> dict[str, Any]:
        """Adds up `evaluate(params, batch_stats, data, indices, weight)` over the whole subset."""
        total: dict[str, Any] = {}
        subset = self.subset
        if self.fitting is not None:
            subset = subset[np.argsort(self.fitting[subset], kind='stable')]
        for positions, weight in eval_batches(len(subset), self.eval_batch):
            chosen = subset[positions]
            data, indices = self.at(chosen, self.bucket(chosen))
            weights = mesh_lib.put_batch(self.mesh, self._local(weight))
            sums = jax.device_get(evaluate(params, batch_stats, data, indices, weights))
            for name, value in sums.items():
                total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
        return {name: float(x) if x.ndim == 0 else x for name, x in total.items()}

    def at(
        self, chosen: np.ndarray, bucket: int | None = None
    ) -> tuple[Mapping[str, jax.Array], jax.Array | None]:
        """Some examples of the split, (size,) int32 or (size, 2) with their views, to be gathered
        or as a batch already; at full length, or cut to a bucket."""
        if self.resident is not None:
            return self._held(bucket), self._indices(chosen)
        part = self._cut(self.read(self._local(chosen)), bucket)
        return mesh_lib.put_batch(self.mesh, part), None

    def bucket(self, chosen: np.ndarray) -> int | None:
        """The smallest that all of these examples fit into; None where there are none."""
        return None if self.fitting is None else int(self.fitting[chosen].max())

    def read(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The same on the host."""
        source, views = self.split.source(), {}
        if chosen.ndim == 2:
            views = {'row': chosen[:, 0], 'view': chosen[:, 1]}
            chosen = chosen[:, 0]
        rows = [source[int(i)] for i in chosen]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]} | views

    def _cut(self, part: dict[str, np.ndarray], bucket: int | None) -> dict[str, np.ndarray]:
        return part if bucket is None else self.buckets.cut(part, bucket)

    def _held(self, bucket: int | None) -> Mapping[str, jax.Array]:
        """The split on the device, once at each length that is asked for."""
        assert self.resident is not None
        if bucket is None or bucket == len(self.buckets.sizes) - 1:
            return self.resident
        if bucket not in self._shorter:
            arrays = self._cut(self.split.arrays(), bucket)
            self._shorter[bucket] = mesh_lib.put_replicated(self.mesh, arrays)
        return self._shorter[bucket]

    def _local(self, array: np.ndarray) -> np.ndarray:
        """This process's share of an array's first axis."""
        share = len(array) // jax.process_count()
        return array[jax.process_index() * share :][:share]

    def _indices(self, indices: np.ndarray) -> jax.Array:
        return mesh_lib.put_batch(self.mesh, self._local(indices))


def shapes_of(data: Mapping[str, jax.Array]) -> tuple[tuple[int, ...], ...]:
    """What a step is compiled for, anew for each.

    >>> shapes_of({'label': np.zeros(4), 'tokens': np.zeros((4, 8))})
    ((4,), (4, 8))
    """
    return tuple(leaf.shape for leaf in jax.tree.leaves(data))
