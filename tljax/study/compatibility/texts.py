"""Whether a source reads the tokens that it has learnt, and whether sources read the same ones."""

from collections.abc import Mapping
from typing import Any

from tljax.data import Data
from tljax.data.text.choosing import tokenizer_of
from tljax.data.text.tokenizer import Tokenizer
from tljax.pretrained import inputs
from tljax.study.compatibility.about import About
from tljax.study.compatibility.finding import Finding


def tokenizer_in(data: Data) -> Tokenizer | None:
    """The tokenizer that a set is read with; None of what is no text."""
    return getattr(data.form, 'tokenizer', None)


def reads_own_tokens(config: Any, data: Data) -> bool:
    """Whether texts arrive as the tokens that the source has learnt; so too where nobody tells.

    Args:
      config: of the target with the source.
      data: the target's.

    Raises:
      UserError: the source's tokenizer cannot be read.
    """
    used, asked = tokenizer_in(data), inputs.asked_by_source(config).get('tokenizer', '')
    if used is None or not asked or asked == config.data.tokenizer:
        return True
    section = config.data.copy_and_resolve_references()
    section.tokenizer = asked
    return same(used, tokenizer_of(section, data.split('train').records.builder))


def same(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether each token has the same number in both.

    >>> from tljax.data.text.tokenizer import trained
    >>> small = trained(['the cat'], 262)
    >>> same(small, trained(['a dog'], 262)), same(small, trained(['the cat'], 262))
    (False, True)
    """
    return one.text == other.text or one.made().get_vocab() == other.made().get_vocab()


def findings(about: About, config: Any, data: Data) -> list[Finding]:
    """A source that would read tokens as others than it knows.

    Args:
      about: the source.
      config: of the target with the source.
      data: the target's.
    """
    if reads_own_tokens(config, data):
        return []
    return [
        Finding(
            'disqualified',
            'text',
            f'Texts are read with the tokenizer {config.data.tokenizer}, and {about.name} was '
            'trained with another.',
            'The numbers of its tokens stand for other pieces of words here.',
            'Leave config.data.tokenizer at its default, which is the one of the source.',
        )
    ]


def between_sources(tokenizers: Mapping[str, Tokenizer | None], kind: str) -> list[Finding]:
    """Sources that are asked for other tokens, so that most scores do not compare them.

    Args:
      tokenizers: by the name of a source, what texts are read with; None without texts.
      kind: of the task's targets; those other than 'tokens' are the same for every source.
    """
    known = [(name, one) for name, one in tokenizers.items() if one is not None]
    if kind != 'tokens' or not known:
        return []
    groups: list[tuple[Tokenizer, list[str]]] = []
    for name, one in known:
        group = next((names for first, names in groups if same(first, one)), None)
        if group is None:
            groups.append((one, [name]))
        else:
            group.append(name)
    if len(groups) < 2:
        return []
    told = '; '.join(', '.join(names) for _, names in groups)
    return [
        Finding(
            'warning',
            'text',
            f'The sources read texts with {len(groups)} tokenizers: {told}.',
            'Other tokens are other labels: scores of these, and the probe, compare only sources '
            'of one tokenizer. log_likelihood is by word and compares all of them, on sequences of '
            'as many tokens, which are other texts.',
            "Rank by log_likelihood (config.rank.by), as is done by default where every source's "
            'own head can say it.',
        )
    ]
