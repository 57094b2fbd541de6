"""What the names in PyTorch's pickles stand for: plain data, and descriptions of tensors."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tljax.errors import UserError
from tljax.pretrained.readers.mapped import Window
from tljax.pretrained.readers.numpy_pickle import (
    Array,
    Dtype,
    array_from,
    as_bytes,
    encode,
    expect,
    ints,
    scalar,
    shown,
)
from tljax.pretrained.readers.pickle_keys import Symbol, checked_key
from tljax.pretrained.readers.pickle_machine import ForbiddenError, Machine, Stateful
from tljax.pretrained.readers.weights import BFLOAT16, guarded

DTYPES = {
    'float64': np.dtype(np.float64),
    'float32': np.dtype(np.float32),
    'float16': np.dtype(np.float16),
    'bfloat16': BFLOAT16,
    'float8_e4m3fn': np.dtype(ml_dtypes.float8_e4m3fn),
    'float8_e4m3fnuz': np.dtype(ml_dtypes.float8_e4m3fnuz),
    'float8_e5m2': np.dtype(ml_dtypes.float8_e5m2),
    'float8_e5m2fnuz': np.dtype(ml_dtypes.float8_e5m2fnuz),
    'float8_e8m0fnu': np.dtype(ml_dtypes.float8_e8m0fnu),
    'uint8': np.dtype(np.uint8),
    'uint16': np.dtype(np.uint16),
    'uint32': np.dtype(np.uint32),
    'uint64': np.dtype(np.uint64),
    'int8': np.dtype(np.int8),
    'int16': np.dtype(np.int16),
    'int32': np.dtype(np.int32),
    'int64': np.dtype(np.int64),
    'bool': np.dtype(np.bool_),
    'complex64': np.dtype(np.complex64),
    'complex128': np.dtype(np.complex128),
}
STORAGES = {
    'DoubleStorage': 'float64',
    'FloatStorage': 'float32',
    'HalfStorage': 'float16',
    'BFloat16Storage': 'bfloat16',
    'ByteStorage': 'uint8',
    'CharStorage': 'int8',
    'ShortStorage': 'int16',
    'IntStorage': 'int32',
    'LongStorage': 'int64',
    'BoolStorage': 'bool',
    'ComplexFloatStorage': 'complex64',
    'ComplexDoubleStorage': 'complex128',
    'UntypedStorage': 'uint8',
    '_UntypedStorage': 'uint8',
}
SPECIAL = (
    (
        r'torch\._utils\._rebuild_qtensor|torch\.(cuda\.)?Q\w+Storage',
        'holds quantised tensors, whose numbers are integers with a scale beside them',
        'Save the model before it was quantised, or `dequantize()` its tensors first.',
    ),
    (
        r'torch\._utils\._rebuild_sparse\w*',
        'holds sparse tensors',
        'Save their `to_dense()`.',
    ),
    (
        r'__torch__\..*',
        'is a TorchScript program, not a file of weights',
        'Save its `state_dict()`: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE).',
    ),
)
MODULES = re.compile(rb'torch\.nn\.modules')
HOW_TO_SAVE = (
    'where you trust the file, load it with PyTorch and save its weights alone, as '
    "safetensors: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')."
)


@dataclasses.dataclass(eq=False)
class Storage:
    """A run of numbers in the file, which several tensors may share.

    Attributes:
      key: its name in the file.
      dtype: of its numbers.
      count: of numbers.
      begin: byte of the file where they begin, where the format says it after the pickle.
    """

    key: str
    dtype: np.dtype
    count: int
    begin: int | None = None

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, eq=False)
class Strided:
    """A tensor: a window on a storage. Offset and strides count numbers."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Fields(dict, Stateful):
    """The attributes of an object that has nothing else, such as argparse.Namespace."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def set_state(self, state: Any) -> None:
        self.update(pairs(state))


def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Strided:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2."""
    storage, shape, strides = expect(storage, Storage), ints(shape), ints(strides)
    (offset,) = ints((offset,))
    if len(strides) != len(shape):
        raise ValueError(f'the strides {strides} do not fit the shape {shape}')
    return Strided(storage, storage.dtype, offset, shape, strides)


def tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Strided:
    """torch._utils._rebuild_tensor_v3: for dtypes that have no storage class of their own."""
    kind = DTYPES[expect(dtype, Symbol).name.removeprefix('torch.')]
    return dataclasses.replace(tensor(storage, offset, shape, strides), dtype=kind)


def tensor_with_attributes(function: Any, kind: Any, args: Any, state: Any) -> Strided:
    """torch._tensor._rebuild_from_type_v2: a tensor that somebody gave attributes."""
    known: dict[str, Callable[..., Strided]] = {
        'torch._utils._rebuild_tensor_v2': tensor,
        'torch._utils._rebuild_tensor_v3': tensor_v3,
        'torch._utils._rebuild_parameter': parameter,
    }
    name = expect(function, Symbol).name
    if name not in known:
        raise ForbiddenError(name)
    return known[name](*expect(args, tuple))


