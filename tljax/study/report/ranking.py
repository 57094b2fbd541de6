"""The report of a ranking: one page, its Markdown, and the numbers."""

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax.study.recommend import RULES, start
from tljax.study.report import output, ranked_examples
from tljax.study.report.document import (
    Answer,
    Block,
    Bullets,
    Code,
    Document,
    Fold,
    Paragraph,
    Section,
    Table,
)
from tljax.study.report.figures import (
    MINUS,
    NOT_MEASURED,
    count,
    estimate,
    number,
    plain_number,
    seconds,
)
from tljax.study.report.ranked_order import is_behind, left_out, place_of, sentence

Results = Mapping[str, Any]


def write(results: Results, directory: str | os.PathLike[str]) -> Path:
    """Writes the report on a ranking, each file whole or not at all.

    Args:
      results: of `tljax.study.ranked.results`.
      directory: made if it isn't there; an earlier report in it is replaced.

    Returns:
      The path of index.html.

    Raises:
      UserError: the directory can't be written.
      RunError: a number isn't finite (nothing is written), or the disk is full.
    """
    return output.write(results, directory, document)


def document(results: Results) -> Document:
    """The whole report on one ranking."""
    sections = (
        Section('The sources, the best first', tuple(_order(results))),
        Section('What to do first', tuple(_advice(results))),
        Section('What speaks against each', tuple(_against(results))),
        Section('Other scores', tuple(_scores(results))),
        Section('Time and memory', tuple(_costs(results))),
        Section('The setting', tuple(_setting(results))),
    )
    return Document(
        title=results['title'],
        question='Which source should I start from?',
        verdict='ranked',
        sentence=sentence(results),
        meaning=(
            f'A score looks at {ranked_examples.LOOKS_AT[results["kind"]]}; no source was trained '
            'on them. It says which source to try first, not how well it will do, nor that '
            'transfer beats training from scratch: `launch.py compare` measures that.',
        ),
        answers=_answers(results),
        sections=sections,
    )


def _answers(results: Results) -> tuple[Answer, ...]:
    first = start(results['sources'])
    taus = [tau for tau in results['agreement'].values() if tau is not None]
    agree = sum(tau > 0 for tau in taus)
    return (
        Answer('Which source?', first['name'], first['card']['title']),
        Answer('By how much?', *_lead(results)),
        Answer(
            'Do other scores agree?',
            f'{agree} of {len(taus)}' if taus else NOT_MEASURED,
            'weighted Kendall tau above 0',
        ),
        Answer(
            'A linear probe?', estimate(first['probe']), ranked_examples.PROBED[results['kind']]
        ),
    )


def _lead(results: Results) -> tuple[str, str]:
    others = [
        one
        for one in results['sources']
        if one['name'] in results['eligible'] and one['name'] != start(results['sources'])['name']
    ]
    if not others:
        return NOT_MEASURED, f'no other source can be started from{left_out(results)}'
    return estimate(others[0]['behind']), f'ahead of {others[0]["name"]}{left_out(results)}'


def _order(results: Results) -> list[Block]:
    rows = tuple(
        (
            str(place),
            one['name'],
            estimate(one['interval']),
            estimate(one['behind'], signed=True) if is_behind(one) else '',
            place_of(one, results),
            estimate(one['lift'], signed=True) if one['lift'] else NOT_MEASURED,
            estimate(one['probe']),
        )
        for place, one in enumerate(results['sources'], 1)
    )
    head = ('', 'source', results['by'], 'behind the first', 'first in', 'above untrained', 'probe')
    return [
        Table('The order', head, rows, numbers=(0, 2, 3, 4, 5, 6), code=(1,)),
        Paragraph(
            f'Rule: the highest {results["by"]} ({results["paper"]}). '
            f'{ranked_examples.unit(results)}Intervals hold 95 %, over {results["halves"]} random '
            f'halves of the {ranked_examples.UNITS[results["kind"]]}. Behind the first: the first '
            'of those that can be started from, which are not disqualified, nor untrained beside '
            'trained ones; below 0, an untrained model scores higher. First in: the share of '
            'halves in which a source is first of these. Above untrained: less the same model '
            f'before any training. Probe: {ranked_examples.probe(results)}'
        ),
    ]


def _advice(results: Results) -> list[Block]:
    said = results['recommendation']
    blocks: list[Block] = [
        Paragraph(said['sentence']),
        Paragraph(f'Rule: {RULES[results["kind"]]}'),
    ]
    if said['overrides']:
        blocks.append(Code('Add to launch.py train or compare', ' '.join(said['overrides'])))
    return blocks


