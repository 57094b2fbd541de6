"""The report of a search: one page, its Markdown, its pictures, and the numbers."""

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax.study.report import output, tuning_plots
from tljax.study.report.document import (
    Answer,
    Block,
    Bullets,
    Code,
    Document,
    Fold,
    Paragraph,
    Picture,
    Section,
    Table,
)
from tljax.study.report.figures import MINUS, NOT_MEASURED, count, number, plain_number, seconds

Results = Mapping[str, Any]

MEANINGS = (
    'Overfitted: validation fell by more than study.delta after its best, its loss did not go on '
    'falling, and train got no worse. '
    'Overconfident: the metric held, but validation loss lost more than a tenth of its fall while '
    'train loss went on falling. Unstable: validation fell, but train did too, or validation has '
    'made up for half of it again. Diverged: a loss or gradient was not finite. Sound: none of '
    'these.'
)


def write(results: Results, directory: str | os.PathLike[str]) -> Path:
    """Writes the report on a search, each file whole or not at all.

    Args:
      results: the content of results.json, of `tljax.study.tuned.results`.
      directory: made if it isn't there; an earlier report in it is replaced.

    Returns:
      The path of index.html.

    Raises:
      UserError: the directory can't be written.
      RunError: a number isn't finite (nothing is written), or the disk is full.
    """
    return output.write(results, directory, document, pictures)


def pictures(results: Results) -> dict[str, Any]:
    """The pictures that a report has."""
    ranges = {'range_tests': tuning_plots.ranges} if results['ranges'] else {}
    return {'curves': tuning_plots.curves, **ranges}


def document(results: Results) -> Document:
    """The whole report on one search."""
    body = [
        Section('What to train', tuple(_advice(results))),
        Section('Train beside validation', tuple(_candidates(results))),
        Section('How the steps were spent', tuple(_rounds(results))),
        Section('The setting', tuple(_setting(results))),
    ]
    return Document(
        title=results['title'],
        question='Which policy, learning rate and weight decay do best on validation?',
        verdict='tuned',
        sentence=sentence(results),
        meaning=(results['notes'][0],),
        answers=_answers(results),
        sections=tuple(body),
    )


def sentence(results: Results) -> str:
    """What came out, in one sentence."""
    best = results['candidates'][results['best']]
    return (
        f'Best on validation: {named(best)}, with {results["metric"]["name"]} '
        f'{metric(best["validation"][-1])} after {count(best["steps"], "step")}.'
    )


def named(candidate: Mapping[str, Any]) -> str:
    """A candidate in words."""
    return (
        f'{candidate["policy"]} at learning rate {plain_number(candidate["lr"])} and weight decay '
        f'{plain_number(candidate["weight_decay"])}'
    )


def metric(value: float | None) -> str:
    return 'not finite' if value is None else number(value, 3)


def overfitted(results: Results) -> list[Mapping[str, Any]]:
    """The candidates that did, the best first."""
    ranked = (results['candidates'][index] for index in results['ranking'])
    return [c for c in ranked if c['diagnosis']['word'] == 'overfitted']


def _answers(results: Results) -> tuple[Answer, ...]:
    best = results['candidates'][results['best']]
    found = best['diagnosis']
    gap = NOT_MEASURED if found['gap'] is None else number(found['gap'], 3, signed=True)
    bad, every = len(overfitted(results)), len(results['candidates'])
    return (
        Answer('Which policy?', best['policy'], f'of {len(_policies(results))} tried'),
        Answer(
            'At which rate?',
            plain_number(best['lr']),
            f'weight decay {plain_number(best["weight_decay"])}',
        ),
        Answer(
            'Does it overfit?',
            found['word'],
            f'train minus validation {gap}, best at step {found["best_step"]}',
        ),
        Answer(
            'Do others?', f'{bad} of {every}', 'candidates overfitted; the table below says which'
        ),
    )


def _policies(results: Results) -> list[str]:
    return list(dict.fromkeys(c['policy'] for c in results['candidates']))


def _advice(results: Results) -> list[Block]:
    words = ' '.join(results['overrides'])
    blocks: list[Block] = [
        Paragraph('Add these to the command line of `launch.py train`, with a new --workdir:'),
        Code('Overrides', words),
    ]
    if results['early_stopping']:
        blocks.append(
            Paragraph(
                'The best candidate overfitted before its end, so early stopping is among them: '
                'training then goes back to its best evaluation.'
            )
        )
    blocks.append(Bullets(tuple(results['notes'][1:])))
    return blocks


