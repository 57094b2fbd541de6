"""Devices: one mesh axis, `data`, over every device of every process."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tljax.errors import UserError


def data_mesh() -> Mesh:
    """All devices in a row, as the axis `data`."""
    return jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec('data'))


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
    """Checks that a batch can be split evenly.

    Raises:
      UserError: names the key and the next sizes that fit.
    """
    devices = mesh.size
    if batch_size % devices:
        fit = max(devices, batch_size // devices * devices)
        raise UserError(
            f'config.train.batch_size is {batch_size}, which {devices} devices cannot share '
            f'evenly; use a multiple of {devices}, such as {fit}.'
        )


def put_batch(mesh: Mesh, local: Any) -> Any:
    """Puts this process's part of a batch on its devices, as part of the global batch.

    Args:
      mesh: of `data_mesh`.
      local: tree of numpy arrays, the first axis of size batch / number of processes.
    """
    sharding = split_batch(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), local)


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Puts a whole tree, the same in every process, on every device."""
    if jax.process_count() == 1:
        return jax.device_put(tree, replicated(mesh))
    return jax.tree.map(lambda leaf: _put_everywhere(mesh, leaf), tree)


def _put_everywhere(mesh: Mesh, leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array):
        if not leaf.is_fully_addressable:  # it is everywhere already
            return leaf
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(_put_everywhere(mesh, jax.random.key_data(leaf)))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, replicated(mesh), host.__getitem__)
