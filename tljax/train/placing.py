"""From arrays on the host to the tree that a run needs, each leaf on its devices."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tljax.errors import UserError, nearest
from tljax.train import storage
from tljax.train.storage import Record


def agreed(fine: bool) -> bool:
    """Whether all processes say so."""
    if jax.process_count() == 1:
        return fine
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(fine)).all())


def check_leaves(path: Path, record: Record, wanted: Any) -> None:
    """Compares a checkpoint's leaves with those that the run needs.

    Raises:
      UserError: names, shapes or dtypes differ; up to 8 differences are listed.
    """
    needed, saved = storage.named_leaves(wanted), record.leaves
    problems = [
        f'{name!r} is not in the checkpoint.{nearest(name, saved)}'
        for name in needed
        if name not in saved
    ]
    problems += [f'{name!r} is not in the run.' for name in saved if name not in needed]
    for name in needed:
        if name in saved:
            here = tuple(needed[name].shape), str(needed[name].dtype)
            there = saved[name].shape, saved[name].dtype
            if here != there:
                problems.append(
                    f'{name!r} is {there[1]}{list(there[0])} in the checkpoint, '
                    f'{here[1]}{list(here[0])} in the run.'
                )
    if problems:
        more = f'\n  and {len(problems) - 8} more' if len(problems) > 8 else ''
        raise UserError(
            f'The checkpoint {path} does not fit this run:\n  '
            + '\n  '.join(problems[:8])
            + more
            + '\nContinue with the config that it was saved with, or give another --workdir.'
        )


def parts(wanted: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes with shardings of the leaves of which this process is to hold only a part."""
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
        for name, leaf in storage.named_leaves(wanted).items()
        if (sharding := getattr(leaf, 'sharding', None)) is not None
        and not (sharding.is_fully_addressable or sharding.is_fully_replicated)
    }


def place(arrays: Mapping[str, Any], record: Record, wanted: Any) -> Any:
    """Arrays by name as the tree `wanted`, each where its leaf there says."""

    def put(name: str, leaf: Any) -> Any:
        array, impl = arrays[name], record.leaves[name].impl
        if isinstance(leaf, np.ndarray) or isinstance(array, jax.Array):
            return array
        sharding = getattr(leaf, 'sharding', None)
        if not getattr(leaf, 'committed', True):
            sharding = None  # may meet arrays on any devices, as a committed copy may not
        if impl is not None:
            wrap = functools.partial(jax.random.wrap_key_data, impl=impl)
            return jax.jit(wrap, out_shardings=sharding)(array)
        if sharding is None:
            return jax.numpy.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    leaves = [put(name, leaf) for name, leaf in storage.named_leaves(wanted).items()]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)
