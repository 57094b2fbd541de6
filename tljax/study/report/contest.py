"""The report of a contest: sources as ranked, what they reached, and what the ranking was worth."""

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax.study.report import output
from tljax.study.report.document import Answer, Bullets, Code, Document, Paragraph, Section, Table
from tljax.study.report.figures import MINUS, NOT_MEASURED, estimate, number, plain_number, seconds

Results = Mapping[str, Any]


def write(results: Results, directory: str | os.PathLike[str]) -> Path:
    """Writes the report on a contest, each file whole or not at all.

    Args:
      results: of `tljax.study.contest.contest`.
      directory: made if it isn't there; an earlier report in it is replaced.

    Returns:
      The path of index.html.

    Raises:
      UserError: the directory can't be written.
      RunError: a number isn't finite (nothing is written), or the disk is full.
    """
    return output.write(results, directory, document)


def sentence(results: Results) -> str:
    """Which source was best, and whether the ranking found it."""
    first, best = results['sources'][0], results['best']
    name = results['metric']['name']
    if first['name'] == best:
        return f'{best} was ranked first by {results["by"]}, and reached the best {name}.'
    return (
        f'{first["name"]} was ranked first, by {results["by"]} of what is not disqualified, but '
        f'{best} reached the best {name}: a regret of {number(results["regret"], 3)}.'
    )


def document(results: Results) -> Document:
    """The whole report on one contest."""
    worth = results['worth'][results['by']] or {'tau': None, 'regret': None}
    lines = (
        f'{results["trained"]} of {results["ranked"]} ranked sources were trained.',
        f'Ranking took {seconds(results["ranking_seconds"])}, on {results["devices"]}.',
        'Versions: ' + ', '.join(f'{k} {v}' for k, v in results['versions'].items()) + '.',
    )
    return Document(
        title=results['title'],
        question='Did the ranking find the best source?',
        verdict='judged',
        sentence=sentence(results),
        meaning=(
            'Each source was compared with the same model from scratch. What it reached on the '
            'test split is set beside what the ranking said before anything was trained.',
        ),
        answers=(
            Answer('Which was best?', results['best'], f'by {results["metric"]["name"]} on test'),
            Answer('Same order?', estimate(worth['tau']), 'weighted Kendall tau, 1 is the same'),
            Answer('What did it cost?', estimate(worth['regret']), 'regret of taking the first'),
        ),
        sections=(
            Section('The sources, as ranked', (_sources(results),)),
            Section('What each score was worth', (_worth(results), Paragraph(MEANING))),
            Section('The setting', (Bullets(lines), Code('Command', results['command']))),
        ),
    )


MEANING = (
    'Tau: weighted Kendall tau between a score and what sources reached; regret: how far the '
    'source of the highest score ends below the best. Intervals are bootstrapped over sources, '
    'and wide where these are few.'
)


def _sources(results: Results) -> Table:
    rows = tuple(
        (
            one['name'],
            plain_number(one['score']),
            plain_number(one['probe']),
            estimate(one['transfer']),
            estimate(one['scratch']),
            one['verdict']['name'],
            seconds(one['seconds']),
        )
        for one in results['sources']
    )
    head = ('source', results['by'], 'probe', 'transfer', 'scratch', 'verdict', 'time')
    return Table('Ranked, then trained', head, rows, numbers=(1, 2, 3, 4, 6), code=(0,))


def _worth(results: Results) -> Table:
    rows = tuple(
        (
            name,
            estimate(found['tau']) if found else NOT_MEASURED,
            estimate(found['regret']) if found else NOT_MEASURED,
        )
        for name, found in results['worth'].items()
    )
    return Table('Scores beside results', ('score', 'tau', 'regret'), rows, numbers=(1, 2))


def text_summary(results: Results) -> str:
    """The lines that the command prints at its end."""
    table = _sources(results)
    rows = [table.head, *table.rows]
    lines = output.columns(rows)
    return '\n'.join([*textwrap.wrap(sentence(results), 96), '', *lines]).replace(MINUS, '-')
