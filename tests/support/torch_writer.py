"""Writes files as PyTorch does, opcode by opcode, so that no test of the readers needs PyTorch.

A name in a file needs nothing behind it here: that is also how a file that would run a command is
made without there being one.
"""

import dataclasses
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
CLASSES = {
    'float64': 'DoubleStorage',
    'float32': 'FloatStorage',
    'float16': 'HalfStorage',
    'bfloat16': 'BFloat16Storage',
    'uint8': 'ByteStorage',
    'int8': 'CharStorage',
    'int32': 'IntStorage',
    'int64': 'LongStorage',
    'bool': 'BoolStorage',
}


@dataclasses.dataclass(frozen=True)
class Name:
    """A global, such as Name('posix', 'system')."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """A global called with arguments, and given a state afterwards."""

    function: Any
    args: tuple
    state: Any = None


@dataclasses.dataclass(frozen=True)
class Persistent:
    """A persistent id."""

    key: tuple


@dataclasses.dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    code: bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """A storage: a flat array, under a key of the file."""

    key: str
    array: np.ndarray

    def reference(self, *more: Any) -> Persistent:
        """How a pickle refers to it; PyTorch before 1.6 wrote one more item."""
        kind = Name('torch', CLASSES[self.array.dtype.name])
        return Persistent(('storage', kind, self.key, 'cpu', self.array.size, *more))


def tensor(
    storage: Stored, shape: tuple, strides: tuple | None = None, offset: int = 0, more: tuple = ()
) -> Call:
    """A tensor as torch.save describes it; strides in numbers."""
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    hooks = Call(Name('collections', 'OrderedDict'), ())
    args = (storage.reference(*more), offset, shape, strides, False, hooks)
    return Call(Name('torch._utils', '_rebuild_tensor_v2'), args)


def opcodes(value: Any) -> bytes:
    """The opcodes that build a value, with protocol 2 and without a memo."""
    match value:
        case Raw():
            return value.code
        case Name():
            return f'c{value.module}\n{value.name}\n'.encode()
        case Persistent():
            return opcodes(value.key) + b'Q'
        case Call():
            build = b'' if value.state is None else opcodes(value.state) + b'b'
            return opcodes(value.function) + opcodes(value.args) + b'R' + build
        case dict():
            items = b''.join(opcodes(k) + opcodes(v) for k, v in value.items())
            return b'}(' + items + b'u'
        case list():
            return b'](' + b''.join(map(opcodes, value)) + b'e'
        case tuple():
            return b'(' + b''.join(map(opcodes, value)) + b't'
        case _:
            return pickle.dumps(value, 2)[2:-1]


def pickled(value: Any) -> bytes:
    return b'\x80\x02' + opcodes(value) + b'.'


def raw_bytes(array: np.ndarray, order: str = 'little') -> bytes:
    data = np.ascontiguousarray(array).view(f'u{array.dtype.itemsize}')
    return (data.byteswap() if order == 'big' else data).tobytes()


def write_zip(
    path: Path,
    whole: Any,
    storages: tuple[Stored, ...] = (),
    *,
    order: str = 'little',
    deflate: bool = False,
    more: dict[str, bytes] | None = None,
) -> Path:
    """A file as PyTorch 1.6 and newer write it."""
    kind = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    members = {'data.pkl': pickled(whole), 'byteorder': order.encode()}
    members |= {f'data/{s.key}': raw_bytes(s.array, order) for s in storages}
    with zipfile.ZipFile(path, 'w', kind) as file:
        for name, data in (members | {'version': b'3\n'} | (more or {})).items():
            file.writestr(f'archive/{name}', data)
    return path


def write_legacy(path: Path, whole: Any, storages: tuple[Stored, ...] = ()) -> Path:
    """A file as PyTorch before 1.6 wrote it; its tensors need `more=(None,)`."""
    out = io.BytesIO()
    out.write(pickle.dumps(MAGIC, 2))
    out.write(pickle.dumps(1001, 2))
    out.write(pickle.dumps({'protocol_version': 1001, 'little_endian': True}, 2))
    out.write(pickled(whole))
    out.write(pickle.dumps([s.key for s in storages], 2))
    for s in storages:
        out.write(struct.pack('<q', s.array.size) + raw_bytes(s.array))
    path.write_bytes(out.getvalue())
    return path


def examples() -> dict[str, np.ndarray]:
    """One array of each kind that PyTorch stores."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(3, 4))
    kinds = ('float64', 'float32', 'float16', 'int32', 'int64', 'int8')
    arrays = {kind: (numbers * 9).astype(kind) for kind in kinds}
    arrays['bfloat16'] = numbers.astype(ml_dtypes.bfloat16)
    arrays['uint8'] = np.arange(12, dtype=np.uint8).reshape(3, 4)
    arrays['bool'] = numbers > 0
    arrays['scalar'] = np.array(7.0, np.float32)
    arrays['empty'] = np.zeros((0, 3), np.float32)
    return arrays


def state_dict(
    arrays: dict[str, np.ndarray], more: tuple = ()
) -> tuple[dict[str, Call], tuple[Stored, ...]]:
    """Each array in a storage of its own."""
    stored = {name: Stored(str(i), a.ravel()) for i, (name, a) in enumerate(arrays.items())}
    tensors = {n: tensor(s, arrays[n].shape, more=more) for n, s in stored.items()}
    return tensors, tuple(stored.values())
