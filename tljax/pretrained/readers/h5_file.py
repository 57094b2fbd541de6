"""Reads Keras .h5 files: their datasets, not their attributes, which may describe programs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tljax.errors import UserError
from tljax.pretrained.readers.weights import (
    BFLOAT16,
    Tensor,
    Weights,
    check_size,
    guarded,
    tensors_of,
)

MAGIC = b'\x89HDF\r\n\x1a\n'
DEEPEST, MOST = 32, 100_000
SMALL = 1 << 20  # bytes of a dataset that may be all fill value, without being stored


def read(path: Path) -> Weights:
    """Opens an HDF5 file; names are the datasets' paths.

    Raises:
      UserError: it is damaged, or refers to other files.
    """
    with guarded(path, 'its HDF5 structure'), opened(path) as file:
        tensors = [tensor_of(path, name, dataset) for name, dataset in datasets(file, path)]
    return Weights(tensors_of(tensors, path), 'h5', (path,))


def opened(path: Path) -> Any:
    import h5py

    return h5py.File(path, 'r')


def datasets(file: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Datasets by path; links are not followed, so that nothing outside the file is opened.

    Raises:
      UserError: a link leads out of the file.
      ValueError: a group has several names, so that a small file could have names without end.
    """
    import h5py

    seen = {address(file)}
    waiting = [(key, file) for key in reversed(list(file))]
    count = 0
    while waiting:
        name, group = waiting.pop()
        key = name.rpartition('/')[2]
        count += 1
        if count > MOST or name.count('/') > DEEPEST:
            raise ValueError('groups lie in groups without end')
        link = group.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise outside(path, name, link.filename)
        if not isinstance(link, h5py.HardLink):
            continue  # another name of something in this file
        item = group[key]
        if isinstance(item, h5py.Dataset):
            yield name, item
        elif isinstance(item, h5py.Group):
            if address(item) in seen:
                raise ValueError(f'the group {name!r} has another name, too')
            seen.add(address(item))
            waiting += [(f'{name}/{key}', item) for key in reversed(list(item))]


def address(group: Any) -> int:
    """Where in the file a group is: the same for all its names."""
    import h5py

    return h5py.h5o.get_info(group.id).addr


def outside(path: Path, name: str, where: Any) -> UserError:
    return UserError(
        f'{path}: {name!r} lies in another file ({where}), which is not opened. Save all weights '
        'in one file.'
    )


def tensor_of(path: Path, name: str, dataset: Any) -> Tensor:
    """One dataset of numbers."""
    if dataset.is_virtual or dataset.external:
        raise outside(path, name, (dataset.external or [['a virtual dataset']])[0][0])
    raw = dataset.dtype
    if raw.kind not in 'biufc' or dataset.shape is None:
        raise UserError(
            f'{path}: the dataset {name!r} holds no plain numbers ({raw}). Save the weights alone: '
            "model.save_weights('FILE.h5')."
        )
    native = raw.newbyteorder('=')
    dtype = BFLOAT16 if raw.name == 'bfloat16' else native
    size = int(np.prod(dataset.shape, dtype=object)) * raw.itemsize
    if size > SMALL:
        check_size(size, dataset.id.get_storage_size(), path)

    def source() -> np.ndarray:
        with opened(path) as file:
            array = np.empty(file[name].shape, native)
            if array.size:
                file[name].read_direct(array)
        return array

    return Tensor(name, tuple(dataset.shape), dtype, path, source)
