"""Texts that are the same but for case, punctuation, spacing or a few words.

A text is the set of its runs of `WORDS` words (shingles; Broder 1997, On the resemblance and
containment of documents, section 2). Sets with many shingles in common are found by min-hashing
and banding (datasketch), and counted only if their true resemblance, |A and B| / |A or B|, is
`ALIKE` or more: min-hashes alone only estimate it.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from tljax.data.duplicates.matching import Match, digest, needed, same, together

WORDS = 3  # a shingle; a text with fewer words is one
ALIKE = 0.8
# Two texts of resemblance s meet in a band with probability 1 - (1 - s**ROWS)**BANDS: of those at
# ALIKE one in twenty million is missed, and at 0.1 three in a thousand are compared for nothing.
BANDS, ROWS = 32, 4


def matches(left: Sequence[str], right: Sequence[str], near: bool = True) -> list[Match]:
    """The texts on the right that are on the left too, each with the one most like it.

    Args:
      left: the one set, such as the training texts.
      right: the other.
      near: whether nearly the same texts are to be found too, for which datasketch is needed.

    Returns:
      One match for each text on the right that has any; `similarity` is the resemblance, `exact`
      means the same words. Texts without a word have none.

    Raises:
      UserError: datasketch is not installed.

    >>> matches(['Buy now!', 'See you at noon.'], ['buy  NOW', 'no'], near=False)
    [Match(left=0, right=0, similarity=1.0, exact=True)]
    """
    words_left, words_right = [words(t) for t in left], [words(t) for t in right]
    exact = same([digest(*w) for w in words_left], [digest(*w) for w in words_right])
    exact = {j: i for j, i in exact.items() if words_right[j]}
    if not near:
        return together(exact, ())
    rest = [j for j in range(len(words_right)) if j not in exact and words_right[j]]
    return together(exact, near_matches(words_left, words_right, rest))


def words(text: str) -> list[str]:
    """The words of a text, without case, punctuation or kinds of spaces.

    >>> words('It\u2019s  2 o\u2019clock, DEAR!')
    ['it', 's', '2', 'o', 'clock', 'dear']
    """
    return re.findall(r'\w+', unicodedata.normalize('NFKC', text).casefold())


def shingles(of: Sequence[str]) -> frozenset[str]:
    """Every run of WORDS words; of fewer words, the one run that they are.

    >>> sorted(shingles(['a', 'b', 'c', 'd']))
    ['a b c', 'b c d']
    """
    return frozenset(' '.join(of[i : i + WORDS]) for i in range(max(len(of) - WORDS + 1, bool(of))))


def resemblance(a: frozenset[str], b: frozenset[str]) -> float:
    """|a and b| / |a or b|; 0 where both are empty."""
    both = len(a & b)
    return both / max(len(a) + len(b) - both, 1)


def near_matches(
    left: Sequence[Sequence[str]], right: Sequence[Sequence[str]], rows: Sequence[int]
) -> Iterator[Match]:
    """Pairs of texts, given as their words, that resemble each other.

    Args:
      left: the one set.
      right: the other.
      rows: which of those on the right are looked for.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise needed('datasketch') from None
    sets = [shingles(of) for of in left]
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    for i, sketch in enumerate(MinHash.generator(encoded(sets), num_perm=BANDS * ROWS)):
        if sets[i]:
            index.insert(i, sketch, check_duplication=False)
    wanted = [shingles(right[j]) for j in rows]
    sketches = MinHash.generator(encoded(wanted), num_perm=BANDS * ROWS)
    for j, of, sketch in zip(rows, wanted, sketches, strict=True):
        for i in sorted(index.query(sketch)):
            if (alike := resemblance(sets[i], of)) >= ALIKE:
                yield Match(i, j, alike, False)


def encoded(sets: Sequence[frozenset[str]]) -> Iterator[list[bytes]]:
    """Shingles as bytes, in an order that does not change from run to run."""
    return ([shingle.encode() for shingle in sorted(of)] for of in sets)
