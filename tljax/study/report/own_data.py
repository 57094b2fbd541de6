"""The user's own data in a report: classes in each split, and the rows that were left out."""

from collections.abc import Mapping
from typing import Any

from tljax.study.report.document import Block, Bullets, Fold, Paragraph, Table

OPEN = 10  # rows that are shown without a click


def own_data(account: Mapping[str, Any]) -> list[Block]:
    """Blocks on a set of the user's; none for {}, which is any other set.

    Args:
      account: `Data.account`.
    """
    if not account:
        return []
    counts = account['counts']
    names = list(next(iter(counts.values())))
    bad = account['bad']
    blocks: list[Block] = [
        Table(
            f'Rows of {account["where"]} by class',
            ('Class', *counts),
            tuple((name, *(str(counts[split].get(name, 0)) for split in counts)) for name in names),
            numbers=tuple(range(1, len(counts) + 1)),
        ),
        Paragraph(
            f'The largest class has {account["imbalance"]:.2g} training examples for each one of '
            f'the smallest. {bad["count"]} of {account["rows"]} rows were left out'
            + (': ' + _reasons(bad['reasons']) + '.' if bad['count'] else '.')
        ),
    ]
    if bad['rows']:
        table = Table(
            'Rows that were left out',
            ('Row', 'Why'),
            tuple((where, why) for where, why in bad['rows']),
            code=(0,),
            prose=(1,),
        )
        shown = f'The {"first " if bad["count"] > len(bad["rows"]) else ""}{len(bad["rows"])} rows'
        blocks.append(table if len(bad['rows']) <= OPEN else Fold(shown, (table,)))
    said = list(account['notes'])
    if account['ignored']:
        said.append(f'other files were not looked at: {_reasons(account["ignored"])}.')
    return [*blocks, *([Bullets(tuple(said))] if said else [])]


def _reasons(counted: Mapping[str, int]) -> str:
    return ', '.join(f'{reason} ({count})' for reason, count in counted.items())
