"""What is found where two sets share examples, and what is the same byte for byte."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tljax.errors import UserError

EXTRA = "pip install 'tljax[duplicates]'"


class Match(NamedTuple):
    """An example of one set, and the example of another that it is most like.

    Attributes:
      left: position in the first set.
      right: position in the second set.
      similarity: 1.0 is the same; what is measured differs by the kind of example.
      exact: whether it is the same byte for byte (texts: after normalisation).
    """

    left: int
    right: int
    similarity: float
    exact: bool


def digest(*parts: Any) -> bytes:
    """16 bytes that differ where the parts (bytes, or anything with a `str`) do."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        total.update(len(content).to_bytes(8, 'little'))
        total.update(content)
    return total.digest()


def same(left: Sequence[bytes], right: Sequence[bytes]) -> dict[int, int]:
    """For each position on the right whose digest is on the left too, the first one there.

    >>> same([b'a', b'b', b'b'], [b'b', b'c'])
    {0: 1}
    """
    first: dict[bytes, int] = {}
    for position, value in enumerate(left):
        first.setdefault(value, position)
    return {j: first[value] for j, value in enumerate(right) if value in first}


def together(exact: dict[int, int], near: Iterable[Match]) -> list[Match]:
    """One match for each example on the right that has any, in their order.

    Args:
      exact: right -> left, of `same`.
      near: matches by likeness; of several for one example the most alike counts.
    """
    best: dict[int, Match] = {}
    for match in near:
        if match.right not in best or match.similarity > best[match.right].similarity:
            best[match.right] = match
    best |= {j: Match(i, j, 1.0, True) for j, i in exact.items()}
    return [best[j] for j in sorted(best)]


def needed(library: str) -> UserError:
    """The error for a library that is not installed."""
    return UserError(
        f'Near-duplicates are found with the library {library}, which is not installed: {EXTRA}.'
    )