def _against(results: Results) -> list[Block]:
    rows = tuple(
        (
            one['name'],
            one['card']['licence'],
            one['card']['training_data'],
            '\n'.join(one['warnings']) or 'nothing found',
        )
        for one in results['sources']
    )
    head = ('source', 'licence', 'trained on', 'warnings')
    blocks: list[Block] = [Table('Cards and warnings', head, rows, code=(0,), prose=(1, 2, 3))]
    for name, findings in (
        ('All sources together', results['together']),
        ('The target\u2019s own data', results['findings']),
        *((one['name'], one['findings']) for one in results['sources']),
    ):
        if findings:
            blocks.append(
                Fold(f'{name}: {count(len(findings), "finding")}', (_findings(findings),))
            )
    return blocks


def _findings(findings: list[Mapping[str, Any]]) -> Bullets:
    return Bullets(
        tuple(f'{f["level"]}, {f["topic"]}: {f["what"]} {f["why"]} {f["do"]}' for f in findings)
    )


def _scores(results: Results) -> list[Block]:
    names = results['scores']
    rows = [
        (one['name'], *(plain_number(one['scores'][name]) for name in names))
        for one in results['sources']
    ]
    taus = ['' if name == results['by'] else _tau(results, name) for name in names]
    rows.append(('agreement', *taus))
    why = {text for one in results['sources'] for text in one['why_not'].values()}
    why |= set(results['not_defined'].values())
    return [
        Table(
            'Every score, and the weighted Kendall tau of its order with the rule\u2019s',
            ('source', *names),
            tuple(rows),
            numbers=tuple(range(1, len(names) + 1)),
            code=(0,),
        ),
        Bullets(tuple(f'{name}: {results["papers"][name]}.' for name in names)),
        *([Fold('What is not defined', (Bullets(tuple(sorted(why))),))] if why else []),
    ]


def _tau(results: Results, name: str) -> str:
    tau = results['agreement'][name]
    return NOT_MEASURED if tau is None else number(tau, 2)


def _costs(results: Results) -> list[Block]:
    names = ['features', *results['scores'], 'probe']
    rows = tuple(
        (
            one['name'],
            f'{one["params"]:,}',
            str(one['width']),
            f'{one["bytes"]:,}',
            *(f'{one["seconds"][name]:.2f}' for name in names),
        )
        for one in results['sources']
    )
    head = ('source', 'parameters', 'features', 'bytes', *(f'{name}, s' for name in names))
    columns = tuple(range(1, len(head)))
    return [Table('What it took', head, rows, numbers=columns, code=(0,))]


def _setting(results: Results) -> list[Block]:
    lines = (
        f'Data: {results["data"]}, {ranked_examples.setting(results)} The test split is not read.',
        f'Time: {seconds(results["seconds"])} on {results["devices"]}.',
        'Versions: ' + ', '.join(f'{k} {v}' for k, v in results['versions'].items()) + '.',
    )
    return [Bullets(lines), Code('Command', results['command'])]


def text_summary(results: Results) -> str:
    """The order and what speaks against each source, for the terminal."""
    head = ['', 'source', results['by'], 'first in', 'above untrained', 'probe']
    rows = [head]
    for place, one in enumerate(results['sources'], 1):
        cells = [estimate(one['interval']), place_of(one, results)]
        cells += [estimate(one['lift']) if one['lift'] else '', estimate(one['probe'])]
        rows.append([str(place), one['name'], *cells])
    lines = output.columns(rows)
    for one in results['sources']:
        for warning in one['warnings']:
            lines += textwrap.wrap(f'{one["name"]}: {warning}', 96, subsequent_indent='  ')
    advice = results['recommendation']
    tail = ['', *textwrap.wrap(f'Recommended: {advice["sentence"]}', 96)]
    if advice['overrides']:
        tail.append(f'With: {" ".join(advice["overrides"])}')
    for of, key in (('All sources', 'together'), ('Target', 'findings')):
        for finding in results[key]:
            if finding['level'] != 'note':
                lines += textwrap.wrap(f'{of}: {finding["what"]}', 96, subsequent_indent='  ')
    lines = [*textwrap.wrap(sentence(results), 96), '', *lines, *tail]
    return '\n'.join(lines).replace(MINUS, '-')
