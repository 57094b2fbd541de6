"""One eigendecomposition that every score on features shares.

X = U S V^T is never formed by an SVD: the Gram matrix of the smaller side is, in blocks, so that
nothing as large as the features is held beside them, be they float32 or float64.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# A Gram matrix squares the singular values, so those below 1e-8 of the largest are rounding, and
# the ones just above are coarse. At 1e-11 an eigenvalue is still right to about 1e-4 of itself.
TOLERANCE = 1e-11
BLOCK = 2**21  # numbers in a block: 16 MB
LARGEST, SMALLEST = 1e100, 1e-100  # of the features' magnitudes: their squares must stay numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values and vectors of features, as they are or less their mean.

    Directions whose squared singular value is below `TOLERANCE` times the largest count as not
    there; K, the numerical rank, is the number of the others.

    Attributes:
      features_NxD: as given.
      mean_D: what is subtracted from each example; zeros unless centred.
      values_K: squared singular values, descending, in squared units of the features.
      vectors: left singular vectors U (N, K) where N <= D, right ones V (D, K) where N > D.

    >>> spectrum = of(np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), centre=False)
    >>> spectrum.values_K, spectrum.rank
    (array([9., 1.]), 2)
    """

    features_NxD: npt.NDArray[np.floating]
    mean_D: Array
    values_K: Array
    vectors: Array

    @property
    def count(self) -> int:
        return self.features_NxD.shape[0]

    @property
    def width(self) -> int:
        return self.features_NxD.shape[1]

    @property
    def rank(self) -> int:
        return len(self.values_K)

    @property
    def dual(self) -> bool:
        """Whether `vectors` are left ones."""
        return self.count <= self.width

    def left(self, y_NxC: Array) -> Array:
        """U^T y, (K, C), without U where there are more examples than features."""
        if self.dual:
            return self.vectors.T @ y_NxC
        moments_DxC = np.zeros((self.width, y_NxC.shape[1]))
        for rows, block in self.blocks():
            moments_DxC += block.T @ y_NxC[rows]
        return self.vectors.T @ moments_DxC / np.sqrt(self.values_K)[:, None]

    def left_blocks(self) -> Iterator[tuple[slice, Array]]:
        """Rows of U, some at a time: a slice of the examples, and (rows, K)."""
        if self.dual:
            step = max(1, BLOCK // max(1, self.rank))
            for first in range(0, self.count, step):
                rows = slice(first, min(first + step, self.count))
                yield rows, self.vectors[rows]
            return
        scaled_DxK = self.vectors / np.sqrt(self.values_K)
        for rows, block in self.blocks():
            yield rows, block @ scaled_DxK

    def components(self, count: int) -> Array:
        """The first principal components X V, (N, min(count, K)); centre for a PCA.

        A component's sign is arbitrary.
        """
        k = min(count, self.rank)
        if self.dual:
            return self.vectors[:, :k] * np.sqrt(self.values_K[:k])
        right_Dxk = np.ascontiguousarray(self.vectors[:, :k])
        out_Nxk = np.empty((self.count, k))
        for rows, block in self.blocks():
            out_Nxk[rows] = block @ right_Dxk
        return out_Nxk

    @functools.cached_property
    def squared_lengths_N(self) -> Array:
        """Squared length of each example, less the mean where centred."""
        lengths_N = np.empty(self.count)
        for rows, block in self.blocks():
            lengths_N[rows] = np.einsum('nd,nd->n', block, block)
        return lengths_N

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Examples less the mean in float64, some rows at a time."""
        return _row_blocks(self.features_NxD, self.mean_D)


def of(features_NxD: npt.ArrayLike, centre: bool) -> Spectrum:
    """The spectrum of features.

    Args:
      features_NxD: finite numbers, at least one example and one feature.
      centre: whether each feature's mean is subtracted first.

    Raises:
      ValueError: another shape, something that is not finite, magnitudes beyond 1e100 or all
        below 1e-100.
    """
    features = as_features(features_NxD)
    return features.centred if centre else features.raw


class Features:
    """Features with both their spectra, each computed when first asked for and then kept.

    Besides the features themselves it holds the smaller Gram matrix and a square matrix of
    vectors for each spectrum.

    Args:
      values_NxD: finite floating-point numbers; kept, not copied.

    Raises:
      ValueError: another shape, something that is not finite, magnitudes beyond 1e100 or all
        below 1e-100.

    >>> features = Features([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    >>> features.raw.rank, features.centred.rank
    (2, 1)
    """

    def __init__(self, values_NxD: npt.ArrayLike):
        self.values_NxD = _checked(values_NxD)

    def __len__(self) -> int:
        return len(self.values_NxD)

    @functools.cached_property
    def centred(self) -> Spectrum:
        """Of the features less their mean."""
        return _spectrum(self.values_NxD, self.mean_D, self.gram)

    @functools.cached_property
    def raw(self) -> Spectrum:
        """Of the features as they are."""
        count, width = self.values_NxD.shape
        if not self.mean_D.any():
            return self.centred
        # X = Xc + 1 m^T, so the Gram matrix needs no second pass over all products.
        if count > width:
            whole = self.gram + count * np.outer(self.mean_D, self.mean_D)
        else:
            along_N = np.empty(count)
            for rows, block in _row_blocks(self.values_NxD, self.mean_D):
                along_N[rows] = block @ self.mean_D
            whole = self.gram + (along_N[:, None] + along_N + self.mean_D @ self.mean_D)
        return _spectrum(self.values_NxD, np.zeros(width), whole)

    @functools.cached_property
    def mean_D(self) -> Array:
        # From the first example on: the mean of a constant feature is then exactly that constant,
        # and no rounding is left to be taken for a direction.
        first_D = self.values_NxD[0].astype(np.float64)
        total_D = np.zeros_like(first_D)
        for _, block in _row_blocks(self.values_NxD, first_D):
            total_D += block.sum(0)
        return first_D + total_D / len(self)

    @functools.cached_property
    def gram(self) -> Array:
        """Of the centred features: X X^T where N <= D, X^T X where N > D."""
        return gram(self.values_NxD, self.mean_D)


def gram(features_NxD: npt.NDArray[np.floating], mean_D: Array) -> Array:
    """X X^T where N <= D, X^T X where N > D, of features less a mean, in float64."""
    from scipy.linalg import blas

    count, width = features_NxD.shape
    size = min(count, width)
    out = np.zeros((size, size), order='F')
    if count > width:
        for _, block in _row_blocks(features_NxD, mean_D):
            out = blas.dsyrk(1.0, block.T, 1.0, out, lower=1, overwrite_c=1)
    else:
        step = max(1, BLOCK // count)
        for first in range(0, width, step):
            chosen = slice(first, first + step)
            block = features_NxD[:, chosen] - mean_D[chosen]
            out = blas.dsyrk(1.0, block.T, 1.0, out, trans=1, lower=1, overwrite_c=1)
    # Only the lower half is computed.
    return np.tril(out) + np.tril(out, -1).T


def as_features(features: npt.ArrayLike | Features) -> Features:
    """`Features` of an array; what is one already stays as it is, with what it has computed."""
    return features if isinstance(features, Features) else Features(features)


def one_thread() -> contextlib.AbstractContextManager[Any]:
    """For linear algebra that is no large matrix product: BLAS without threads of its own.

    They wait for each other at thousands of places. A second one gains little there, and where
    other programs kept two cores busy the eigenvectors of 2,048 features took 4 to 18 s instead
    of 1.2.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api='blas')


def _spectrum(features_NxD: npt.NDArray[np.floating], mean_D: Array, gram: Array) -> Spectrum:
    from scipy import linalg

    with one_thread():
        values, vectors = linalg.eigh(gram, driver='evd', check_finite=False)
    largest = max(float(values[-1]), 0.0)
    rank = int((values > TOLERANCE * largest).sum()) if largest else 0
    kept = slice(len(values) - 1, len(values) - 1 - rank if rank < len(values) else None, -1)
    return Spectrum(features_NxD, mean_D, values[kept].copy(), vectors[:, kept])


def _row_blocks(
    features_NxD: npt.NDArray[np.floating], mean_D: Array
) -> Iterator[tuple[slice, Array]]:
    count, width = features_NxD.shape
    step = max(1, BLOCK // width)
    for first in range(0, count, step):
        rows = slice(first, min(first + step, count))
        yield rows, features_NxD[rows] - mean_D


def _checked(values_NxD: npt.ArrayLike) -> npt.NDArray[np.floating]:
    values = np.asarray(values_NxD)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f'features are (examples, features), not an array of shape {values.shape}')
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    # Two passes and no copy; a NaN or an infinity shows in either.
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int((~np.isfinite(values).all(1)).sum())
        raise ValueError(f'features of {bad} of {len(values)} examples are not finite')
    largest = max(-low, high)
    if largest > LARGEST or 0 < largest < SMALLEST:
        raise ValueError(
            f'features reach {largest:.3g}: their squares are no numbers; rescale them'
        )
    return values