def parameter(data: Any, *_: Any) -> Strided:
    """torch._utils._rebuild_parameter: a parameter is its tensor."""
    return expect(data, Strided)


def device(*args: Any) -> str:
    return ':'.join(arg if isinstance(arg, str) else shown(arg) for arg in args)


def pairs(items: Any = ()) -> dict:
    """collections.OrderedDict: dicts keep their order."""
    found = items.items() if isinstance(items, dict) else listed(items)
    return {checked_key(key): value for key, value in found}


def listed(items: Any = ()) -> list:
    """A list of what lies in another; not of a text's letters, which are larger than it is."""
    if not isinstance(items, list | tuple | set | frozenset | dict):
        raise TypeError(f'there is {shown(items)} where a list belongs')
    return list(items)


def defaults(_: Any = None, *items: Any) -> dict:
    """collections.defaultdict."""
    return pairs(*items)


def builders() -> dict[str, Callable[..., Any] | None]:
    """Every name that a file may use, and what stands for it; None: as a name only."""
    table: dict[str, Callable[..., Any] | None] = {
        'collections.OrderedDict': pairs,
        'collections.Counter': pairs,
        'collections.defaultdict': defaults,
        '_codecs.encode': encode,
        'torch._utils._rebuild_tensor': tensor,
        'torch._utils._rebuild_tensor_v2': tensor,
        'torch._utils._rebuild_tensor_v3': tensor_v3,
        'torch._utils._rebuild_parameter': parameter,
        'torch._utils._rebuild_parameter_with_state': parameter,
        'torch.nn.parameter.Parameter': parameter,
        'torch._tensor._rebuild_from_type_v2': tensor_with_attributes,
        'torch.Tensor': None,
        'torch.Size': lambda shape=(): ints(shape),
        'torch.device': device,
        'numpy.dtype': Dtype,
        'numpy.ndarray': None,
        'argparse.Namespace': Fields,
    }
    for module in ('builtins', '__builtin__'):
        table[f'{module}.dict'] = pairs
        table[f'{module}.list'] = listed
        table[f'{module}.set'] = lambda items=(): set(map(checked_key, listed(items)))
        table[f'{module}.frozenset'] = lambda items=(): frozenset(map(checked_key, listed(items)))
        table[f'{module}.bytearray'] = lambda data=b'', *code: as_bytes(data)
        table[f'{module}.complex'] = lambda real=0.0, imag=0.0: complex(real, imag)
        table |= {f'{module}.{name}': None for name in ('int', 'float', 'str', 'bool', 'bytes')}
    for module in ('numpy.core', 'numpy._core'):
        table[f'{module}.multiarray.scalar'] = scalar
        table[f'{module}.multiarray._reconstruct'] = lambda *_: Array()
        table[f'{module}.numeric._frombuffer'] = array_from
    for name in STORAGES:
        table |= {f'torch.{name}': None, f'torch.cuda.{name}': None, f'torch.storage.{name}': None}
    return table | {f'torch.{name}': None for name in DTYPES}


def storage_dtype(kind: Any) -> np.dtype:
    """The dtype of a storage's class."""
    return DTYPES[STORAGES[expect(kind, Symbol).name.rpartition('.')[2]]]


def unpickle(window: Window, path: Path, persistent: Callable[[Any], Any] | None = None) -> Any:
    """What a pickle of PyTorch's holds, nothing of it having been run.

    Raises:
      UserError: it is damaged, or names anything that weights have no need of.
    """
    begin = window.position
    try:
        with guarded(path, 'its pickle'):
            return Machine(builders(), persistent).load(window)
    except ForbiddenError as error:
        raw = bytes(window.buffer[begin : window.stop])
        raise forbidden(path, str(error), bool(MODULES.search(raw))) from error


def forbidden(path: Path, name: str, whole: bool) -> UserError:
    """What to tell of a name that is not in the list."""
    for pattern, what, remedy in SPECIAL:
        if re.fullmatch(pattern, name):
            return UserError(f'{path} {what} ({name}): that is not read. {remedy}')
    if whole or name.startswith('torch.nn.'):
        return UserError(
            f'{path} holds a whole pickled module ({name}), which only its own program could '
            f'build, by running what the file says: that is not read. Save its state_dict(): '
            f'{HOW_TO_SAVE}'
        )
    return UserError(
        f'{path} is not read: its pickle asks for {name}, which weights have no need of and which '
        f'could run a command. Nothing of it was run. If that is expected, then {HOW_TO_SAVE}'
    )
