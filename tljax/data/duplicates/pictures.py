"""Pictures that are the same but for compression, size, light or noise.

A perceptual hash finds candidates: imagehash's pHash (the signs of the 64 lowest frequencies of a
32x32 cosine transform about their median; Zauner 2010, Implementation and Benchmarking of
Perceptual Image Hash Functions, section 3.2.1). Small or simple pictures, such as digits or slices
of a head, collide in it by the hundred, so a candidate counts only if its 32x32 thumbnail agrees
too: their correlation must be `ALIKE` or more.

Mirrored, turned or cropped copies are not found, nor are two pictures that differ in colour only
told apart.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from tljax.data.duplicates.matching import Match, digest, needed, same, together

RADIUS = 8  # bits of 64; of photographs JPEG of quality 20 changes up to 4, more light up to 8
# JPEG of quality 20 leaves 0.995 on photographs of 160 pixels; of 1.6 million pairs of
# scikit-learn's digits, no two of which are the same, 1 has more than 0.99 and so few other bits.
ALIKE = 0.99
SIDE = 32  # pixels of a thumbnail
CANDIDATES = 16  # nearest hashes whose thumbnails are compared
BLOCK = 256  # pictures on the right at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Prints:
    """What is kept of N pictures: 4.2 KB of each.

    Attributes:
      digests: of the pixels, N.
      hashes_N: uint64; None where only identical pictures are wanted.
      thumbs_NxP: grey thumbnails less their mean, of unit length, float32; None likewise.
      blank_N: pictures of one colour, which are like nothing.
    """

    digests: tuple[bytes, ...]
    hashes_N: np.ndarray | None
    thumbs_NxP: np.ndarray | None
    blank_N: np.ndarray

    def __len__(self) -> int:
        return len(self.digests)


def prints(pictures: Iterable[np.ndarray], near: bool = True) -> Prints:
    """The prints of pictures; about 0.5 ms for each of 224 pixels a side.

    Args:
      pictures: each (height, width[, channels]) uint8; sizes may differ. They are looked at one
        after the other, and not kept.
      near: whether nearly the same pictures are to be found too, for which imagehash is needed.

    Raises:
      UserError: imagehash is not installed.
      ValueError: a picture is not uint8, or has no pixels.
    """
    digests: list[bytes] = []
    blank: list[bool] = []
    hashes: list[int] = []
    thumbs: list[np.ndarray] = []
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or not picture.size:
            raise ValueError(f'a picture is {picture.dtype} {picture.shape}; uint8, 2 or 3 axes')
        digests.append(digest(squeezed(picture).shape, picture.tobytes()))
        blank.append(is_blank(picture))
        if near:
            found, thumb = hash_and_thumb(picture)
            hashes.append(found)
            thumbs.append(thumb)
    blank_N = np.array(blank, bool)
    if not near:
        return Prints(tuple(digests), None, None, blank_N)
    thumbs_NxP = np.array(thumbs, np.float32).reshape(-1, SIDE * SIDE)
    return Prints(tuple(digests), np.array(hashes, np.uint64), thumbs_NxP, blank_N)


def squeezed(picture: np.ndarray) -> np.ndarray:
    """(height, width, 1) as (height, width)."""
    return picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture


def is_blank(picture: np.ndarray) -> bool:
    """Whether every pixel has the same colour, up to one step."""
    some = picture[::8, ::8]  # which tells of nearly all that are not, in a tenth of the time
    return all(bool((p.max((0, 1)) - p.min((0, 1))).max() < 2) for p in (some, picture))


def hash_and_thumb(picture: np.ndarray) -> tuple[int, np.ndarray]:
    """A picture's 64 bits, and its thumbnail, (SIDE * SIDE,)."""
    try:
        import imagehash
    except ImportError:
        raise needed('imagehash') from None
    from PIL import Image

    picture = squeezed(picture)
    if picture.ndim == 3 and picture.shape[2] not in (3, 4):
        picture = picture.mean(2).astype(np.uint8)
    small = Image.fromarray(picture).convert('L').resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    bits = np.packbits(imagehash.phash(small).hash).tobytes()
    thumb = np.asarray(small, np.float32).reshape(-1)
    thumb -= thumb.mean()
    return int.from_bytes(bits, 'big'), thumb / max(float(np.linalg.norm(thumb)), 1e-6)


def matches(left: Prints, right: Prints) -> list[Match]:
    """The pictures on the right that are on the left too, each with the one most like it.

    Every hash is compared with every other, in blocks: 10,000 with 10,000 take half a second,
    less than to compute them.

    Args:
      left: prints of the one set, such as the training pictures.
      right: of the other.

    Returns:
      One match for each picture on the right that has any; `similarity` is the correlation of
      thumbnails. Blank pictures have none.

    >>> slope = np.arange(64, dtype=np.uint8).reshape(8, 8)
    >>> flat = np.full((8, 8), 7, np.uint8)
    >>> left, right = prints([flat, slope], near=False), prints([slope, flat], near=False)
    >>> matches(left, right)
    [Match(left=1, right=0, similarity=1.0, exact=True)]
    """
    exact = same(left.digests, right.digests)
    exact = {j: i for j, i in exact.items() if not right.blank_N[j]}
    return together(exact, near_matches(left, right))


def near_matches(left: Prints, right: Prints) -> Iterator[Match]:
    """Pairs with like hashes and like thumbnails; none where a side has no hashes."""
    if left.hashes_N is None or right.hashes_N is None or not len(left) or not len(right):
        return
    assert left.thumbs_NxP is not None
    assert right.thumbs_NxP is not None
    for first in range(0, len(right), BLOCK):
        hashes_B = right.hashes_N[first : first + BLOCK]
        distances_BxN = np.bitwise_count(hashes_B[:, None] ^ left.hashes_N[None, :])
        distances_BxN[:, left.blank_N] = 64
        distances_BxN[right.blank_N[first : first + BLOCK]] = 64
        for row in np.flatnonzero((distances_BxN <= RADIUS).any(1)):
            j, near = first + int(row), distances_BxN[row]
            order = np.argsort(near, kind='stable')[:CANDIDATES]
            rows = order[near[order] <= RADIUS]
            alike = left.thumbs_NxP[rows] @ right.thumbs_NxP[j]
            best = int(alike.argmax())
            if alike[best] >= ALIKE:
                yield Match(int(rows[best]), j, min(float(alike[best]), 1.0), False)
