"""What the names in pickled numpy arrays and numbers stand for: plain data, built here."""

import re
from typing import Any

import numpy as np

from tljax.pretrained.readers.pickle_machine import ForbiddenError, Stateful

SHORT = 80  # characters, or bits
MOST_AXES = 64
NUMPY_KIND = re.compile(r'[biufc]\d{1,2}')


class Dtype(Stateful):
    """A numpy dtype under construction: its state holds the byte order."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if not isinstance(kind, str) or not NUMPY_KIND.fullmatch(kind):
            raise ForbiddenError(f'numpy.dtype({shown(kind)})')
        self.dtype = np.dtype(kind)

    def set_state(self, state: Any) -> None:
        order = state[1]
        if order not in ('<', '>', '=', '|'):
            raise ValueError(f'{shown(order)} is no byte order')
        self.dtype = self.dtype.newbyteorder(order)


class Array(Stateful):
    """A numpy array under construction: its state holds everything."""

    array: np.ndarray

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.array = array_from(data, dtype, shape, 'F' if fortran else 'C').array


def array_from(data: Any, dtype: Any, shape: Any, order: Any = 'C') -> Array:
    """A numpy array of bytes."""
    made = Array()
    flat = np.frombuffer(as_bytes(data), expect(dtype, Dtype).dtype)
    made.array = flat.reshape(ints(shape), order='F' if order == 'F' else 'C')
    return made


def scalar(dtype: Any, data: Any = b'') -> Any:
    """A numpy scalar, as a Python number."""
    kind = expect(dtype, Dtype).dtype
    return np.frombuffer(as_bytes(data), kind, 1)[0].item() if data else kind.type(0).item()


def as_bytes(data: Any) -> bytes:
    """Bytes; Python 2 wrote them as text."""
    return data.encode('latin-1') if isinstance(data, str) else bytes(expect(data, bytes))


def encode(text: Any, code: Any = 'latin1') -> bytes:
    """How protocols below 3 write bytes."""
    if code not in ('latin1', 'latin-1', 'utf-8'):
        raise ValueError(f'{shown(code)} is no known coding of bytes')
    return expect(text, str).encode(code)


def expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f'there is a {type(value).__name__} where a {kind.__name__} belongs')
    return value


def ints(values: Any) -> tuple[int, ...]:
    """A tuple of numbers that are not negative, such as a shape."""
    if len(expect(values, tuple)) > MOST_AXES:
        raise ValueError(f'a shape of {len(values):,} numbers')
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in values):
        raise ValueError(f'({", ".join(map(shown, values))}) is no shape')
    return values


def shown(value: Any) -> str:
    """A pickle's value in a message: short text or a number, of anything else its type's name.

    Tuples in tuples in tuples, each twice in the next, would have a text without end.

    >>> shown('cuda'), shown(((1, 2), 3))
    ("'cuda'", 'a tuple')
    """
    if isinstance(value, str | bytes) and len(value) <= SHORT:
        return repr(value)
    if isinstance(value, int) and value.bit_length() <= SHORT:
        return repr(value)
    return f'a {type(value).__name__}'
