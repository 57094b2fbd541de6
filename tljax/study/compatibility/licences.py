"""What a licence, as a card states it, allows; no advice of a lawyer, but a reason to read it."""

import re

from tljax.study.compatibility.about import About
from tljax.study.compatibility.finding import Finding

# Words of SPDX identifiers (spdx.org/licenses) and of how publishers write them.
TERMS = {
    'non-commercial': r'(?<![a-z])nc(?![a-z])|non-?\s?commercial|research[- ]only|academic',
    'no-derivatives': r'(?<![a-z])nd(?![a-z])|no-?\s?deriv',
    'share-alike': r'(?<![a-z])sa(?![a-z])|share-?\s?alike|(?<![a-z])odbl',
    'copyleft': r'(?<![a-z])(a|l)?gpl|(?<![a-z])(mpl|eupl)(?![a-z])|general public',
    'own terms': r'(?<![a-z])(open)?rail|llama|gemma|community licen[cs]e|terms of use',
    "its data's terms": r'terms of the data',
}
PERMISSIVE = (
    r'apache|(?<![a-z])(mit|bsd|isc|cc0|cc[- ]by|pddl|unlicense|zlib|cdla-permissive)(?![a-z])'
)
PERMISSIVE += r'|public domain'
# Which terms of the one cannot be kept together with which of the other, once a model made with
# both is given away.
CONFLICTS = (
    ('share-alike', 'non-commercial'),
    ('share-alike', 'copyleft'),
    ('copyleft', 'non-commercial'),
    ('share-alike', 'no-derivatives'),
    ('copyleft', 'no-derivatives'),
)
WHY = {
    'non-commercial': 'What is made with it may not be used commercially.',
    'no-derivatives': 'A model fine-tuned from it may not be given away.',
    'share-alike': 'What is made with it must be given away under the same terms, if at all.',
    'copyleft': 'What is made with it may have to be given away under the same terms, if at all.',
    'own terms': 'Its publisher has terms of its own, which may restrict what it is used for.',
    "its data's terms": 'Those terms are not in the card.',
    'unknown': 'Without a licence nothing is allowed that the law does not allow anyway.',
    'not known here': 'What it allows cannot be told here.',
}


def terms(licence: str) -> frozenset[str]:
    """What a licence asks for.

    Args:
      licence: as a card states it: an identifier such as 'CC-BY-NC-4.0', or words.

    Returns:
      Some of `WHY`'s keys; none is a permissive licence.

    >>> sorted(terms('CC-BY-NC-SA-4.0')), sorted(terms('Apache-2.0')), sorted(terms('?'))
    (['non-commercial', 'share-alike'], [], ['not known here'])
    """
    words = licence.lower().strip()
    if words in ('', 'unknown', 'none', 'unlicensed'):
        return frozenset(['unknown'])
    found = frozenset(name for name, pattern in TERMS.items() if re.search(pattern, words))
    if not found and not re.search(PERMISSIVE, words):
        return frozenset(['not known here'])
    return found


def conflicts(one: str, other: str) -> list[tuple[str, str]]:
    """Terms of two licences that a model made with both cannot keep.

    Returns:
      (a term of the one, a term of the other) pairs.

    >>> conflicts('CC-BY-SA-4.0', 'CC-BY-NC-4.0')
    [('share-alike', 'non-commercial')]
    >>> conflicts('CC-BY-NC-SA-4.0', 'CC-BY-NC-SA-4.0')
    []
    """
    first, second = terms(one), terms(other)
    if first == second:
        return []
    pairs = [*CONFLICTS, *((b, a) for a, b in CONFLICTS)]
    return [(a, b) for a, b in pairs if a in first and b in second]


def findings(about: About, data_licence: str, commercial: bool) -> list[Finding]:
    """What the source's licence asks for, and whether the data's stands against it.

    Args:
      about: the source.
      data_licence: of the target's data; '' where it is not known.
      commercial: whether the model is to be used commercially.
    """
    if not about.licence:
        return []  # trained here, from scratch
    found = []
    for term in sorted(terms(about.licence)):
        strict = commercial and term in ('non-commercial', 'no-derivatives')
        level = 'disqualified' if strict else 'note' if term == "its data's terms" else 'warning'
        found.append(
            Finding(
                level,
                'licence',
                f'{about.name} is {term}: its card says {about.licence!r}.',
                WHY[term],
                'Read the licence before anything is given away or sold.',
            )
        )
    for ours, theirs in conflicts(about.licence, data_licence) if data_licence else ():
        found.append(
            Finding(
                'disqualified' if commercial else 'warning',
                'licence',
                f'{about.name} is {ours} ({about.licence}), the data is {theirs} ({data_licence}).',
                'A model made with both cannot be given away under both.',
                'Keep it to yourself, or choose another source.',
            )
        )
    return found
