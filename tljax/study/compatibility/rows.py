"""What was wrong with the rows of the user's own data, and how unbalanced its classes are."""

from collections.abc import Mapping
from typing import Any

from tljax.study.compatibility.finding import Finding

UNBALANCED = 3.0  # examples of the largest class for each of the smallest, from which it is said
SHOWN = 5


def findings(account: Mapping[str, Any]) -> list[Finding]:
    """Findings on a set of the user's.

    Args:
      account: `Data.account`; {} for a set that is not the user's.

    >>> bad = {'count': 1, 'reasons': {'the file is empty': 1}, 'rows': [['a.png', 'empty']]}
    >>> told = findings({'rows': 40, 'bad': bad, 'imbalance': 1.0, 'notes': []})
    >>> told[0].what
    '1 of 40 rows cannot be used and are left out: the file is empty (1). a.png: empty.'
    """
    if not account:
        return []
    found = []
    bad = account['bad']
    if bad['count']:
        why = ', '.join(f'{reason} ({count})' for reason, count in bad['reasons'].items())
        first = '; '.join(f'{where}: {reason}' for where, reason in bad['rows'][:SHOWN])
        more = f' and {bad["count"] - SHOWN} more' if bad['count'] > SHOWN else ''
        found.append(
            Finding(
                'warning',
                'rows',
                f'{bad["count"]} of {account["rows"]} rows cannot be used and are left out: {why}. '
                f'{first}{more}.',
                'Results are about the rows that are left.',
                "Mend or remove them; config.data.on_error='refuse' stops at them.",
            )
        )
    if account['imbalance'] >= UNBALANCED:
        found.append(
            Finding(
                'warning',
                'labels',
                f'The largest class has {account["imbalance"]:.1f} times as many training examples '
                'as the smallest.',
                'Accuracy can be high while small classes are never found.',
                "config.task.metric='balanced_accuracy' shows it, config.task.balance='loss' lets "
                'all classes weigh alike, config.data.shots draws as many of each.',
            )
        )
    found += [
        Finding('note', 'rows', f'{note[0].upper()}{note[1:]}', '', '') for note in account['notes']
    ]
    return found
