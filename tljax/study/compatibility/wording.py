"""Whether a source can read the target's texts or sounds.

Pure functions: nothing here knows where texts come from, or what a tokenizer is.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tljax.study.compatibility.about import About
from tljax.study.compatibility.finding import Finding
from tljax.study.compatibility.labels import some

MUCH = 0.05  # share of unknown tokens, or of texts cut off, that is worth a warning
MANY = 4.0  # tokens a word; English is at 1.2 to 1.5 in vocabularies made for it


class Coverage(NamedTuple):
    """How texts come out of a tokenizer.

    Attributes:
      tokens: of all texts.
      words: separated by spaces.
      unknown: tokens that stand for something that the vocabulary lacks.
      cut: texts longer than the source can read.
      texts: how many.
      strange: words with an unknown token, the most frequent first.
    """

    tokens: int
    words: int
    unknown: int
    cut: int
    texts: int
    strange: tuple[str, ...]

    @property
    def unknown_rate(self) -> float:
        return self.unknown / max(self.tokens, 1)


def coverage(
    encode: Callable[[str], Sequence[int]],
    unknown: int | None,
    texts: Iterable[str],
    positions: int = 0,
) -> Coverage:
    """Counts what a tokenizer does not know.

    Args:
      encode: text -> tokens, without marks of begin and end.
      unknown: the token for what is not in the vocabulary; None where there is none, as in
        vocabularies of bytes.
      texts: of the target.
      positions: tokens that the source reads; 0 is any number.

    >>> known = {'a': 1, 'b': 2}
    >>> coverage(lambda text: [known.get(w, 0) for w in text.split()], 0, ['a b', 'a c'])
    Coverage(tokens=4, words=4, unknown=1, cut=0, texts=2, strange=('c',))
    """
    tokens = words = missing = cut = count = 0
    strange: Counter[str] = Counter()
    known: dict[str, bool] = {}
    for text in texts:
        coded = encode(text)
        count, tokens, cut = count + 1, tokens + len(coded), cut + (0 < positions < len(coded))
        split = text.split()
        words += len(split)
        missed = 0 if unknown is None else sum(token == unknown for token in coded)
        missing += missed
        for word in split if missed else ():
            if word not in known:
                known[word] = unknown not in encode(word)
            strange[word] += not known[word]
    often = tuple(word for word, times in strange.most_common() if times)
    return Coverage(tokens, words, missing, cut, count, often)


def text_findings(about: About, found: Coverage) -> list[Finding]:
    """What a `coverage` says against a source."""
    findings = []
    if found.unknown:
        rate = found.unknown_rate
        findings.append(
            Finding(
                'warning' if rate > MUCH else 'note',
                'text',
                f'{found.unknown} of {found.tokens} tokens ({rate:.1%}) are unknown to '
                f'{about.name}: {some(found.strange)}.',
                'It reads all of them as the same token.',
                'Choose a source with a vocabulary of bytes or of this language.',
            )
        )
    if found.cut:
        share = found.cut / found.texts
        findings.append(
            Finding(
                'warning' if share > MUCH else 'note',
                'text',
                f'{found.cut} of {found.texts} texts ({share:.0%}) are longer than '
                f'{about.name} reads.',
                'What is behind is cut off.',
                'Check that what decides comes first, or split the texts.',
            )
        )
    if found.tokens > MANY * max(found.words, 1):
        per_word = found.tokens / max(found.words, 1)
        what = f'{about.name} takes {per_word:.1f} tokens for a word.'
        why = 'It spells out what it has no words for: another language, or no prose.'
        findings.append(
            Finding('warning', 'text', what, why, 'Look for a source of this language.')
        )
    return findings


def sound_findings(about: About, rate: int) -> list[Finding]:
    """What a sampling rate says against a source.

    Args:
      about: the source; its card's `sampling_rate` in Hz.
      rate: of the target's recordings as they are read, in Hz.
    """
    wanted = about.input.get('sampling_rate')
    if not wanted or wanted == rate:
        return []
    slower = 'deeper and slower' if rate > wanted else 'higher and faster'
    return [
        Finding(
            'disqualified',
            'sound',
            f'{about.name} hears {wanted} samples a second, the recordings have {rate}.',
            f'Every voice sounds {slower} to it.',
            f'Resample them to {wanted} Hz.'
            + (f' Above {rate // 2} Hz they will hold nothing.' if rate < wanted else ''),
        )
    ]
