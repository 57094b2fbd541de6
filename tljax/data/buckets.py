"""Lengths that batches are cut to, so that short examples are not computed as long ones."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

STEP = 8  # lengths are multiples of it, as matrix products like them


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The lengths of a form, and which of its arrays have them.

    What is cut off is padding, which a mask keeps out of everything.

    Attributes:
      sizes: ascending; the last is the whole length.
      names: of the arrays whose last axis it is; 'mask' is one of them, and 0 at padding, which is
        behind the example.
    """

    sizes: tuple[int, ...]
    names: tuple[str, ...]

    def of(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The number of the smallest length that each example fits into, (n,) uint8.

        >>> Buckets((2, 4), ('mask',)).of({'mask': np.array([[1, 1, 0, 0], [1, 1, 1, 0]])}).tolist()
        [0, 1]
        """
        return np.searchsorted(self.sizes, arrays['mask'].sum(-1)).astype(np.uint8)

    def cut(self, arrays: Mapping[str, Any], number: int) -> dict[str, Any]:
        """The arrays at the length of this number."""
        size = self.sizes[number]
        return {
            name: array[..., :size] if name in self.names else array
            for name, array in arrays.items()
        }


def halved(length: int, count: int) -> tuple[int, ...]:
    """So many lengths at most: the whole, its half, its quarter ..., in multiples of `STEP`.

    >>> halved(100, 3)
    (32, 56, 100)
    """
    parts = {-(-length // (STEP * 2**n)) * STEP for n in range(1, count)}
    return (*sorted(part for part in parts if part < length), length)