def _candidates(results: Results) -> list[Block]:
    name, shown = results['metric']['name'], results['ranking'][: tuning_plots.MOST_PANELS]
    rows = tuple(_row(results, place, index) for place, index in enumerate(results['ranking'], 1))
    blocks: list[Block] = [
        Picture(
            'curves',
            f'{name} on train and validation along the steps, for {len(shown)} candidates.',
            f'The {count(len(shown), "best candidate")}, each in the last round that it reached. '
            'Train is measured on the run\u2019s own examples, without dropout or augmentation.',
        ),
        Table(
            f'Every candidate, the best first: {name} at the end of its last round',
            ('', 'policy', 'lr', 'wd', 'steps', 'train', 'validation', 'gap', 'fall', 'what'),
            rows,
            numbers=(0, 2, 3, 4, 5, 6, 7, 8),
            code=(1,),
        ),
        Paragraph(
            'gap: train minus validation at the end, positive where train is better. fall: from '
            'the best validation to the end. ' + MEANINGS
        ),
    ]
    bad = overfitted(results)
    if bad:
        lines = tuple(f'{named(c)}: {c["diagnosis"]["sentence"]}' for c in bad)
        blocks.append(Fold(f'What overfitted: {len(bad)} of {len(rows)}', (Bullets(lines),)))
    else:
        blocks.append(Paragraph('No candidate overfitted.'))
    return blocks


def _row(results: Results, place: int, index: int) -> tuple[str, ...]:
    candidate = results['candidates'][index]
    found = candidate['diagnosis']
    return (
        str(place),
        candidate['policy'],
        plain_number(candidate['lr']),
        plain_number(candidate['weight_decay']),
        f'{candidate["steps"]:,}',
        metric(candidate['train']),
        metric(candidate['validation'][-1]),
        NOT_MEASURED if found['gap'] is None else number(found['gap'], 3, signed=True),
        NOT_MEASURED if found['fall'] is None else number(found['fall'], 3),
        found['word'],
    )


def _rounds(results: Results) -> list[Block]:
    seeds = results['config']['tune']['seeds']
    rows = []
    for at, round_ in enumerate(results['rounds']):
        steps = round_['candidates'] * round_['steps'] * seeds
        rows.append(
            (
                str(at + 1),
                str(round_['candidates']),
                f'{round_["steps"]:,}',
                f'{steps:,}',
            )
        )
    blocks: list[Block] = [
        Table(
            'Successive halving',
            ('round', 'candidates', 'steps each', 'steps in all'),
            tuple(rows),
            numbers=(1, 2, 3),
        )
    ]
    if results['ranges']:
        blocks += [
            Picture(
                'range_tests',
                'Smoothed loss over the learning rate, for each policy.',
                'Learning-rate range tests (Smith 2017): one short run a policy, whose learning '
                'rate grows from step to step. Shaded: the range that was searched.',
            ),
            Table(
                'Bounds of the learning rate',
                ('policy', 'low', 'high'),
                tuple(
                    (name, plain_number(test['low']), plain_number(test['high']))
                    for name, test in results['ranges'].items()
                ),
                numbers=(1, 2),
                code=(0,),
            ),
        ]
    return blocks


def _setting(results: Results) -> list[Block]:
    synthetic = [f'The data is {results["synthetic"]}'] if results['synthetic'] else []
    lines = [
        f'Data: {results["data"]}, {count(results["train_examples"], "training example")}, '
        f'{count(results["metric"]["examples"], "validation example")}.',
        *synthetic,
        f'Time: {seconds(results["seconds_total"])} on {results["devices"]}.',
        'Versions: ' + ', '.join(f'{k} {v}' for k, v in results['versions'].items()) + '.',
    ]
    return [
        Bullets(tuple(lines)),
        Code('Command', results['command']),
        Code('Fingerprint of the config', results['fingerprint']),
    ]


def text_summary(results: Results) -> str:
    """The lines that the command prints at its end; plain ASCII as far as the results are."""
    head = ['', 'policy', 'lr', 'wd', 'steps', 'train', 'valid', 'gap', 'fall', '']
    rows = [head, *(list(_row(results, p, i)) for p, i in enumerate(results['ranking'][:10], 1))]
    table = output.columns(rows)
    bad = len(overfitted(results))
    lines = [
        *textwrap.wrap(sentence(results), 96),
        '',
        *table,
        '',
        f'{bad} of {len(results["candidates"])} candidates overfitted.',
        *untried(results),
        f'Train it with: {" ".join(results["overrides"])}',
    ]
    return '\n'.join(lines).replace(MINUS, '-')


def untried(results: Results) -> list[str]:
    """A line on the policies that no candidate has, since the budget reached for none of theirs.

    >>> untried({'candidates': [{'policy': 'full'}],
    ...          'config': {'tune': {'policies': ['full', 'bitfit']}}})
    ['Not tried, for want of tune.budget: bitfit.']
    """
    tried = {candidate['policy'] for candidate in results['candidates']}
    out = [name for name in results['config']['tune']['policies'] if name not in tried]
    return [f'Not tried, for want of tune.budget: {", ".join(out)}.'] if out else []
