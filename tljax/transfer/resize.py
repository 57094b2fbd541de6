"""Leaves that may differ in shape between source and target, and how they are brought to fit."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Shape = Sequence[int]


def resize(how: str, leaf: Any, shape: Shape) -> Any:
    """Brings a leaf to another shape; one that has it already is returned as it is.

    Args:
      how: 'position' or 'channels'; see `position_embeddings` and `input_channels`.
      leaf: floating point array.
      shape: the target's.

    Returns:
      An array of that shape and the leaf's dtype, computed in float32 or better.

    Raises:
      ValueError: the two shapes are not of that kind.

    >>> resize('channels', np.ones((3, 3, 3, 8), np.float32), (3, 3, 1, 8)).shape
    (3, 3, 1, 8)
    """
    return RESIZERS[how][0](leaf, shape)


def describe(how: str, source: Shape, target: Shape) -> str:
    """What `resize` would do to these shapes, in a few words.

    Raises:
      ValueError: they are not of that kind; the message says why, as part of a sentence.

    >>> describe('position', (1, 197, 768), (1, 577, 768))
    '14x14 -> 24x24 positions, bicubic; class token kept'
    >>> describe('channels', (3, 3, 3, 8), (3, 3, 1, 8))
    '3 -> 1 input channels'
    """
    return RESIZERS[how][1](tuple(source), tuple(target))


def position_embeddings(leaf: Any, shape: Shape, method: str = 'bicubic') -> Any:
    """Interpolates learned position embeddings of a square grid of patches.

    The embeddings of two pictures' grids are matched by where the patches lie in the picture
    (Dosovitskiy et al. 2021, "An image is worth 16x16 words", section 3.2). A class token in
    front of the grid has no place in the picture, and is copied. Patches are points at their
    centres, and a coarser grid is averaged first (antialiasing), as `jax.image.resize` does.

    Args:
      leaf: (..., positions, width), where positions is g*g, or 1 + g*g with a class token.
      shape: the same but for the number of positions.
      method: 'bicubic' or 'bilinear'.

    Returns:
      An array of `shape`, in the dtype of the leaf.

    Raises:
      ValueError: another axis differs, the positions are no square grid, or only one of the two
        has a class token.

    >>> leaf = np.arange(4, dtype=np.float32).reshape(4, 1)
    >>> position_embeddings(leaf, (16, 1), 'bilinear').reshape(4, 4)[1].tolist()
    [0.5, 0.75, 1.25, 1.5]
    """
    prefix, old, new = grids(tuple(leaf.shape), tuple(shape))
    if tuple(leaf.shape) == tuple(shape):
        return leaf
    leading, width = tuple(leaf.shape[:-2]), leaf.shape[-1]
    exact = in_float32(leaf)
    grid = exact[..., prefix:, :].reshape(*leading, old, old, width)
    grid = jax.image.resize(grid, (*leading, new, new, width), method)
    flat = grid.reshape(*leading, new * new, width)
    return jnp.concatenate([exact[..., :prefix, :], flat], axis=-2).astype(leaf.dtype)


def grids(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, int, int]:
    """How many class tokens (0 or 1) two sets of positions have, and the sides of their grids.

    Raises:
      ValueError: as `position_embeddings`.

    >>> grids((1, 197, 768), (1, 577, 768))
    (1, 14, 24)
    """
    same_but_for_axis(source, target, 2, 'positions')
    (prefix, old), (target_prefix, new) = (grid_of(shape[-2]) for shape in (source, target))
    if prefix != target_prefix:
        has, lacks = ('source', 'target') if prefix else ('target', 'source')
        raise ValueError(
            f'the {has} has a class token before its grid ({old}x{old} -> {new}x{new}), '
            f'and the {lacks} has none'
        )
    return prefix, old, new


def grid_of(positions: int) -> tuple[int, int]:
    """Class tokens in front, and the side of the square grid.

    >>> grid_of(196), grid_of(197)
    ((0, 14), (1, 14))
    """
    for prefix in (0, 1):
        side = math.isqrt(max(positions - prefix, 0))
        if side and side * side == positions - prefix:
            return prefix, side
    raise ValueError(
        f'{positions} positions are no square grid, with or without a class token before it'
    )


def input_channels(kernel: Any, shape: Shape) -> Any:
    """Fits a convolution kernel to another number of input channels.

    New channel j takes old channel j mod I. Fewer new channels than old: those that fall on the
    same place are added up, so one new channel takes the sum of all. More: a channel used k times
    is divided by k. Either way a picture whose channels are all equal (grey) gets the response
    that it had before, and from 3 to 3n channels this is tiling with the scale 1/n: the argument
    of Carreira and Zisserman 2017 ("Quo vadis, action recognition?", section 2.4) for filters
    repeated in time.

    Args:
      kernel: (..., I, O), spatial axes first, at least one of them; HWIO for pictures.
      shape: the same but for I.

    Returns:
      An array of `shape`, in the dtype of the kernel.

    Raises:
      ValueError: another axis differs, or there is no spatial axis.

    >>> kernel = np.array([1.0, 2.0, 4.0], np.float32).reshape(1, 1, 3, 1)
    >>> input_channels(kernel, (1, 1, 1, 1)).ravel().tolist()
    [7.0]
    >>> input_channels(kernel, (1, 1, 4, 1)).ravel().tolist()
    [0.5, 2.0, 4.0, 0.5]
    """
    old, new = channel_counts(tuple(kernel.shape), tuple(shape))
    if old == new:
        return kernel
    exact = in_float32(kernel)
    if new < old:
        folded = [exact[..., j::new, :].sum(-2) for j in range(new)]
        return jnp.stack(folded, axis=-2).astype(kernel.dtype)
    place = np.arange(new) % old
    uses = np.bincount(place)[place].astype(np.float32)
    uses = uses.reshape((1,) * (len(shape) - 2) + (new, 1))
    return (jnp.take(exact, place, axis=-2) / uses).astype(kernel.dtype)


def channel_counts(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, int]:
    """Input channels of the two kernels.

    Raises:
      ValueError: as `input_channels`.

    >>> channel_counts((3, 3, 3, 8), (3, 3, 1, 8))
    (3, 1)
    """
    if len(source) < 3:
        raise ValueError('a convolution kernel has at least 3 axes: spatial, input, output')
    same_but_for_axis(source, target, 2, 'input channels')
    if min(source[-2], target[-2]) < 1:
        raise ValueError('a kernel without input channels cannot be resized')
    return source[-2], target[-2]


def same_but_for_axis(
    source: tuple[int, ...], target: tuple[int, ...], axis: int, name: str
) -> None:
    """Refuses shapes that differ elsewhere than on the axis-th axis from the end."""
    if min(len(source), len(target)) < axis:
        raise ValueError(f'{name} are the axis before the last, and there is no such axis')
    if (source[:-axis], source[-axis + 1 :]) != (target[:-axis], target[-axis + 1 :]):
        raise ValueError(f'only the {name} (the axis before the last) may differ')


def in_float32(leaf: Any) -> jax.Array:
    """The leaf in float32 at least, so that half precision is rounded once, at the end."""
    leaf = jnp.asarray(leaf)
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def describe_position(source: tuple[int, ...], target: tuple[int, ...]) -> str:
    prefix, old, new = grids(source, target)
    token = '; class token kept' if prefix else ''
    return f'{old}x{old} -> {new}x{new} positions, bicubic{token}'


def describe_channels(source: tuple[int, ...], target: tuple[int, ...]) -> str:
    old, new = channel_counts(source, target)
    return f'{old} -> {new} input channels'


RESIZERS: dict[str, tuple[Callable[[Any, Shape], Any], Callable[..., str]]] = {
    'position': (position_embeddings, describe_position),
    'channels': (input_channels, describe_channels),
}
