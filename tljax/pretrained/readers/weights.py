"""What every reader gives: tensors by name, their numbers read when asked for."""

import contextlib
import dataclasses
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tljax.errors import UserError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# What the parsers of the standard library, numpy and h5py raise on bytes that make no sense.
MALFORMED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
ANEW = 'Fetch it again, or save it anew.'
INFLATION = 20  # bytes of tensors that one byte of a file may stand for
FREE = 256 << 20  # bytes of tensors that are believed without that


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a file.

    Attributes:
      name: as the file has it.
      shape: of what `read` gives.
      dtype: likewise, in this machine's byte order; bfloat16 and float8 are those of ml_dtypes.
      file: where it is.
      source: gives the numbers; call `read` instead.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    file: Path
    source: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of what `read` gives."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The numbers, read-only: a view of the mapped file, or where none is possible a copy.

        Raises:
          UserError: they are damaged.
        """
        with guarded(self.file, f'the tensor {self.name!r}'):
            array = np.asarray(self.source()).view()
            if (array.shape, array.dtype) != (self.shape, self.dtype):
                raise ValueError(f'it is {array.dtype} of shape {array.shape}')
            array.flags.writeable = False
            return array


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """A file of weights, or several that belong together.

    Attributes:
      tensors: by name, in the order of the file.
      format: 'safetensors', 'torch', 'torch (legacy)', 'npz', 'h5' or 'orbax'.
      files: those that hold the tensors; for Orbax the directory.
      config: the config.json beside them, {} if there is none of a published model; a
        1_Pooling/config.json is its 'pooling'.
      metadata: what else the file says, such as the epoch of its training.
    """

    tensors: Mapping[str, Tensor]
    format: str
    files: tuple[Path, ...]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def tensors_of(tensors: Iterable[Tensor], file: Path) -> dict[str, Tensor]:
    """Tensors by name, if the file is large enough for what it claims to hold.

    Raises:
      UserError: it would fill the memory with far more than it holds.
    """
    named = {tensor.name: tensor for tensor in tensors}
    check_size(sum(tensor.nbytes for tensor in named.values()), file.stat().st_size, file)
    return named


def check_size(claimed: int, held: int, file: Path) -> None:
    """Refuses what unpacks to many times its size: it is a bomb, or damaged.

    Raises:
      UserError: the claim is not believed.
    """
    if claimed > FREE + INFLATION * held:
        raise UserError(
            f'{file} claims to hold {claimed:,} bytes in {held:,}, more than {INFLATION} times as '
            'much: it is not read. If it is meant, save it anew without compression.'
        )


def damaged(file: Path, why: str, advice: str = ANEW) -> UserError:
    """What to tell the user of a file that is not what it should be.

    >>> str(damaged(Path('a.npz'), 'it ends too early'))
    'a.npz cannot be read: it ends too early. Fetch it again, or save it anew.'
    """
    return UserError(f'{file} cannot be read: {why}. {advice}')


@contextlib.contextmanager
def guarded(file: Path, what: str) -> Iterator[None]:
    """Turns whatever a parser raises on a damaged file into one error that names the file."""
    try:
        yield
    except UserError:
        raise
    except MALFORMED as error:
        why = ' '.join(str(error).split())[:300].rstrip('.') or type(error).__name__
        raise damaged(file, f'{what} is damaged ({why})') from error
