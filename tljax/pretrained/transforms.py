"""How one foreign tensor becomes our leaves, and back: permutations of values, never arithmetic.

Every transform is exact in both directions, so that export(import(file)) is the file's values bit
for bit.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Arrays = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Transform:
    """One way to lay values out.

    Attributes:
      rank: of their tensor; None is any.
      parts: number of our leaves.
      to_ours: their tensor -> our leaves.
      to_theirs: our leaves, and the model's arguments -> their tensor.
    """

    rank: int | None
    parts: int
    to_ours: Callable[[np.ndarray], Arrays]
    to_theirs: Callable[[Arrays, Mapping[str, Any]], np.ndarray]


def permutation(*axes: int) -> Transform:
    """Their axes in our order."""
    back = tuple(int(axis) for axis in np.argsort(axes))
    return Transform(
        len(axes),
        1,
        lambda a: (a.transpose(axes),),
        lambda parts, _: parts[0].transpose(back),
    )


def split(axis: int, rank: int, transposed: bool) -> Transform:
    """Queries, keys and values stacked along an axis."""

    def to_ours(a: np.ndarray) -> Arrays:
        if a.shape[axis] % 3:
            raise ValueError(f'axis {axis} has {a.shape[axis]} entries, no multiple of 3')
        return [part.T if transposed else part for part in np.split(a, 3, axis)]

    def to_theirs(parts: Arrays, _: Mapping[str, Any]) -> np.ndarray:
        return np.concatenate([part.T if transposed else part for part in parts], axis)

    return Transform(rank, 3, to_ours, to_theirs)


def merged_heads(first: int, rank: int) -> Transform:
    """Axes `first` and `first + 1`, heads and their widths, as one."""

    def to_ours(a: np.ndarray) -> Arrays:
        shape = a.shape
        return (a.reshape(*shape[:first], shape[first] * shape[first + 1], *shape[first + 2 :]),)

    def to_theirs(parts: Arrays, arguments: Mapping[str, Any]) -> np.ndarray:
        (a,), heads = parts, arguments['heads']
        return a.reshape(*a.shape[:first], heads, a.shape[first] // heads, *a.shape[first + 1 :])

    return Transform(rank, 1, to_ours, to_theirs)


TRANSFORMS: dict[str, Transform] = {
    'same': Transform(None, 1, lambda a: (a,), lambda parts, _: parts[0]),
    'linear': permutation(1, 0),  # (O, I) -> (I, O)
    'conv': permutation(2, 3, 1, 0),  # OIHW -> HWIO
    'conv1d': permutation(2, 1, 0),  # OIW -> WIO
    'conv_linear': Transform(  # (O, I, 1, 1) -> (I, O)
        4,
        1,
        lambda a: (a[:, :, 0, 0].T,) if a.shape[2:] == (1, 1) else not_pointwise(a),
        lambda parts, _: parts[0].T[:, :, None, None],
    ),
    'hwio_linear': Transform(  # (1, 1, I, O) -> (I, O)
        4,
        1,
        lambda a: (a[0, 0],) if a.shape[:2] == (1, 1) else not_pointwise(a),
        lambda parts, _: parts[0][None, None],
    ),
    'per_channel': Transform(  # (1, 1, 1, C) -> (C,)
        4,
        1,
        lambda a: (a[0, 0, 0],) if a.shape[:3] == (1, 1, 1) else not_pointwise(a),
        lambda parts, _: parts[0][None, None, None],
    ),
    'conv_bgr': Transform(  # HWIO of a file that reads blue, green, red
        4, 1, lambda a: (a[:, :, ::-1],), lambda parts, _: parts[0][:, :, ::-1]
    ),
    'split_linear': split(0, 2, transposed=True),  # (3D, D) -> three of (D, D)
    'split_columns': split(1, 2, transposed=False),  # (D, 3D) -> three of (D, D)
    'split_vector': split(0, 1, transposed=False),  # (3D,) -> three of (D,)
    'heads_in': merged_heads(1, 3),  # (D, heads, K) -> (D, heads * K)
    'heads_out': merged_heads(0, 3),  # (heads, K, D) -> (heads * K, D)
    'heads_bias': merged_heads(0, 2),  # (heads, K) -> (heads * K,)
}


def not_pointwise(a: np.ndarray) -> Arrays:
    raise ValueError(f'its shape {a.shape} is not that of a 1x1 convolution')
