"""Reads .safetensors: eight bytes of header length, a JSON header, then the numbers.

The safetensors package gives numpy arrays only as copies, and neither bfloat16 nor float8; the
format is simple enough to map it here, with the package's own strictness about the header.
"""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tljax.errors import UserError
from tljax.pretrained.readers.mapped import Mapped, array_of
from tljax.pretrained.readers.weights import (
    BFLOAT16,
    Tensor,
    Weights,
    damaged,
    guarded,
    tensors_of,
)

LARGEST_HEADER = 100_000_000  # as in the package
DTYPES = {
    'BOOL': np.dtype(np.bool_),
    'U8': np.dtype(np.uint8),
    'I8': np.dtype(np.int8),
    'U16': np.dtype(np.uint16),
    'I16': np.dtype(np.int16),
    'U32': np.dtype(np.uint32),
    'I32': np.dtype(np.int32),
    'U64': np.dtype(np.uint64),
    'I64': np.dtype(np.int64),
    'F16': np.dtype(np.float16),
    'BF16': BFLOAT16,
    'F32': np.dtype(np.float32),
    'F64': np.dtype(np.float64),
    'C64': np.dtype(np.complex64),
    'F8_E4M3': np.dtype(ml_dtypes.float8_e4m3fn),
    'F8_E5M2': np.dtype(ml_dtypes.float8_e5m2),
    'F8_E4M3FNUZ': np.dtype(ml_dtypes.float8_e4m3fnuz),
    'F8_E5M2FNUZ': np.dtype(ml_dtypes.float8_e5m2fnuz),
    'F8_E8M0': np.dtype(ml_dtypes.float8_e8m0fnu),
}


def read(path: Path) -> Weights:
    """Opens one .safetensors file.

    Raises:
      UserError: it is damaged, or of a dtype that numpy cannot hold.
    """
    mapped = Mapped(path)
    with guarded(path, 'its header'):
        length = int.from_bytes(mapped.view(0, 8), 'little')
        if length > LARGEST_HEADER:
            raise ValueError(f'its length is {length:,} bytes')
        text = bytes(mapped.view(8, 8 + length)).decode('utf-8')
        header = json.loads(text, object_pairs_hook=without_repetition)
        if not isinstance(header, dict):
            raise ValueError('it is no JSON object')
        metadata = header.pop('__metadata__', None) or {}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError('__metadata__ holds other things than texts')
        check_layout(header, len(mapped) - 8 - length)
        tensors = [tensor_of(mapped, name, header[name], 8 + length) for name in header]
    return Weights(tensors_of(tensors, path), 'safetensors', (path,), metadata=metadata)


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError('a name stands in it twice')
    return found


def check_layout(header: dict[str, Any], size: int) -> None:
    """Checks that the tensors lie one after another and fill the file."""
    end = 0
    for start, stop, name in sorted(
        (*entry['data_offsets'], name) for name, entry in header.items()
    ):
        if not (type(start) is int and type(stop) is int and start <= stop):
            raise ValueError(f'{name!r} lies at {start!r} to {stop!r}')
        if start != end:
            what = 'overlaps' if start < end else 'leaves a gap after'
            raise ValueError(f'{name!r} {what} the tensor before it')
        end = stop
    if end != size:
        raise ValueError(f'its tensors take {end:,} bytes, and the file has {size:,} of them')


def tensor_of(mapped: Mapped, name: str, entry: dict[str, Any], begin: int) -> Tensor:
    """The tensor of one entry of the header."""
    kind, shape = entry['dtype'], tuple(entry['shape'])
    if kind not in DTYPES:
        raise UserError(
            f'{mapped.path}: the tensor {name!r} is {kind}, which is not read. Read are '
            f'{", ".join(DTYPES)}; save it as one of them.'
        )
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f'{name!r} has shape {shape}')
    start, stop = (begin + offset for offset in entry['data_offsets'])

    def source() -> np.ndarray:
        return array_of(mapped.view(start, stop), DTYPES[kind], shape)

    tensor = Tensor(name, shape, DTYPES[kind], mapped.path, source)
    if tensor.nbytes != stop - start:
        raise damaged(
            mapped.path, f'{name!r} has shape {shape} of {kind}, but {stop - start:,} bytes'
        )
    return tensor
