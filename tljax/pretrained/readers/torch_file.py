"""Reads what `torch.save` writes, without PyTorch and without running what is inside.

Since 1.6 that is a ZIP archive: a pickle that describes tensors, and one stored member for each
storage. Before, and with `_use_new_zipfile_serialization=False`, it was five pickles one after
another (a magic number, a version, the machine, the object, the storages' keys), then the storages.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tljax.pretrained.readers.mapped import Mapped, Window, array_of
from tljax.pretrained.readers.numpy_pickle import Array, expect, ints, shown
from tljax.pretrained.readers.torch_pickle import (
    Storage,
    Strided,
    forbidden,
    storage_dtype,
    unpickle,
)
from tljax.pretrained.readers.torch_state import Leaf, state_of
from tljax.pretrained.readers.weights import Tensor, Weights, damaged, guarded, tensors_of
from tljax.pretrained.readers.zips import Archive

MAGIC = 0x1950A86A20F9469CFC6C
MAGIC_BYTES = MAGIC.to_bytes(10, 'little')
MAGIC_TEXT = f'L{MAGIC}'.encode()
VERSION = 1001
LARGEST_PICKLE = 256 << 20

Bytes = Callable[[Storage], memoryview]


def read_zip(path: Path, archive: Archive, pickle: str) -> Weights:
    """Opens a file of PyTorch 1.6 or newer.

    Args:
      path: of the file.
      archive: it, opened.
      pickle: name of its member data.pkl.

    Raises:
      UserError: it is damaged, asks for anything but tensors, or holds no dict of them.
    """
    prefix = pickle.removesuffix('data.pkl')
    if f'{prefix}constants.pkl' in archive.members:
        raise forbidden(path, '__torch__.*', whole=True)
    if archive.size(pickle) > LARGEST_PICKLE:
        raise damaged(path, f'its pickle has {archive.size(pickle):,} bytes')

    def persistent(key: Any) -> Storage:
        kind, storage_class, name, _, count = expect(key, tuple)
        if kind != 'storage':
            raise ValueError(f'it refers to {shown(kind)}')
        (count,) = ints((count,))
        storage = Storage(expect(name, str), storage_dtype(storage_class), count)
        member = f'{prefix}data/{name}'
        if member not in archive.members:
            raise ValueError(f'the member {member} is missing')
        if archive.size(member) != storage.nbytes:
            raise ValueError(f'{member} has {archive.size(member):,} bytes, not {storage.nbytes:,}')
        return storage

    whole = unpickle(Window(bytes(archive.read(pickle))), path, persistent)
    order = 'little'
    if f'{prefix}byteorder' in archive.members:
        order = bytes(archive.read(f'{prefix}byteorder')).decode('latin-1')
        if order not in ('little', 'big'):
            raise damaged(path, f'its byte order is {shown(order)}')
    return weights_of(whole, path, 'torch', lambda s: archive.read(f'{prefix}data/{s.key}'), order)


def is_legacy(head: bytes) -> bool:
    """Whether a file begins with the pickled magic number, whatever the protocol."""
    return head.startswith(MAGIC_TEXT) or (head[:1] == b'\x80' and MAGIC_BYTES in head[:32])


def read_legacy(path: Path) -> Weights:
    """Opens a file of PyTorch before 1.6.

    Raises:
      UserError: it is damaged, asks for anything but tensors, or holds no dict of them.
    """
    mapped = Mapped(path)
    roots: dict[str, Storage] = {}
    views: list[tuple[Storage, Storage, int]] = []

    def persistent(key: Any) -> Storage:
        kind, storage_class, name, _, count, *view = expect(key, tuple)
        if kind not in ('storage', b'storage'):
            raise ValueError(f'it refers to {shown(kind)}')
        (count,) = ints((count,))
        root = Storage(key_of(name), storage_dtype(storage_class), count)
        root = roots.setdefault(root.key, root)
        if (root.dtype, root.count) != (storage_dtype(storage_class), count):
            raise ValueError(f'it describes the storage {shown(name)} in two ways')
        if not view or view[0] is None:
            return root
        _, start, size = view[0]
        start, size = ints((start, size))
        if start + size > root.count:
            raise ValueError(f'it looks at numbers {start} to {start + size} of {root.count}')
        part = Storage(root.key, root.dtype, size)
        views.append((part, root, start))
        return part

    window = Window(mapped.bytes)
    parts = []
    for _ in range(5):
        window.stop = min(window.position + LARGEST_PICKLE, len(mapped))
        parts.append(unpickle(window, path, persistent))
    magic, version, _, whole, keys = parts
    if (magic, version) != (MAGIC, VERSION):
        raise damaged(path, f'it is of version {shown(version)}, and only {VERSION} is known')
    with guarded(path, 'its list of storages'):
        place(mapped, window.position, [key_of(key) for key in expect(keys, list)], roots)
    for part, root, start in views:
        part.begin = expect(root.begin, int) + start * root.dtype.itemsize
    return weights_of(whole, path, 'torch (legacy)', lambda s: bytes_of(mapped, s))


def key_of(name: Any) -> str:
    """A storage's name: text, or a number in the earliest files."""
    return shown(name) if type(name) is int else expect(name, str)


def place(mapped: Mapped, position: int, keys: list[str], roots: dict[str, Storage]) -> None:
    """Finds where in the file each storage begins: each is a count, then the numbers."""
    if sorted(keys) != sorted(roots):
        raise ValueError('its storages are not those that its tensors use')
    for key in keys:
        storage = roots[key]
        count = int.from_bytes(mapped.view(position, position + 8), 'little')
        if count != storage.count:
            raise ValueError(f'the storage {key} has {count} numbers, not {storage.count}')
        storage.begin = position + 8
        position = storage.begin + storage.nbytes
        if position > len(mapped):
            raise ValueError(f'the file ends at byte {len(mapped):,}, in the storage {key}')


def bytes_of(mapped: Mapped, storage: Storage) -> memoryview:
    begin = expect(storage.begin, int)
    return mapped.view(begin, begin + storage.nbytes)


def weights_of(whole: Any, path: Path, form: str, data: Bytes, order: str = 'little') -> Weights:
    """The weights of an unpickled file."""
    with guarded(path, 'what it holds'):
        leaves, metadata = state_of(whole, path)
        tensors = [tensor_of(path, name, leaf, data, order) for name, leaf in leaves.items()]
    return Weights(tensors_of(tensors, path), form, (path,), metadata=metadata)


def tensor_of(path: Path, name: str, leaf: Leaf, data: Bytes, order: str) -> Tensor:
    """One tensor, checked to lie within its storage."""
    if isinstance(leaf, Array):
        array = leaf.array
        native = array.dtype.newbyteorder('=')  # one array may have many names: copied when read
        return Tensor(name, array.shape, native, path, lambda: array.astype(native, copy=False))
    check_extent(leaf, name)

    def source() -> np.ndarray:
        return array_of(
            data(leaf.storage),
            leaf.dtype,
            leaf.shape,
            offset=leaf.offset,
            strides=leaf.strides,
            order=order,
        )

    return Tensor(name, leaf.shape, leaf.dtype, path, source)


def check_extent(leaf: Strided, name: str) -> None:
    """Checks that a tensor lies within its storage."""
    if 0 in leaf.shape:
        return
    steps = zip(leaf.shape, leaf.strides, strict=True)
    last = leaf.offset + sum((n - 1) * stride for n, stride in steps)
    if (last + 1) * leaf.dtype.itemsize > leaf.storage.nbytes:
        raise ValueError(f'the tensor {name!r} reaches beyond its storage')
