"""A file mapped into memory, and views of it."""

import math
import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tljax.pretrained.readers.weights import damaged

KEPT = 4 << 20  # bytes handed out before the pages that they came from are let go


class Mapped:
    """A file as read-only bytes. Views of it keep it open; nothing else does.

    A page that was read counts as this process's memory. So that reading a large file piece by
    piece doesn't add up to the whole of it, pages are let go from time to time; a view that is
    still in use finds them again in the system's cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, 'rb') as file:
            if not path.stat().st_size:
                raise damaged(path, 'it is empty')
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._handed_out = 0

    def __len__(self) -> int:
        return len(self.bytes)

    def view(self, start: int, stop: int) -> memoryview:
        """The bytes from `start` to `stop`.

        Raises:
          UserError: the file is too short.
        """
        if not 0 <= start <= stop <= len(self):
            raise damaged(
                self.path, f'it ends at byte {len(self):,}, and bytes up to {stop:,} are needed'
            )
        self._count(stop - start)
        return memoryview(self.bytes)[start:stop]

    def _count(self, size: int) -> None:
        self._handed_out += size
        if self._handed_out > KEPT and hasattr(mmap, 'MADV_DONTNEED'):
            self.bytes.madvise(mmap.MADV_DONTNEED)
            self._handed_out = 0


class Window:
    """A file-like view of bytes; its `position` stands after what was read.

    Args:
      buffer: bytes, or a memory map.
    """

    def __init__(self, buffer: Any) -> None:
        self.buffer, self.position, self.stop = buffer, 0, len(buffer)

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        begin = self.position
        self.position = min(begin + count, self.stop)
        return bytes(self.buffer[begin : self.position])

    def readline(self) -> bytes:
        """The bytes up to the next newline, it included."""
        end = self.buffer.find(b'\n', self.position, self.stop)
        return self.read((self.stop if end < 0 else end + 1) - self.position)

    def tell(self) -> int:
        return self.position


def array_of(
    data: memoryview | bytes,
    dtype: np.dtype,
    shape: tuple[int, ...],
    *,
    offset: int = 0,
    strides: tuple[int, ...] | None = None,
    order: str = 'little',
) -> np.ndarray:
    """A view of bytes as an array, or a copy where their order is not this machine's.

    Args:
      data: the bytes.
      dtype: in this machine's byte order.
      shape: of the array.
      offset: of its first element, in elements.
      strides: in elements; None is the C order.
      order: of the bytes of a number: 'little' or 'big'.

    Raises:
      ValueError: the array leaves the bytes.

    >>> array_of(bytes(range(6)), np.dtype('u1'), (3, 2), strides=(1, 3))
    array([[0, 3],
           [1, 4],
           [2, 5]], dtype=uint8)
    """
    if strides is None:
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min((*shape, *strides, offset, 0)) < 0:
        raise ValueError(f'shape {shape} and strides {strides} make no sense')
    if 0 in shape:
        return np.zeros(shape, dtype)
    if (last + 1) * dtype.itemsize > len(data):
        raise ValueError(f'{last + 1} numbers are needed, and {len(data)} bytes are there')
    size = dtype.itemsize
    # ml_dtypes has no byte-swapped dtypes, so that bytes are turned round as unsigned integers.
    plain = dtype if order == sys.byteorder or size == 1 else np.dtype(f'u{size}')
    array: np.ndarray = np.ndarray(
        shape,
        plain,
        data,
        offset * size,
        tuple(stride * size if n > 1 else 0 for n, stride in zip(shape, strides, strict=True)),
    )
    return array if plain is dtype else array.byteswap().view(dtype)
