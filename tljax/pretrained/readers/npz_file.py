"""Reads .npz: a ZIP archive of .npy members, none of which is ever unpickled."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from tljax.errors import UserError
from tljax.pretrained.readers.mapped import array_of
from tljax.pretrained.readers.weights import BFLOAT16, Tensor, Weights, damaged, guarded, tensors_of
from tljax.pretrained.readers.zips import Archive

LONGEST_HEADER = 1 << 16
OURS = 'tljax.json'
FIELD = re.compile(r"""['"](descr|fortran_order|shape)['"]\s*:\s*('[^']*'|\w+|\([\dL,\s]*\)|\[)""")
NUMBERS = re.compile(r"'([<>|=]?)([?biufcV]\d{0,2})'")


def read(path: Path, archive: Archive) -> Weights:
    """Opens an .npz file.

    Raises:
      UserError: it is damaged, or holds Python objects.
    """
    members = [name for name in archive if name.endswith('.npy')]
    others = [name for name in archive if not name.endswith('.npy')]
    tensors = [tensor_of(path, archive, member) for member in members]
    metadata: dict[str, Any] = {'other members': others} if others else {}
    if OURS in others:  # what an export of tljax says of its model
        metadata['tljax'] = bytes(archive.read(OURS)).decode('utf-8', 'replace')
    return Weights(tensors_of(tensors, path), 'npz', (path,), metadata=metadata)


def tensor_of(path: Path, archive: Archive, member: str) -> Tensor:
    """The array of one member."""
    name = member.removesuffix('.npy')
    with guarded(path, f'the array {name!r}'):
        start, fields = header_of(archive.head(member, LONGEST_HEADER))
        numbers = NUMBERS.fullmatch(fields['descr'])
        if not numbers:
            raise not_numbers(path, name, fields['descr'])
        dtype = BFLOAT16 if numbers[2] == 'V2' else np.dtype(numbers[2])
        if dtype.kind == 'V' and dtype != BFLOAT16:
            raise not_numbers(path, name, fields['descr'])
        shape = tuple(int(n.rstrip('L')) for n in re.findall(r'\d+L?', fields['shape']))
        if math.prod(shape) * dtype.itemsize != archive.size(member) - start:
            raise damaged(path, f'the array {name!r} has not the size that its header states')

    def source() -> np.ndarray:
        order = 'big' if numbers[1] == '>' else 'little'
        data = archive.read(member)[start:]
        if fields['fortran_order'] == 'True':
            return array_of(data, dtype, shape[::-1], order=order).T
        return array_of(data, dtype, shape, order=order)

    return Tensor(name, shape, dtype, path, source)


def header_of(head: bytes) -> tuple[int, dict[str, str]]:
    """Where the numbers of an .npy file begin, and its fields as text.

    Read with a pattern: evaluating it, even as a literal, is more than it needs.
    """
    if head[:6] != b'\x93NUMPY' or head[6:7] not in (b'\1', b'\2', b'\3'):
        raise ValueError('it does not begin as .npy files of version 1 to 3 do')
    wide = 2 if head[6] == 1 else 4
    start = 8 + wide + int.from_bytes(head[8 : 8 + wide], 'little')
    text = head[8 + wide : start].decode('latin-1' if head[6] < 3 else 'utf-8')
    found = FIELD.findall(text)
    fields = dict(found)
    complete = len(found) == len(fields) == 3 and fields['shape'].startswith('(')
    if start > len(head) or not complete or fields['fortran_order'] not in ('True', 'False'):
        raise ValueError('its header is not one of .npy')
    return start, fields


def not_numbers(path: Path, name: str, descr: str) -> UserError:
    what = (
        'Python objects, which could run code,' if 'O' in descr else f'no plain numbers ({descr})'
    )
    return UserError(
        f'{path}: the array {name!r} holds {what} and is not read. Save arrays of numbers only.'
    )
