"""What a ranking has looked at, in words: examples with a label each, or sequences of text."""

from collections.abc import Mapping
from typing import Any

from tljax.study.report.figures import count

Results = Mapping[str, Any]

LOOKS_AT = {
    'classes': 'features of the target\u2019s labelled examples',
    'tokens': (
        'the target\u2019s training texts: at what a model\u2019s head reads at each position, '
        'beside the next token there, or at how likely the head finds the words'
    ),
}
PROBED = {
    'classes': 'of validation examples right',
    'tokens': 'of next tokens in validation sequences right',
}
UNITS = {'classes': 'examples', 'tokens': 'sequences'}


def examples(results: Results) -> str:
    """How many examples scores look at."""
    if results['kind'] != 'tokens':
        return count(results['examples'], 'labelled example')
    whole = results['available']
    part = f' of {whole:,}' if whole > results['examples'] else ''
    return f'{results["examples"]:,}{part} sequences'


def unit(results: Results) -> str:
    """What the deciding score counts, a sentence; '' where its name says it."""
    if results['by'] != 'log_likelihood':
        return ''
    return (
        'It is in nats a word, whatever the tokenizer: e to minus it is the perplexity by word of '
        'the source as it is. '
    )


def probe(results: Results) -> str:
    """What the number of the probe is, a sentence's end."""
    if results['kind'] != 'tokens':
        return 'share of validation examples that a logistic regression on the features gets right.'
    most = max(one['probe_steps'] for one in results['sources'])
    return (
        f'share of {results["validation_rows"]:,} positions of validation sequences at which a '
        'logistic regression on the features, fitted to the training positions in '
        f'{most} steps at most, gives the next token the highest probability; its interval is over '
        'sequences. It is by token, not by word.'
    )


def setting(results: Results) -> str:
    """How much of the data was looked at."""
    if results['kind'] != 'tokens':
        return (
            f'{examples(results)} of {results["classes"]} classes, '
            f'{count(results["validation"], "validation example")}.'
        )
    return (
        f'{examples(results)}, and {results["validation"]:,} for validation. Scores of features '
        f'look at {results["rows"]:,} of their positions, drawn at random, where '
        f'{results["classes"]:,} different tokens come next; log_likelihood looks at all.'
    )
