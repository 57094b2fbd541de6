"""One thing that a check has found, and how it is told."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

LEVELS = ('note', 'warning', 'disqualified')


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing to know of a source, or of the target's data.

    Attributes:
      level: 'note' is good to know; 'warning' can cost accuracy, make a result look better than it
        is, or limit what may be done with it; 'disqualified' makes the source of no use as things
        are, or its result worthless.
      topic: one of 'rows', 'input', 'values', 'text', 'sound',
        'labels', 'licence', 'leakage', 'dtype'.
      what: was found, a sentence.
      why: it matters, a sentence.
      do: what to do about it, a sentence naming config keys.
      examples: for 'leakage', JSON: the splits, the positions in them and the stored rows.
    """

    level: str
    topic: str
    what: str
    why: str
    do: str
    examples: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self):
        assert self.level in LEVELS, self.level

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), 'examples': [dict(e) for e in self.examples]}


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, otherwise as they come."""
    return sorted(findings, key=lambda finding: -LEVELS.index(finding.level))


def worst(findings: Iterable[Finding]) -> str:
    """The worst level that is there; '' of no findings.

    >>> worst([Finding('note', 'input', '', '', ''), Finding('warning', 'input', '', '', '')])
    'warning'
    """
    levels = {finding.level for finding in findings}
    return next((level for level in reversed(LEVELS) if level in levels), '')


def listed(findings: Iterable[Finding]) -> str:
    """Text for a terminal: a paragraph each.

    >>> print(listed([Finding('warning', 'input', 'It is grey.', 'Colours help.', 'Find some.')]))
    warning, input: It is grey. Colours help. Find some.
    """
    return '\n'.join(
        ' '.join(part for part in (f'{f.level}, {f.topic}:', f.what, f.why, f.do) if part)
        for f in findings
    )
