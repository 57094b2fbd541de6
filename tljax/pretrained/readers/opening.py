"""Finds the weights at a path, and what format they are in."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax.errors import UserError
from tljax.pretrained.readers import (
    h5_file,
    npz_file,
    orbax_directory,
    safetensors_file,
    torch_file,
)
from tljax.pretrained.readers.sharded import read_index
from tljax.pretrained.readers.weights import ANEW, Weights, damaged, guarded
from tljax.pretrained.readers.zips import Archive

FORMATS = (
    '.safetensors, PyTorch (.pth, .pt, .th, .bin), NumPy (.npz), Keras (.h5) and Orbax directories'
)
INDEX = '.index.json'
IN_ORDER = (  # what is looked for in a directory
    ('model.safetensors',),
    ('model.safetensors.index.json',),
    ('pytorch_model.bin',),
    ('pytorch_model.bin.index.json',),
    ('*.safetensors',),
    ('*.npz',),
    ('*.h5', '*.hdf5'),
    ('*.pth', '*.pt', '*.th'),
)
LARGEST_CONFIG = 16 << 20
PUBLISHED = {'model_type', 'architectures', 'architecture'}  # each such config has one of them
MARKS = re.compile('|'.join(f'"{key}"' for key in sorted(PUBLISHED)).encode())
POOLING = '1_Pooling/config.json'


def open_weights(path: str | Path) -> Weights:
    """Opens weights; their numbers are read when they are asked for.

    Args:
      path: a file of any format that is read, whatever its suffix; an index of shards; or a
        directory with one of them, or with an Orbax checkpoint.

    Raises:
      UserError: there is nothing of the kind, or it is damaged, or it is not safe to read.

    >>> import tempfile
    >>> import numpy as np
    >>> file = Path(tempfile.mkdtemp(), 'small.npz')
    >>> np.savez(file, kernel=np.ones((2, 3), np.float32))
    >>> weights = open_weights(file)
    >>> weights.format, {name: t.shape for name, t in weights.tensors.items()}
    ('npz', {'kernel': (2, 3)})
    >>> weights.tensors['kernel'].read()[0]
    array([1., 1., 1.], dtype=float32)
    """
    path = Path(path)
    try:
        if path.is_dir():
            return orbax_directory.read(path, configs(path)) or open_file(candidate(path))
        return open_file(path)
    except FileNotFoundError as error:
        raise UserError(f'There is no file {error.filename or path}. Name another.') from error
    except OSError as error:
        raise damaged(path, str(error), 'Check that you may read it.') from error


def open_file(path: Path) -> Weights:
    """Opens one file, or all files of an index."""
    sharded = path.name.endswith(INDEX)
    weights = read_index(path, read_one) if sharded else read_one(path)
    return Weights(
        weights.tensors, weights.format, weights.files, configs(path.parent), weights.metadata
    )


def read_one(path: Path) -> Weights:
    """Opens one file by what its first bytes are."""
    with open(path, 'rb') as file:
        head = file.read(512)
    if not head:
        raise damaged(path, 'it is empty')
    if head.startswith((b'PK\3\4', b'PK\5\6')):
        return read_archive(path)
    if torch_file.is_legacy(head):
        return torch_file.read_legacy(path)
    if head.startswith(h5_file.MAGIC):
        return h5_file.read(path)
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= safetensors_file.LARGEST_HEADER:
        return safetensors_file.read(path)
    raise unknown(path, head)


def read_archive(path: Path) -> Weights:
    """Opens a ZIP file by what its members are."""
    archive = Archive(path)
    pickles = [name for name in archive if name == 'data.pkl' or name.endswith('/data.pkl')]
    if len(pickles) == 1:
        return torch_file.read_zip(path, archive, pickles[0])
    if any(name.endswith('.npy') for name in archive):
        return npz_file.read(path, archive)
    if any(name.endswith('model.weights.h5') for name in archive):
        raise UserError(
            f'{path} is a .keras archive, which is not read. Save the weights alone: '
            "model.save_weights('FILE.h5'), or unpack model.weights.h5 from it."
        )
    raise UserError(
        f'{path} is a ZIP archive with neither the data.pkl of PyTorch nor the .npy members of '
        f'NumPy. Formats that are read: {FORMATS}.'
    )


def unknown(path: Path, head: bytes) -> UserError:
    """What to tell of a file whose first bytes say nothing."""
    if head[257:262] == b'ustar':
        what = (
            'is a tar archive. If PyTorch before 0.2 wrote it, load it with PyTorch and save its '
            'state_dict() again.'
        )
    elif head.startswith(b'version https://git-lfs'):
        what = 'is a pointer of Git LFS, not the file itself. Fetch it with `git lfs pull`.'
    elif head.lstrip()[:1] == b'<':
        what = 'is a web page, perhaps of a failed download. Fetch the file again.'
    elif head[:1] == b'\x80' and head[1:2] <= b'\5':
        what = (
            'is a plain Python pickle, which could run a command: it is not read. Save its arrays '
            'as safetensors or npz.'
        )
    else:
        what = f'is of an unknown format: it begins with {head[:8].hex(" ")}.'
    return UserError(f'{path} {what} Formats that are read: {FORMATS}.')


def candidate(directory: Path) -> Path:
    """The file of weights in a directory.

    Raises:
      UserError: there is none, or more than one of a kind.
    """
    for patterns in IN_ORDER:
        found = sorted(
            path
            for pattern in patterns
            for path in directory.glob(pattern)
            if not path.name.startswith('.')
        )
        if len(found) > 1:
            names = ', '.join(path.name for path in found)
            raise UserError(f'{directory} holds several files of weights: {names}. Name one.')
        if found:
            return found[0]
    here = sorted(path.name for path in directory.iterdir())
    raise UserError(
        f'{directory} holds no weights; it holds {", ".join(here[:8]) or "nothing"}'
        f'{", ..." if len(here) > 8 else ""}. Formats that are read: {FORMATS}.'
    )


def configs(directory: Path) -> Mapping[str, Any]:
    """The published config.json of a directory, {} if there is none, and that of its pooling."""
    config = published(directory / 'config.json')
    pooling = json_object(directory / POOLING)
    return config | {'pooling': pooling} if pooling else config


def published(path: Path) -> dict[str, Any]:
    """A config.json as model hubs have it; {} where there is none or it is another program's.

    Raises:
      UserError: it is damaged, and was one of a model: without it the numbers that no shape shows,
        such as that of heads, would be guessed.
    """
    if not path.is_file() or path.stat().st_size > LARGEST_CONFIG:
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        if MARKS.search(path.read_bytes()):
            raise damaged(path, f'its JSON is damaged ({error})') from error
        return {}
    known = isinstance(content, dict) and not PUBLISHED.isdisjoint(content)
    return content if known else {}


def json_object(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file."""
    if not path.is_file():
        return {}
    with guarded(path, 'its JSON'):
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f'it has {path.stat().st_size:,} bytes')
        content = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(content, dict):
        raise damaged(path, 'it is no JSON object', ANEW)
    return content
